"""Whether annotations fit their images: outlines, boxes and areas compared with each other and with
the image, and what is wrong where most of them do not.

Nothing is decoded for it: outlines are there as run-length codes, which tell area and bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmfss.datasets.account import Account, Reason
from mmfss.datasets.preparation.frames import Photo, Shape
from mmfss.words import listed

UNITS = ('pixels', 'percent', 'relative')
"""What coordinates of outlines and boxes may be counted in."""
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
_SLACK = 2.0  # pixels
_SAME, _APART = 0.8, 0.5  # intersection over union of boxes that are the same; that disagree
_MOST = 0.8  # of the misfits that a reason must explain
_CHANCE = 1e-3  # of outlines to lie where they do, below which they are of another unit


@dataclass(frozen=True)
class Misfit:
    """An annotation that does not fit.

    Args:
        name, class_name, photo: What messages call it.
        frame: (height, width) of its image.
        orientation: Of its photo, as in EXIF.
        reach: Pixels that its outline reaches beyond the image.
        outline: Bounds of its outline.
        bbox: As the file says; None where it is not compared.
        rows: Bounds of its run-length code, taken to run along the rows.
        ratio: Area as the file says by that of the outline.
    """

    name: str
    class_name: str
    photo: str
    frame: Shape
    orientation: int
    reach: float
    outline: Box
    bbox: Box | None = None
    rows: Box | None = None
    ratio: float = 1.0

    @property
    def place(self) -> str:
        """Its name and photo."""
        return f'{self.name} in {self.photo}'


@dataclass
class Fits:
    """How the annotations of some images fit them.

    Args:
        outlines: How many outlines were compared with their image, and of them those of photos
            that EXIF turns by a quarter.
        boxes: How many boxes, and areas, were compared with their outline.
        beyond, apart, areas: Those that did not fit.
        swapped: Run-length codes whose height and width are exchanged.
        sized: Run-length codes of another size.
        forms: Boxes that fit in another form, by it.
        other_frame: Of photos that EXIF turns by a quarter: outlines that fit the other frame
            alone, and how many fit theirs alone.
        reach: Farthest coordinates of all outlines by polygons, x and y.
        corner: Logarithm of the chance that they all lie within 100 pixels.
        account: What to say of single ones.
    """

    outlines: int = 0
    turned: int = 0
    boxes: int = 0
    beyond: list[Misfit] = field(default_factory=list)
    apart: list[Misfit] = field(default_factory=list)
    areas: list[Misfit] = field(default_factory=list)
    swapped: list[str] = field(default_factory=list)
    sized: list[str] = field(default_factory=list)
    other_frame: list[str] = field(default_factory=list)
    own_frame: int = 0
    reach: tuple[float, float] = (0.0, 0.0)
    corner: float = 0.0
    account: Account = field(default_factory=Account)

    def merge(self, other: Fits) -> None:
        """Add those of other images."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if name == 'reach':
                self.reach = max(mine[0], value[0]), max(mine[1], value[1])
            elif name == 'account':
                mine.merge(value)
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
        orientation=photo.orientation,
        outline=outline,
    )
    fits.outlines += 1
    fits.turned += photo.size_tells
    reach = _reach(outline, frame)
    if polygons:
        right, bottom = outline[0] + outline[2], outline[1] + outline[3]
        fits.reach = max(fits.reach[0], right), max(fits.reach[1], bottom)
    if photo.size_tells and polygons:
        elsewhere = _reach(outline, frame[::-1])
        if reach > _SLACK >= elsewhere:
            fits.other_frame.append(f'{row["name"]} in {image}')
        fits.own_frame += elsewhere > _SLACK >= reach
    if reach > _SLACK:
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
        inside = _cut(bbox, frame)
        if _iou(inside, decoded) < _APART and _iou(bbox, outline) < _APART:
            forms = (f for f, box in _forms(bbox, frame) if _iou(box, decoded) > _SAME)
            form = 'the whole image' if _is_whole(bbox, frame) else next(forms, None)
            if form:
                fits.account.add(OTHER_FORM, class_name, f'{row["name"]} ({form})', image)
                return
            rows = None if polygons else _along_rows(code)
            fits.apart.append(Misfit(reach=reach, bbox=bbox, rows=rows, **misfit))
            fits.account.add(APART, class_name, row['name'], image)
            return
    said = row['area']
    if said is not None and said > 1:
        of_box = stated and abs(said - bbox[2] * bbox[3]) <= 0.05 * said
        if not of_box and not 0.5 <= said / area <= 2 and reach <= _SLACK:
            fits.areas.append(Misfit(reach=reach, ratio=said / area, **misfit))
            fits.account.add(AREA, class_name, f'{row["name"]} ({said:g}, drawn {area})', image)


