"""Whether an annotation fits its image: outline, box and area compared with each other and with it.

Nothing is decoded for it: outlines are there as run-length codes, which tell area and bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmfss.datasets.account import Account, Reason
from mmfss.datasets.preparation.frames import Photo, Shape

Box = tuple[float, float, float, float]
"""x, y, width, height."""
BEYOND = Reason(
    'reaches more than 2 pixels beyond the image: cut at its border',
    'check that it is of this image',
)
EMPTY = Reason('outline that covers no pixel: left out', 'draw it again, or delete it')
APART = Reason('bbox is not around the outline: the outline counts', lost=False)
OTHER_FORM = Reason('bbox in another form than x, y, width, height: not used', lost=False)
AREA = Reason(
    'area is not that of the outline, which counts: an exporter may have filled holes', lost=False
)
SLACK = 2.0
"""Pixels that an outline may reach beyond its image."""
SAME, _LOOSE, _APART = 0.8, 0.85, 0.5
"""Intersection over union of boxes that are the same; below which they differ; disagree."""
_SURE = 100  # pixels from which on the form of an outline hardly matters to its area


@dataclass(frozen=True)
class Misfit:
    """An annotation that does not fit.

    Args:
        name, class_name, photo: What messages call it.
        frame: (height, width) of its image.
        reach: Pixels that its outline reaches beyond the image.
        outline: Bounds of its outline.
        bbox: As the file says; None where it is not compared.
        rows: Bounds of its run-length code, taken to run along the rows.
    """

    name: str
    class_name: str
    photo: str
    frame: Shape
    reach: float
    outline: Box
    bbox: Box | None = None
    rows: Box | None = None

    @property
    def place(self) -> str:
        """Its name and photo."""
        return f'{self.name} in {self.photo}'


@dataclass
class Fits:
    """How the annotations of some images fit them.

    Args:
        outlines: How many outlines were compared with their image.
        boxes: How many boxes, and areas, were compared with their outline.
        beyond, apart, areas: Those that did not fit.
        loose: Those whose box differs from the outline, but not by much.
        ratios: Areas as the file says by those of the outlines.
        swapped: Run-length codes whose height and width are exchanged.
        sized: Run-length codes of another size.
        other_frame: Of photos that EXIF turns by a quarter: outlines that fit the other frame
            alone, and how many fit theirs alone.
        reach: Of each image with outlines by polygons the farthest coordinates, x and y, and its
            (height, width), by its name.
        account: What to say of single ones.
    """

    outlines: int = 0
    boxes: int = 0
    beyond: list[Misfit] = field(default_factory=list)
    apart: list[Misfit] = field(default_factory=list)
    areas: list[Misfit] = field(default_factory=list)
    loose: list[Misfit] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    swapped: list[str] = field(default_factory=list)
    sized: list[str] = field(default_factory=list)
    other_frame: list[str] = field(default_factory=list)
    own_frame: int = 0
    reach: dict[str, tuple[float, float, Shape]] = field(default_factory=dict)
    account: Account = field(default_factory=Account)

    def merge(self, other: Fits) -> None:
        """Add those of other images."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if name == 'reach':
                mine.update(value)
            elif name == 'account':
                mine.merge(value)
            elif isinstance(value, list):
                mine.extend(value)  # not copied for every photo
            else:
                setattr(self, name, mine + value)


