"""COCO's detection format with outlines: one annotation for each region, of all its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmfss import regions
from mmfss.files import write_text
from mmfss.labelling.formats.files import Terms
from mmfss.labelling.formats.photos import LabelledPhoto


class CocoPolygons:
    """See :class:`.files.Form`."""

    def __init__(self, folder: Path, terms: Terms) -> None:
        self._file, self._terms = folder / 'annotations.json', terms
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, photo: LabelledPhoto) -> None:
        """Keep a photo for the end."""
        image = len(self._images) + 1
        size = dict(width=photo.width, height=photo.height)
        self._images.append(dict(id=image, file_name=photo.name, **size))
        for one in photo.regions:
            outlines = one.outlines(self._terms.tolerance)
            height, width = one.part.shape
            self._annotations.append(
                dict(
                    id=len(self._annotations) + 1,
                    image_id=image,
                    category_id=one.label,
                    segmentation=[regions.joined(o).ravel().tolist() for o in outlines],
                    area=int(one.part.sum()),
                    bbox=[one.left, one.top, width, height],
                    iscrowd=0,
                    score=one.score,
                )
            )

    def finish(self) -> int:
        """Write annotations.json."""
        content = dict(
            info=dict(description='labels predicted by mmfss (mmfss label)'),
            categories=[dict(id=i, name=name) for i, name in enumerate(self._terms.classes, 1)],
            images=self._images,
            annotations=self._annotations,
        )
        write_text(self._file, json.dumps(content, ensure_ascii=False) + '\n')
        return 0