def _bounds(polygons: Sequence[Sequence[float]]) -> Box:
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _reach(box: Box, frame: Shape) -> float:
    """Pixels beyond the image, at most of the four sides; 0 within."""
    x, y, width, height = box
    return max(-x, -y, x + width - frame[1], y + height - frame[0], 0.0)


def _cut(box: Box, frame: Shape) -> Box:
    x, y = min(max(box[0], 0), frame[1]), min(max(box[1], 0), frame[0])
    right, bottom = min(box[0] + box[2], frame[1]), min(box[1] + box[3], frame[0])
    return x, y, max(right - x, 0), max(bottom - y, 0)


def _iou(one: Box, other: Box) -> float:
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
    return max(abs(a - b) for a, b in zip(box, (0, 0, frame[1], frame[0]))) <= _SLACK


def _along_rows(code: dict) -> Box | None:
    """Bounds of a run-length code whose runs are taken to be along the rows."""
    from pycocotools import mask as coder

    mask = coder.decode(code)
    rows, columns = np.nonzero(mask.ravel(order='F').reshape(mask.shape))
    x, y = float(columns.min()), float(rows.min())
    return x, y, float(columns.max()) + 1 - x, float(rows.max()) + 1 - y


# ------------------------------------------------------------------------------ all of them
def check(fits: Fits, shapes: Iterable[Shape], units: str | None) -> None:
    """Refuse annotations that do not fit their images systematically.

    Args:
        fits: Of all images.
        shapes: (height, width) of the images with outlines.
        units: What the user says of them, one of :data:`UNITS`; None: nothing.

    Raises:
        ValueError: With what is wrong in a sentence, and the first of them.
    """
    if fits.swapped or fits.sized:
        wrong = fits.swapped or fits.sized
        why = 'have height and width exchanged: they are transposed' if fits.swapped else ''
        raise ValueError(
            f'{len(wrong)} run-length codes {why or "are of another size than their image"}: '
            f'{listed(wrong, 5)}; "size" is [height, width] and counts run down the columns; '
            'export them again'
        )
    if units is None:
        _check_units(fits, list(shapes))
    if len(fits.other_frame) > fits.own_frame:
        raise ValueError(
            f'{len(fits.other_frame)} outlines do not fit the frame that sizes say, but fit their '
            f'photo turned by its EXIF tag: {listed(fits.other_frame, 5)}; say which pixels all '
            'annotations are of: --exif upright (as viewers and most tools show photos; Label '
            'Studio writes these beside the sizes of the stored pixels) or --exif stored'
        )
    # objects that a border of a tile cuts reach beyond all four sides, those of other sizes do not
    beyond = [m for m in fits.beyond if min(m.outline[:2]) >= -_SLACK]
    beyond = beyond if len(beyond) >= _MOST * len(fits.beyond) else []
    delete = '; if the outlines are right, take the bbox entries out of the file'
    for what, misfits, number, remedy in (
        ('reach more than 2 pixels beyond their image', beyond, fits.outlines, ''),
        ('do not fit their bbox', fits.apart, fits.boxes, delete),
    ):
        if len(misfits) >= 2 and len(misfits) * 2 >= number:
            places = listed([misfit.place for misfit in misfits], 5)
            raise ValueError(
                f'{len(misfits)} of {number} outlines {what}: {_reason(misfits)}{remedy}; {places}'
            )
    ratios = np.array([misfit.ratio for misfit in fits.areas])
    if len(ratios) >= 2 and len(ratios) * 2 >= fits.outlines and not fits.boxes:
        ratio = float(np.median(ratios))
        if (np.abs(ratios - ratio) < 0.05 * ratio).mean() >= _MOST:
            raise ValueError(
                f'{len(ratios)} of {fits.outlines} areas are {ratio:.2g} times those of the '
                'outlines: one of both is of images of another size; export them again from the '
                f'images that are here; {listed([misfit.place for misfit in fits.areas], 5)}'
            )


