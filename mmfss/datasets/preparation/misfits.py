"""What is wrong where most annotations do not fit their images, said in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mmfss.datasets.preparation.fits import SAME, SLACK, Box, Fits, Misfit, iou, reach_of
from mmfss.words import listed

UNITS = ('pixels', 'percent', 'relative')
"""What coordinates of outlines and boxes may be counted in."""
_MOST = 0.8  # of the misfits that a reason must explain
_EXACT = 0.93  # intersection over union of boxes that are the same, where others are close
_CHANCE = 1e-3  # of outlines to lie where they do, below which they are of another unit
_CHANCE_OF_SOME = 1e-6  # the same of those of some images, which a class may have in its corner


def check(fits: Fits, units: str | None) -> None:
    """Refuse annotations that do not fit their images systematically.

    Args:
        fits: Of all images.
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
        _check_units(fits)
    if len(fits.other_frame) > fits.own_frame:
        raise ValueError(
            f'{len(fits.other_frame)} outlines do not fit the frame that sizes say, but fit their '
            f'photo turned by its EXIF tag: {listed(fits.other_frame, 5)}; say which pixels all '
            'annotations are of: --exif upright (as viewers and most tools show photos; Label '
            'Studio writes these beside the sizes of the stored pixels) or --exif stored'
        )
    # objects that a border of a tile cuts reach beyond all four sides, those of other sizes do not
    beyond = [m for m in fits.beyond if min(m.outline[:2]) >= -SLACK]
    beyond = beyond if len(beyond) >= _MOST * len(fits.beyond) else []
    delete = '; if the outlines are right, take the {} entries out of the file'
    for what, misfits, number, remedy in (
        ('reach more than 2 pixels beyond their image', beyond, fits.outlines, ''),
        ('do not fit their bbox', fits.apart, fits.boxes, delete.format('bbox')),
    ):
        if len(misfits) >= 2 and len(misfits) * 2 >= number:
            reason = _reason(misfits, SAME) or (
                'for no single reason; check that these annotations are of these images'
            )
            raise ValueError(
                f'{len(misfits)} of {number} outlines {what}: {reason}{remedy}; {_places(misfits)}'
            )
    near = fits.apart + fits.loose
    if len(near) >= 2 and len(near) * 2 >= fits.boxes:  # one reason, or boxes that are only loose
        exact = _reason(near, _EXACT)
        if exact:
            raise ValueError(
                f'{len(near)} of {fits.boxes} outlines do not fit their bbox: {exact}'
                f'{delete.format("bbox")}; {_places(near)}'
            )
    _check_areas(fits, delete.format('area'))


def _check_areas(fits: Fits, remedy: str) -> None:
    """Areas that are off by one factor."""
    if len(fits.ratios) < 2 or len(fits.ratios) * 2 < fits.outlines:
        return
    ratio = float(np.median(fits.ratios))
    alike = (np.abs(np.array(fits.ratios) - ratio) < 0.04 * ratio).mean() >= _MOST
    if alike and not 0.9 < ratio < 1.1:
        raise ValueError(
            f'{len(fits.ratios)} of {fits.outlines} areas are {ratio:.2g} times those of the '
            'outlines: one of both is of images of another size, or in another unit; export them '
            f'again from the images that are here{remedy}'
        )


def _places(misfits: Sequence[Misfit]) -> str:
    return listed([misfit.place for misfit in misfits], 5)


def _check_units(fits: Fits) -> None:
    """Coordinates in percent or parts of the sides mark the upper left corner of every image; those
    of some files among others mark it in more images than chance would."""
    images = fits.reach
    if not images:
        return
    tiny = [name for name, (x, y, _) in images.items() if 0 < max(x, y) <= 1.01]
    near = [name for name, (x, y, _) in images.items() if 1.01 < max(x, y) <= 100.01]
    chances = [
        min(100 / frame[0], 1.0) * min(100 / frame[1], 1.0) for _, _, frame in images.values()
    ]
    far = max((max(images[name][:2]) for name in near), default=0.0)
    unlikely = _CHANCE if len(near) == len(images) else _CHANCE_OF_SOME
    if len(tiny) >= min(2, len(images)) and min(min(images[name][2]) for name in tiny) > 2:
        some, unit, said = tiny, 'relative', 'parts of the sides (0 to 1)'
    elif far > 50 and _at_least(len(near), chances) < unlikely:
        some, unit, said = near, 'percent', 'percent of the sides'
    else:
        return
    x, y = (max(images[name][i] for name in some) for i in (0, 1))
    height, width = (max(images[name][2][i] for name in some) for i in (0, 1))
    of_all = len(some) == len(images)
    what = (
        f'all {fits.outlines} outlines'
        if of_all
        else (f'all outlines of {len(some)} of {len(images)} images')
    )
    remedy = (
        f'--units {unit} reads them so'
        if of_all
        else (f'export those of {listed(some, 5)} again, in pixels as the others')
    )
    raise ValueError(
        f'{what} end at x = {x:.4g} and y = {y:.4g}, in images of up to {width} x {height} pixels: '
        f'they are in {said}; {remedy}, --units pixels takes them as they are'
    )


def _at_least(number: int, chances: Sequence[float]) -> float:
    """How likely so many of some events are, or more, each with a chance of its own."""
    counts = np.ones(1)  # counts[k]: k of those so far
    for chance in chances:
        counts = np.convolve(counts, (1 - chance, chance))
    return float(counts[number:].sum())


def _reason(misfits: Sequence[Misfit], same_from: float) -> str | None:
    """What is wrong with most of them, in a sentence; None for no single reason.

    Args:
        misfits: The annotations.
        same_from: Intersection over union from which on a box and what it would be are the same.
    """
    boxes = [(m.bbox, m.outline, m) for m in misfits if m.bbox is not None]
    kx, ky = _scales([(box, outline) for box, outline, _ in boxes])

    def share(test: Callable[[Misfit], bool]) -> float:
        return sum(map(test, misfits)) / len(misfits)

    def same(make: Callable[[Misfit], Box | None]) -> float:
        pairs = ((make(m), m.bbox) for m in misfits)
        return sum(
            made is not None and box is not None and iou(made, box) > same_from
            for made, box in pairs
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
            share(lambda m: m.reach > SLACK and reach_of(m.outline, m.frame[::-1]) <= SLACK),
            'they fit images of which height and width are exchanged; export them again',
        ),
        (
            same(scaled) * (max(abs(kx - 1), abs(ky - 1)) > 0.03),
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
            share(lambda m: m.reach > SLACK),
            f'they end at up to {_farthest(misfits)}, so they are of images of another size; '
            'export them again from the images that are here',
        ),
    ]
    return next((text for part, text in tests if part >= _MOST), None)


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
    return 0 <= x < right <= width + SLACK and 0 <= y < bottom <= height + SLACK


def _farthest(misfits: Sequence[Misfit]) -> str:
    far = max(misfits, key=lambda m: m.reach)
    x, y, width, height = far.outline
    return (
        f'x = {x + width:.0f} and y = {y + height:.0f} in an image of {far.frame[1]} x '
        f'{far.frame[0]} pixels (width x height)'
    )
