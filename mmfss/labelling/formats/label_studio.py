"""Label Studio: tasks with predictions, to be imported into a project of local files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from mmfss import regions
from mmfss.files import write_text
from mmfss.labelling.formats.files import Terms
from mmfss.labelling.formats.photos import LabelledPhoto, Region

MODEL = 'mmfss'
_FROM, _TO = 'label', 'image'
"""Names of the tags in label_config.xml."""


class LabelStudio:
    """See :class:`.files.Form`.

    Photos are named as Label Studio serves them from
    ``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT``, the folder that holds the folder of images.

    Args:
        painted: Brush labels, which keep every pixel, in the place of polygons.
    """

    def __init__(self, folder: Path, terms: Terms, painted: bool = True) -> None:
        self._folder, self._terms, self._painted = folder, terms, painted
        self._tasks: list[str] = []

    def add(self, photo: LabelledPhoto) -> None:
        """Keep a photo for the end."""
        found = [
            one for number, r in enumerate(photo.regions, 1) for one in self._of(photo, r, number)
        ]
        score = min((one.score for one in photo.regions), default=0.0)
        prediction = dict(model_version=MODEL, score=score, result=found)
        place = quote(f'{self._terms.images.name}/{photo.name}')
        data = {_TO: f'/data/local-files/?d={place}'}
        task = dict(data=data, predictions=[prediction])
        self._tasks.append(json.dumps(task, ensure_ascii=False, separators=(',', ':')))

    def _of(self, photo: LabelledPhoto, region: Region, number: int) -> list[dict[str, Any]]:
        name = self._terms.classes[region.label - 1]
        values: list[dict[str, Any]]
        if self._painted:
            kind = 'brushlabels'
            values = [dict(format='rle', rle=regions.brush_code(photo.mask(region)))]
        else:
            kind, sides = 'polygonlabels', np.array([photo.width, photo.height])
            rings = [regions.joined(o) for o in region.outlines(self._terms.tolerance)]
            values = [dict(points=(100 * ring / sides).tolist(), closed=True) for ring in rings]
        return [
            dict(
                id=f'{number}-{part}',
                from_name=_FROM,
                to_name=_TO,
                type=kind,
                original_width=photo.width,
                original_height=photo.height,
                image_rotation=0,
                score=region.score,
                value={**value, kind: [name]},
            )
            for part, value in enumerate(values, 1)
        ]

    def finish(self) -> int:
        """Write tasks.json and label_config.xml."""
        write_text(self._folder / 'tasks.json', '[' + ',\n'.join(self._tasks) + ']\n')
        tag = 'BrushLabels' if self._painted else 'PolygonLabels'
        labels = ''.join(f'    <Label value={quoteattr(n)}/>\n' for n in self._terms.classes)
        config = (
            f'<View>\n  <Image name="{_TO}" value="${_TO}" zoom="true"/>\n'
            f'  <{tag} name="{_FROM}" toName="{_TO}">\n{labels}  </{tag}>\n</View>\n'
        )
        write_text(self._folder / 'label_config.xml', config)
        return 0