def _check_units(fits: Fits, shapes: list[Shape]) -> None:
    """Coordinates in percent or parts of the sides mark the upper left corner of every image."""
    farthest = max(fits.reach)
    sides = np.array(shapes, np.float64).reshape(-1, 2)
    if not farthest or not len(sides):
        return
    if farthest <= 1.01 and sides.min() > 2:
        unit, said = 'relative', 'parts of the sides (0 to 1)'
    elif min(fits.reach) > 50 and farthest <= 100.01:
        chance = np.log(np.minimum(100 / sides, 1)).sum()
        if chance > np.log(_CHANCE):
            return
        unit, said = 'percent', 'percent of the sides'
    else:
        return
    height, width = (int(side) for side in sides.max(0))
    raise ValueError(
        f'all {fits.outlines} outlines end at x = {fits.reach[0]:.4g} and y = {fits.reach[1]:.4g}, '
        f'in images of up to {width} x {height} pixels: they are in {said}; --units {unit} reads '
        'them so, --units pixels takes them as they are'
    )


def _reason(misfits: Sequence[Misfit]) -> str:
    """What is wrong with most of them, in a sentence."""
    boxes = [(m.bbox, m.outline, m) for m in misfits if m.bbox is not None]
    kx, ky = _scales([(box, outline) for box, outline, _ in boxes])

    def share(test: Callable[[Misfit], bool]) -> float:
        return sum(map(test, misfits)) / len(misfits)

    def same(make: Callable[[Misfit], Box | None]) -> float:
        pairs = ((make(m), m.bbox) for m in misfits)
        return sum(
            made is not None and box is not None and _iou(made, box) > _SAME for made, box in pairs
        ) / len(misfits)

    def scaled(m: Misfit) -> Box:
        x, y, width, height = m.outline
        return x * kx, y * ky, width * kx, height * ky

    rows = 'their run-length codes run along the rows, as if transposed, and not down the columns'
    tests = [
        (same(lambda m: m.rows), f'{rows}; export them again'),
        (
            same(lambda m: (m.outline[1], m.outline[0], m.outline[3], m.outline[2])),
            'x and y are exchanged in outlines or boxes; export them again',
        ),
        (
            share(lambda m: m.reach > _SLACK and _reach(m.outline, m.frame[::-1]) <= _SLACK),
            'they fit images of which height and width are exchanged; export them again',
        ),
        (
            same(scaled) * (max(abs(kx - 1), abs(ky - 1)) > 0.1),
            f'the boxes are {_times(kx, ky)} the outlines, so one of both is of images of another '
            'size; export them again from the images that are here',
        ),
        (
            share(lambda m: m.bbox == m.outline and _corners(m)),
            'as boxes of x1, y1, x2, y2 they would fit; COCO has x, y, width, height; export them '
            'again',
        ),
        (
            same(_flipped),
            'y is counted from the lower edge in outlines or boxes; export them again',
        ),
        (
            share(lambda m: m.reach > _SLACK),
            f'they end at up to {_farthest(misfits)}, so they are of images of another size; '
            'export them again from the images that are here',
        ),
    ]
    found = next((text for part, text in tests if part >= _MOST), None)
    return found or 'for no single reason; check that these annotations are of these images'


def _scales(pairs: Sequence[tuple[Box, Box]]) -> tuple[float, float]:
    """Median widths and heights of boxes by those of outlines."""
    if not pairs:
        return 1.0, 1.0
    ratios = [[box[i] / max(outline[i], 1.0) for box, outline in pairs] for i in (2, 3)]
    return float(np.median(ratios[0])), float(np.median(ratios[1]))


def _times(kx: float, ky: float) -> str:
    alike = abs(kx - ky) < 0.05 * max(kx, ky)
    return f'{(kx + ky) / 2:.2g} times' if alike else f'{kx:.2g} x {ky:.2g} times'


def _flipped(misfit: Misfit) -> Box:
    x, y, width, height = misfit.outline
    return x, misfit.frame[0] - y - height, width, height


def _corners(misfit: Misfit) -> bool:
    """Whether the numbers of a box are corners within the image."""
    x, y, right, bottom = misfit.outline
    height, width = misfit.frame
    return 0 <= x < right <= width + _SLACK and 0 <= y < bottom <= height + _SLACK


def _farthest(misfits: Sequence[Misfit]) -> str:
    far = max(misfits, key=lambda m: m.reach)
    x, y, width, height = far.outline
    return (
        f'x = {x + width:.0f} and y = {y + height:.0f} in an image of {far.frame[1]} x '
        f'{far.frame[0]} pixels (width x height)'
    )
