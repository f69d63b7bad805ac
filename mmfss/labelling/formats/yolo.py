"""YOLO-seg: a text for each photo, an outline a line, in parts of the sides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mmfss import regions
from mmfss.files import write_text
from mmfss.labelling.folder import stem_of
from mmfss.labelling.formats.files import Files, Terms, link_images
from mmfss.labelling.formats.photos import LabelledPhoto


class Yolo:
    """See :class:`.files.Form`.

    An object of several parts is one line, its parts on seams; of a class each part is a line.
    """

    def __init__(self, folder: Path, terms: Terms) -> None:
        self._folder, self._terms = folder, terms
        self._files = Files(folder / 'labels')
        self._names: list[str] = []

    def add(self, photo: LabelledPhoto) -> None:
        """Write its text; an empty one where nothing is marked."""
        self._names.append(photo.name)
        lines = []
        for one in photo.regions:
            outlines = one.outlines(self._terms.tolerance)
            if self._terms.apart:
                outlines = [tuple(ring for outline in outlines for ring in outline)]
            for outline in outlines:
                ring = regions.joined(outline) / np.array([photo.width, photo.height])
                numbers = (f'{number:.6f}'.rstrip('0').rstrip('.') for number in ring.ravel())
                lines.append(' '.join((str(one.label - 1), *numbers)))
        text = ''.join(f'{line}\n' for line in lines)
        self._files.write(f'{stem_of(photo.name)}.txt', text.encode())

    def finish(self) -> int:
        """Write data.yaml and images.txt, and link images."""
        link_images(self._folder / 'images', self._terms.images)
        lines = ''.join(f'./images/{name}\n' for name in self._names)
        write_text(self._folder / 'images.txt', lines)
        names = (f'  {i}: {json.dumps(n)}\n' for i, n in enumerate(self._terms.classes))
        head = 'train: images.txt\nval: images.txt\nnames:\n'
        write_text(self._folder / 'data.yaml', head + ''.join(names))
        return self._files.finish()
