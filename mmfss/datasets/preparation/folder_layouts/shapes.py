"""What people draw in labelling tools, gathered as annotations in COCO's form.

The readers of LabelMe, VIA and CVAT say what each shape is; how it becomes an outline, and what has
no area, is decided here for all of them. Polygons become pixels where those of COCO do.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfss.datasets.account import Account, Reason
from mmfss.datasets.preparation.own_coco import BOX, OwnCoco
from mmfss.words import listed

Point = tuple[float, float]
RECTANGLE = Reason(
    'rectangle: read as filled to its borders',
    'draw an outline where it only frames the object',
    lost=False,
)
NO_AREA = Reason('point, line or other shape without area: left out', 'draw an outline')
UNKNOWN_SHAPE = Reason('shape of a kind that is not read: left out', 'draw a polygon')
NO_LABEL = Reason('shape without a label: left out', 'give it the label of its class')
NO_CLASS = Reason('labelled as background or to be ignored: left out', lost=False)
_NO_CLASS = {'background', 'ignore', 'ignored'}


def rectangle(a: Point, b: Point, degrees: float = 0) -> list[float]:
    """The polygon of a rectangle between two corners, turned clockwise about its centre."""
    x, y, w, h = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (b[0] - a[0]) / 2, (b[1] - a[1]) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((-w, -h), (w, -h), (w, h), (-w, h))
    return [v for p, q in corners for v in (x + p * cos - q * sin, y + p * sin + q * cos)]


def ellipse(centre: Point, radii: tuple[float, float], degrees: float = 0) -> list[float]:
    """A polygon that is nowhere more than a quarter of a pixel off an ellipse, turned clockwise
    about its centre."""
    most = max(*map(abs, radii), 1.0)
    number = math.ceil(math.pi / math.acos(max(1 - 0.25 / most, -1)))
    t = np.linspace(0, 2 * np.pi, max(number, 16), endpoint=False)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    p, q = radii[0] * np.cos(t), radii[1] * np.sin(t)
    x, y = centre[0] + p * cos - q * sin, centre[1] + p * sin + q * cos
    return [float(v) for v in np.stack([x, y], 1).ravel()]


def region(mask: np.ndarray, left: int, top: int, height: int, width: int) -> dict[str, Any]:
    """The run-length code of a painted region.

    Args:
        mask: bool (h, w), the part of the image around it.
        left, top: Where that part is; what is outside the image is cut off.
        height, width: Of the image.
    """
    whole = np.zeros((height, width), bool)
    y, x = max(top, 0), max(left, 0)
    inside = mask[y - top : max(height - top, 0), x - left : max(width - left, 0)]
    whole[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    flat = whole.ravel(order='F')
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return dict(size=[height, width], counts=[0, *counts] if flat[:1].any() else counts)


class Gathered:
    """Shapes of many images, as they come.

    Args:
        file: What they are from, for messages.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.account = Account()
        self._order: list[str] = []
        self._count = 0
        self._images: dict[int, dict[str, Any]] = {}
        self._rows: dict[int, list[dict]] = defaultdict(list)
        self._rectangles: list[tuple[dict, str, str, str]] = []

    def image(
        self, name: str, height: int, width: int, file: Path | None = None, split: str = ''
    ) -> int:
        """Begin an image; (0, 0): its size is not known. Returns its number."""
        number = len(self._images)
        self._images[number] = dict(
            id=number,
            file_name=name,
            height=height,
            width=width,
            file=file or self.file,
            split=split,
        )
        return number

    def order(self, names: Iterable[str]) -> None:
        """Say which classes come first, in this order; others follow by name."""
        self._order = list(names)

    def leave_out(self, image: int, label: str, what: str, reason: Reason) -> None:
        """Note a shape that is not taken."""
        self.account.add(reason, label, what, self._images[image]['file_name'])

    def add(self, image: int, label: Any, what: str, outline: Any, framed: bool = False) -> None:
        """Take a shape.

        Args:
            image: Its number.
            label: Its class.
            what: What messages call it.
            outline: A polygon as numbers x, y, x, y, ..., or a run-length code.
            framed: It is a rectangle.
        """
        name = str(label or '').strip()
        if not name:
            return self.leave_out(image, '', what, NO_LABEL)
        if name.strip('_').casefold() in _NO_CLASS:
            return self.leave_out(image, name, what, NO_CLASS)
        row = dict(
            id=self._count,
            name=what,
            category_id=name,
            segmentation=outline if isinstance(outline, dict) else [outline],
            iscrowd=0,
            box=False,
            bbox=None,
            area=None,
        )
        self._count += 1
        self._rows[image].append(row)
        if framed:
            self._rectangles.append((row, name, what, self._images[image]['file_name']))
        return None

    def done(self) -> OwnCoco:
        """All of it. Where there is nothing but rectangles, they are boxes around objects.

        Raises:
            ValueError: No shape has an area.
        """
        rows = [row for some in self._rows.values() for row in some]
        if not rows:
            because = self.account.because()
            raise ValueError(
                f'{self.file} has no shape with a label and an area'
                f'{f": {because}" if because else ""}; draw outlines and save again'
            )
        boxes = len(self._rectangles) == len(rows)
        for row, *what in self._rectangles:
            row['box'], row['iscrowd'] = boxes, int(boxes)
            self.account.add(BOX if boxes else RECTANGLE, *what)
        used = {row['category_id'] for row in rows}
        classes = [name for name in self._order if name in used]
        classes += sorted(used - {*classes})
        class_of = {name: class_id for class_id, name in enumerate(classes, 1)}
        for row in rows:
            row['category_id'] = class_of[row['category_id']]
        labels = {class_id: class_id for class_id in class_of.values()}
        unused = tuple(name for name in self._order if name not in used)
        return OwnCoco(
            self.file, tuple(classes), labels, unused, self._images, self._rows, self.account
        )


def numbers(values: Sequence[Any], what: str) -> list[float]:
    """Finite numbers; ValueError with what they are if one is none."""
    try:
        found = [float(value) for value in values]
        if all(map(math.isfinite, found)):
            return found
    except (TypeError, ValueError):
        pass
    raise ValueError(f'{what} must be finite numbers, got {listed(values, 6):.200}')