# ------------------------------------------------------------------------------ one image
def compare(
    fits: Fits,
    row: Mapping[str, Any],
    code: dict | None,
    photo: Photo,
    frame: Shape,
    class_name: str,
    image: str,
) -> None:
    """Compare an annotation with its image and with itself.

    Args:
        fits: What is found is added to it.
        row: The annotation, as :mod:`.own_coco` gives it, in pixels.
        code: Its run-length code; None where it covers no pixel.
        photo: Its photo.
        frame: (height, width) that it is of.
        class_name: Of its class.
        image: What messages call the photo.
    """
    from pycocotools import mask as coder

    shape, bbox = row['segmentation'], row['bbox']
    polygons = isinstance(shape, list)
    decoded: Box = tuple(map(float, coder.toBbox(code))) if code else (0.0, 0.0, 0.0, 0.0)  # type: ignore[assignment]
    outline = _bounds(shape) if polygons else decoded
    misfit = dict(
        name=row['name'],
        class_name=class_name,
        photo=image,
        frame=frame,
        outline=outline,
    )
    fits.outlines += 1
    reach = reach_of(outline, frame)
    if polygons:
        right, bottom = outline[0] + outline[2], outline[1] + outline[3]
        far = fits.reach.get(image, (0.0, 0.0))
        fits.reach[image] = max(far[0], right), max(far[1], bottom), frame
    if photo.size_tells and polygons:
        elsewhere = reach_of(outline, frame[::-1])
        if reach > SLACK >= elsewhere:
            fits.other_frame.append(f'{row["name"]} in {image}')
        fits.own_frame += elsewhere > SLACK >= reach
    if reach > SLACK:
        fits.beyond.append(Misfit(reach=reach, bbox=bbox, **misfit))
        fits.account.add(BEYOND, class_name, f'{row["name"]} ({reach:.0f} pixels)', image)
    if code is None:
        fits.account.add(EMPTY, class_name, row['name'], image)
        return
    if row['box']:
        return
    area = int(coder.area(code))
    stated = bbox is not None and max(bbox[2:]) > 1  # 0, 0, 1, 1 stands for nothing
    if stated:
        fits.boxes += 1
        overlap = max(iou(_cut(bbox, frame), decoded), iou(bbox, outline))
        if overlap < _APART:
            forms = (f for f, box in _forms(bbox, frame) if iou(box, decoded) > SAME)
            form = 'the whole image' if _is_whole(bbox, frame) else next(forms, None)
            if form:
                fits.account.add(OTHER_FORM, class_name, f'{row["name"]} ({form})', image)
                return
            rows = None if polygons else _along_rows(code)
            fits.apart.append(Misfit(reach=reach, bbox=bbox, rows=rows, **misfit))
            fits.account.add(APART, class_name, row['name'], image)
            return
        if overlap < _LOOSE:
            fits.loose.append(Misfit(reach=reach, bbox=bbox, **misfit))
    said = row['area']
    if said is not None and said > 1:
        of_box = stated and abs(said - bbox[2] * bbox[3]) <= 0.05 * said
        if of_box or reach > SLACK:
            return
        if area >= _SURE:
            fits.ratios.append(said / area)
        if not 0.5 <= said / area <= 2:
            fits.areas.append(Misfit(reach=reach, **misfit))
            fits.account.add(AREA, class_name, f'{row["name"]} ({said:g}, drawn {area})', image)


def _bounds(polygons: Sequence[Sequence[float]]) -> Box:
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    if not ys:  # of no point
        return 0.0, 0.0, 0.0, 0.0
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def reach_of(box: Box, frame: Shape) -> float:
    """Pixels beyond the image, at most of the four sides; 0 within."""
    x, y, width, height = box
    return max(-x, -y, x + width - frame[1], y + height - frame[0], 0.0)


def _cut(box: Box, frame: Shape) -> Box:
    x, y = min(max(box[0], 0), frame[1]), min(max(box[1], 0), frame[0])
    right, bottom = min(box[0] + box[2], frame[1]), min(box[1] + box[3], frame[0])
    return x, y, max(right - x, 0), max(bottom - y, 0)


def iou(one: Box, other: Box) -> float:
    """Intersection over union; thin boxes are given a pixel."""
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right = min(one[0] + one[2], other[0] + other[2])
    bottom = min(one[1] + one[3], other[1] + other[3])
    both = max(right - left + 1, 0) * max(bottom - top + 1, 0)
    areas = [(box[2] + 1) * (box[3] + 1) for box in (one, other)]
    return both / max(sum(areas) - both, 1e-9)


def _forms(box: Box, frame: Shape) -> list[tuple[str, Box]]:
    """A box, were it in other forms that are in use."""
    a, b, c, d = box
    height, width = frame
    return [
        ('x1, y1, x2, y2', (a, b, c - a, d - b)),
        ('centre, width, height', (a - c / 2, b - d / 2, c, d)),
        ('percent', (a * width / 100, b * height / 100, c * width / 100, d * height / 100)),
        ('relative', (a * width, b * height, c * width, d * height)),
    ]


def _is_whole(box: Box, frame: Shape) -> bool:
    """Whether a box is that of the image, as converters write it that have none."""
    return max(abs(a - b) for a, b in zip(box, (0, 0, frame[1], frame[0]))) <= SLACK


def _along_rows(code: dict) -> Box | None:
    """Bounds of a run-length code whose runs are taken to be along the rows."""
    from pycocotools import mask as coder

    mask = coder.decode(code)
    rows, columns = np.nonzero(mask.ravel(order='F').reshape(mask.shape))
    x, y = float(columns.min()), float(rows.min())
    return x, y, float(columns.max()) + 1 - x, float(rows.max()) + 1 - y
