"""Pascal VOC's layout, with the list of colours that CVAT and Datumaro put beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmfss.datasets.classes import label_palette
from mmfss.datasets.io import png_of
from mmfss.files import write_text
from mmfss.labelling.folder import label_name, stem_of
from mmfss.labelling.formats.files import Files, Terms, link_images
from mmfss.labelling.formats.photos import LabelledPhoto

_MOST_OBJECTS = 254


class Voc:
    """See :class:`.files.Form`."""

    def __init__(self, folder: Path, terms: Terms) -> None:
        self._folder, self._terms = folder, terms
        kinds = ('SegmentationClass', 'SegmentationObject')[: 2 if terms.apart else 1]
        self._files = [Files(folder / kind) for kind in kinds]
        self._stems: list[str] = []

    def add(self, photo: LabelledPhoto) -> None:
        """Write its masks, values of classes and of objects.

        Raises:
            ValueError: More objects than a mask has values for.
        """
        self._stems.append(stem_of(photo.name))
        if self._terms.apart and len(photo.regions) > _MOST_OBJECTS:
            raise ValueError(
                f'{photo.name} has {len(photo.regions)} objects; SegmentationObject of VOC has '
                f'{_MOST_OBJECTS} values for them: leave voc or --instances out'
            )
        for files, many in zip(self._files, (len(self._terms.classes), _MOST_OBJECTS)):
            mask = np.zeros((photo.height, photo.width), np.uint8)
            for number, one in enumerate(photo.regions, 1):
                h, w = one.part.shape
                value = one.label if files is self._files[0] else number
                mask[one.top : one.top + h, one.left : one.left + w][one.part] = value
            files.write(label_name(photo.name), png_of(mask, label_palette(many)))

    def finish(self) -> int:
        """Write the list of photos and that of colours, and link the photos."""
        link_images(self._folder / 'JPEGImages', self._terms.images)
        listed = ''.join(f'{stem}\n' for stem in self._stems)
        write_text(self._folder / 'ImageSets/Segmentation/train.txt', listed)
        names = ('background', *self._terms.classes)
        colours = label_palette(len(self._terms.classes))
        lines = ['# label:color_rgb:parts:actions']
        lines += [f'{n}:{",".join(map(str, c))}::' for n, c in zip(names, colours)]
        write_text(self._folder / 'labelmap.txt', '\n'.join(lines) + '\n')
        return sum(files.finish() for files in self._files)
