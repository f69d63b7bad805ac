"""A labelled photo and its regions, as all forms are given it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfss import regions


@dataclass(frozen=True)
class Region:
    """A class in a photo, or an object.

    Attributes:
        label: 1..N, the class.
        score: in [0, 1].
        part: bool (h, w), the part of the photo around it.
        left, top: where that is.
    """

    label: int
    score: float
    part: np.ndarray
    left: int
    top: int

    def outlines(self, tolerance: float) -> list[regions.Outline]:
        """Of its connected parts, in pixels of the photo."""
        found = regions.outlines_of(self.part, tolerance)
        return [tuple(ring + (self.left, self.top) for ring in outline) for outline in found]


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo.

    Attributes:
        name: its path below the folder of images, with '/'.
        height, width: of the upright photo.
        regions: by class; they do not overlap.
    """

    name: str
    height: int
    width: int
    regions: tuple[Region, ...]

    def mask(self, region: Region) -> np.ndarray:
        """A region as bool (height, width)."""
        return regions.placed(region.part, region.left, region.top, self.height, self.width)


def photo_of(name: str, record: Mapping[str, Any]) -> LabelledPhoto:
    """A photo of what :func:`mmfss.labelling.records.describe_label` says of its label, and
    'scores' of the classes for annotations that have none of their own."""
    height, width = record['height'], record['width']
    found = []
    for one in record['annotations']:
        left, top, w, h = one['bbox']
        code = regions.code_of(one['segmentation'], height, width)
        mask = regions.decoded(code, height, width)
        score = one.get('score', record['scores'][one['category_id'] - 1])
        part = np.ascontiguousarray(mask[top : top + h, left : left + w])
        found.append(Region(one['category_id'], float(score), part, left, top))
    return LabelledPhoto(name, height, width, tuple(found))
