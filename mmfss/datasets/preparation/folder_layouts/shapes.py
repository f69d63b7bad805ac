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
from mmfss.regions import mask_code
from mmfss.words import listed

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
            outline: A polygon as numbers x, y, x, y, ..., or a mask, bool (H, W).
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
            segmentation=mask_code(outline) if isinstance(outline, np.ndarray) else [outline],
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
    raise ValueError(f'{what} must be finite numbers, got {listed(values, 6)}')
