"""LabelMe: a JSON for each photo, which X-AnyLabeling reads, too."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mmfss import regions
from mmfss.files import write_text
from mmfss.labelling.folder import stem_of
from mmfss.labelling.formats.files import Files, Terms
from mmfss.labelling.formats.photos import LabelledPhoto, Region

_VERSION = '5.8.1'
"""Of LabelMe whose form it is."""


class LabelMe:
    """See :class:`.files.Form`.

    Parts of one region have one ``group_id``.

    Args:
        painted: Mask shapes in the place of polygons.
    """

    def __init__(self, folder: Path, terms: Terms, painted: bool = False) -> None:
        self._files, self._terms, self._painted = Files(folder), terms, painted

    def add(self, photo: LabelledPhoto) -> None:
        """Write its JSON."""
        name = f'{stem_of(photo.name)}.json'
        folder = (self._files.folder / name).parent
        shapes = [
            shape for number, one in enumerate(photo.regions, 1) for shape in self._of(one, number)
        ]
        content: dict[str, Any] = dict(
            version=_VERSION,
            flags={},
            shapes=shapes,
            imagePath=os.path.relpath(self._terms.images / photo.name, folder),
            imageData=None,
            imageHeight=photo.height,
            imageWidth=photo.width,
        )
        self._files.write(name, json.dumps(content, ensure_ascii=False, indent=1).encode())

    def _of(self, region: Region, number: int) -> list[dict[str, Any]]:
        if self._painted:
            shape = regions.labelme_shape(region.part)
            for point in shape['points']:
                point[0] += region.left
                point[1] += region.top
            return [self._shape(region, None, **shape)]
        rings = [regions.joined(outline) for outline in region.outlines(self._terms.tolerance)]
        group = number if len(rings) > 1 else None
        return [
            self._shape(region, group, shape_type='polygon', points=ring.tolist(), mask=None)
            for ring in rings
        ]

    def _shape(self, region: Region, group: int | None, **shape: Any) -> dict[str, Any]:
        common = dict(label=self._terms.classes[region.label - 1], score=region.score)
        return dict(common, group_id=group, description='', flags={}, **shape)

    def finish(self) -> int:
        """Write labels.txt, for ``labelme --labels``."""
        names = ('__ignore__', '_background_', *self._terms.classes)
        write_text(self._files.folder / 'labels.txt', ''.join(f'{name}\n' for name in names))
        return self._files.finish()
