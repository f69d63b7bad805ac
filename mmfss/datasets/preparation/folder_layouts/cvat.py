"""CVAT for images 1.1: annotations.xml with polygons, ellipses, masks and boxes of all images."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from mmfss.datasets.preparation.folder_layouts.shapes import (
    NO_AREA,
    UNKNOWN_SHAPE,
    Gathered,
    numbers,
)
from mmfss.datasets.preparation.folder_layouts.tree import split_of
from mmfss.datasets.preparation.own_coco import OwnCoco
from mmfss.regions import cvat_mask, ellipse, rectangle

_NO_AREA = {'points', 'polyline', 'skeleton'}
_OTHER = {'cuboid'}


def read_cvat(files: Sequence[Path]) -> list[OwnCoco]:
    """What the shapes of each file say; classes in the order of the task's labels.

    Raises:
        ValueError: A file is cut off or of another form (a video's tracks, say).
    """
    return [_read(file) for file in files]


def _read(file: Path) -> OwnCoco:
    gathered = Gathered(file)
    order: list[str] = []
    try:
        for _, element in ElementTree.iterparse(file):
            if element.tag == 'track':
                raise ValueError(
                    'it has the tracks of a video; export "CVAT for images 1.1" or "COCO 1.0"'
                )
            if element.tag == 'label' and element.find('name') is not None:
                order.append(element.findtext('name') or '')
            if element.tag == 'image':
                _image(gathered, element)
                element.clear()
    except (ElementTree.ParseError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{file} is cut off or no file of "CVAT for images" ({error}); export it again'
        ) from error
    gathered.order(order)
    return gathered.done()


def _image(gathered: Gathered, element: ElementTree.Element) -> None:
    name, width, height = (element.attrib[key] for key in ('name', 'width', 'height'))
    size = int(height), int(width)
    split = split_of(element.get('subset', '')).replace('default', '')
    image = gathered.image(name, *size, split=split)
    for number, shape in enumerate(element, 1):
        label, what = shape.get('label', ''), f'shape {number} of {name}'

        def of(*keys: str, shape: ElementTree.Element = shape, what: str = what) -> list[float]:
            return numbers([shape.attrib[key] for key in keys], what)

        turned = numbers([shape.get('rotation', 0)], what)[0]
        if shape.tag == 'polygon':
            outline = numbers(shape.attrib['points'].replace(';', ',').split(','), what)
            gathered.add(image, label, what, outline)
        elif shape.tag == 'box':
            x1, y1, x2, y2 = of('xtl', 'ytl', 'xbr', 'ybr')
            gathered.add(image, label, what, rectangle((x1, y1), (x2, y2), turned), framed=True)
        elif shape.tag == 'ellipse':
            cx, cy, rx, ry = of('cx', 'cy', 'rx', 'ry')
            gathered.add(image, label, what, ellipse((cx, cy), (rx, ry), turned))
        elif shape.tag == 'mask':
            try:
                painted = cvat_mask(shape.attrib, *size)
            except ValueError as error:
                raise ValueError(f'{what}: {error}') from error
            gathered.add(image, label, what, painted)
        elif shape.tag in _NO_AREA:
            gathered.leave_out(image, label, what, NO_AREA)
        elif shape.tag in _OTHER:
            gathered.leave_out(image, label, what, UNKNOWN_SHAPE)
