"""LabelMe (and AnyLabeling): x.json with shapes beside x.jpg."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mmfss.datasets.io import BROKEN
from mmfss.datasets.preparation.folder_layouts.shapes import (
    NO_AREA,
    UNKNOWN_SHAPE,
    Gathered,
    numbers,
)
from mmfss.datasets.preparation.folder_layouts.tree import IMAGES, Tree
from mmfss.datasets.preparation.own_coco import OwnCoco
from mmfss.regions import ellipse, labelme_mask, rectangle

_NO_AREA = {'point', 'points', 'line', 'linestrip'}


def read_labelme(tree: Tree, files: Sequence[Path], order: Sequence[str] = ()) -> list[OwnCoco]:
    """What the shapes of all files say.

    Polygons, rectangles, circles, painted masks; of points and lines, which have no area, is told.
    Shapes of one label are one class, in groups or not.

    Args:
        tree: The folder.
        files: Those of LabelMe in it.
        order: Names of classes, if a file names them.

    Raises:
        ValueError: A file is cut off or of another form.
    """
    gathered = Gathered(tree.root)
    gathered.order(order)
    photos = {(i.path.parent, i.path.stem): i.path for i in tree.items if i.suffix in IMAGES}
    there = {*photos.values()}
    names = {path.name for path in there}
    for file in files:
        try:
            content = json.loads(file.read_bytes())
            size = int(content.get('imageHeight') or 0), int(content.get('imageWidth') or 0)
            name = str(content.get('imagePath') or '').replace('\\', '/')
            photo = next(
                (
                    path
                    for path in (_joined(file.parent, name), photos.get((file.parent, file.stem)))
                    if path in there
                ),
                None,
            )
            if photo is None and content.get('imageData') and _last(name) not in names:
                raise ValueError(
                    f'its photo {name!r} is not there but in the file alone, as '
                    'imageData; write it beside it (labelme_export_json)'
                )
            said = photo.relative_to(tree.root).as_posix() if photo else name or file.stem
            image = gathered.image(said, *(size if all(size) else (0, 0)), file)
            for number, shape in enumerate(content['shapes'], 1):
                _add(gathered, image, shape, f'shape {number} of {file.name}', size)
        except (
            *BROKEN,
            Image.DecompressionBombError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise ValueError(
                f'{file} is cut off or no file of LabelMe ({error!r:.300}); save it in LabelMe '
                'again'
            ) from error
    return [gathered.done()]


def _last(name: str) -> str:
    return name.rpartition('/')[2]


def _joined(folder: Path, name: str) -> Path:
    """Of ``../images/x.jpg``, too."""
    return Path(os.path.normpath(folder / name))


def _add(
    gathered: Gathered, image: int, shape: dict[str, Any], what: str, size: tuple[int, int]
) -> None:
    kind, label = shape.get('shape_type') or 'polygon', shape.get('label')
    points = [numbers(point[:2], 'a point') for point in shape['points']]
    if kind in ('polygon', 'rotation') or (kind == 'rectangle' and len(points) == 4):
        outline = [value for point in points for value in point]
        if len(points) < 3:
            return gathered.leave_out(image, str(label), what, NO_AREA)
        return gathered.add(image, label, what, outline, framed=kind != 'polygon')
    if kind == 'rectangle':
        (x1, y1), (x2, y2) = points
        return gathered.add(image, label, what, rectangle((x1, y1), (x2, y2)), framed=True)
    if kind == 'circle':
        (x, y), rim = points
        radius = math.dist((x, y), rim)
        return gathered.add(image, label, what, ellipse((x, y), (radius, radius)))
    if kind == 'mask':
        if not all(size):
            raise ValueError('a painted mask needs imageHeight and imageWidth')
        return gathered.add(image, label, what, labelme_mask(shape, *size))
    reason = NO_AREA if kind in _NO_AREA else UNKNOWN_SHAPE
    return gathered.leave_out(image, str(label), what, reason)
