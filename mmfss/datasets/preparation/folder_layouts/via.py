"""VIA 2 (VGG Image Annotator): regions of all images in one JSON or CSV file."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmfss.datasets.preparation.folder_layouts.class_names import UNNAMED
from mmfss.datasets.preparation.folder_layouts.shapes import (
    NO_AREA,
    UNKNOWN_SHAPE,
    Gathered,
    numbers,
)
from mmfss.datasets.preparation.own_coco import OwnCoco
from mmfss.regions import ellipse, rectangle
from mmfss.words import listed

_NAMES = ('label', 'class', 'name', 'type', 'category', 'object')
_NO_AREA = {'point', 'polyline'}
Regions = list[tuple[dict[str, Any], dict[str, Any]]]
"""Shape and region attributes of each region."""


def read_via(files: Sequence[Path]) -> list[OwnCoco]:
    """What the regions of each file say.

    The class is the region attribute that is called label, class, name, type, category or object,
    or the only one; where no region has any, all are one class.

    Raises:
        ValueError: A file is cut off or of another form, or several attributes may be the class.
    """
    return [_read(file) for file in files]


def _read(file: Path) -> OwnCoco:
    gathered = Gathered(file)
    try:
        images = list(_csv(file) if file.suffix.lower() == '.csv' else _json(file))
        attribute = _attribute(file, [region for _, regions in images for region in regions])
        for name, regions in images:
            image = gathered.image(name, 0, 0)
            for number, (shape, attributes) in enumerate(regions, 1):
                label = UNNAMED if attribute is None else _value(attributes.get(attribute))
                _add(gathered, image, shape, label, f'region {number} of {name}')
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f'{file} is cut off or no file of VIA ({error!r}); export the annotations again'
        ) from error
    return gathered.done()


def _json(file: Path) -> Iterator[tuple[str, Regions]]:
    content = json.loads(file.read_bytes())
    for entry in content.get('_via_img_metadata', content).values():
        regions = entry.get('regions') or []
        if isinstance(regions, dict):  # VIA 1
            regions = list(regions.values())
        yield (
            str(entry['filename']),
            [(r['shape_attributes'], r.get('region_attributes') or {}) for r in regions],
        )


def _csv(file: Path) -> Iterator[tuple[str, Regions]]:
    images: dict[str, Regions] = {}
    with open(file, encoding='utf-8-sig', newline='') as text:
        for row in csv.DictReader(text):
            regions = images.setdefault(row.get('filename') or row['#filename'], [])
            shape = json.loads(row['region_shape_attributes'] or '{}')
            if shape:
                regions.append((shape, json.loads(row['region_attributes'] or '{}')))
    yield from images.items()


def _attribute(file: Path, regions: Regions) -> str | None:
    """The region attribute that is the class."""
    counts = Counter(key for _, attributes in regions for key in attributes)
    named = [key for name in _NAMES for key in counts if key.casefold() == name]
    if named or len(counts) < 2:
        return next(iter(named or counts), None)
    raise ValueError(
        f'{file}: regions have the attributes {listed(sorted(counts), 6)}; which is the class? '
        'Rename it to "label" and export again'
    )


def _value(value: Any) -> str:
    """Of a text, or of check boxes that are set: one."""
    if isinstance(value, dict):
        return next((str(key) for key, on in value.items() if on), '')
    return '' if value is None else str(value)


def _add(gathered: Gathered, image: int, shape: dict[str, Any], label: str, what: str) -> None:
    kind = shape['name']

    def of(*keys: str) -> list[float]:
        return numbers([shape[key] for key in keys], what)

    if kind == 'polygon':
        x, y = (numbers(shape[f'all_points_{axis}'], what) for axis in 'xy')
        if len(x) != len(y):
            raise ValueError(f'{what} has {len(x)} x and {len(y)} y of points')
        if len(x) > 2:
            return gathered.add(image, label, what, [v for pair in zip(x, y) for v in pair])
        return gathered.leave_out(image, label, what, NO_AREA)
    if kind == 'rect':
        x1, y1, width, height = of('x', 'y', 'width', 'height')
        outline = rectangle((x1, y1), (x1 + width, y1 + height))
        return gathered.add(image, label, what, outline, framed=True)
    if kind == 'circle':
        cx, cy, r = of('cx', 'cy', 'r')
        return gathered.add(image, label, what, ellipse((cx, cy), (r, r)))
    if kind == 'ellipse':
        cx, cy, rx, ry = of('cx', 'cy', 'rx', 'ry')
        turned = math.degrees(numbers([shape.get('theta', 0)], what)[0])
        return gathered.add(image, label, what, ellipse((cx, cy), (rx, ry), turned))
    reason = NO_AREA if kind in _NO_AREA else UNKNOWN_SHAPE
    return gathered.leave_out(image, label, what, reason)
