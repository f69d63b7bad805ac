"""COCO's forms of a region: polygons, and run-length codes down the columns."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np


def code_of(segmentation: Any, height: int, width: int) -> dict[str, Any] | None:
    """What a ``segmentation`` of an image of height x width covers, as a run-length code of
    pycocotools; None if that is nothing.

    Args:
        segmentation: Polygons x, y, x, y, ..., of which those of fewer than three points enclose
            nothing; or a run-length code, whose counts are text or a list.
        height, width: Of the image.

    Raises:
        ValueError, KeyError, TypeError: Malformed, or of another size than the image.
    """
    from pycocotools import mask as coder

    if isinstance(segmentation, list):
        for polygon in segmentation:
            if len(polygon) % 2 or not all(isfinite(number) for number in polygon):
                raise ValueError('a polygon must be a list of finite numbers x, y, x, y, ...')
        closed = [polygon for polygon in segmentation if len(polygon) >= 6]
        _check_length(closed, height, width)
        code = coder.merge(coder.frPyObjects(closed, height, width)) if closed else None
    else:
        code = segmentation
        if [int(side) for side in segmentation['size']] != [height, width]:
            raise ValueError(
                f'it is of {segmentation["size"]} pixels (height, width), its image is of '
                f'{[height, width]}'
            )
        counts = segmentation['counts']
        listed_out = isinstance(counts, list)
        if listed_out and not all(type(run) is int for run in counts):
            raise ValueError('its counts must be integers')
        # all in Python's or wide integers: the library takes 32 bits and checks nothing
        runs = counts if listed_out else run_lengths(counts).tolist()
        if sum(runs) != height * width or min(runs) < 0:
            raise ValueError(f'its counts must sum to {height * width} pixels')
        if listed_out:
            code = coder.frPyObjects(segmentation, height, width)
    return code if code is not None and coder.area(code) else None


def decoded(code: dict[str, Any] | None, height: int, width: int) -> np.ndarray:
    """bool (height, width) of what :func:`code_of` gives."""
    from pycocotools import mask as coder

    if code is None:
        return np.zeros((height, width), bool)
    return coder.decode(code).view(bool)


def _check_length(polygons: Sequence[Sequence[float]], height: int, width: int) -> None:
    """Refuse outlines whose borders the library would walk for minutes, or beyond its integers."""
    most = 1000 * (height + width)
    for polygon in polygons:
        points = np.array([polygon[::2], polygon[1::2]], np.float64)
        steps = np.abs(points - np.roll(points, 1, axis=1)).max(0).sum()
        if np.abs(points).max() > most or steps > max(most, 1_000_000):
            raise ValueError(
                f'a polygon reaches to {np.abs(points).max():.0f} with a border of {steps:.0f} '
                f'pixels, its image is of {[height, width]} (height, width)'
            )


def run_lengths(counts: str | bytes) -> np.ndarray:
    """The runs of a compressed run-length code, int64 (n,).

    COCO's own form: numbers in base 32, lowest digit first, as characters from '0' on; bit 5 of a
    digit says that another follows, bit 4 of the last is the sign; from the fourth on a number is
    the difference to that two before it.

    Raises:
        ValueError: Empty, cut off, other characters, a number of more than 30 bits.
    """
    if not isinstance(counts, (str, bytes)) or not counts:
        raise ValueError('its counts must be a list of integers, or a text in the form of COCO')
    data = counts.encode() if isinstance(counts, str) else counts
    digits = np.frombuffer(data, np.uint8).astype(np.int64) - ord('0')
    last = (digits & 32) == 0
    if digits.min() < 0 or digits.max() > 63 or not last[-1]:
        raise ValueError('its compressed counts are cut off or have characters outside "0" to "o"')
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    length = ends - starts + 1
    if length.max() > 6:
        raise ValueError('its compressed counts have a number of more than 30 bits')
    shift = 5 * (np.arange(len(digits)) - np.repeat(starts, length))
    runs = np.add.reduceat((digits & 31) << shift, starts)
    runs -= np.where(digits[ends] & 16, 1 << (5 * length), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def mask_code(mask: np.ndarray, text: bool = True) -> dict[str, Any]:
    """COCO's run-length code of a mask, bool (H, W): 'size' [H, W], and 'counts', compressed to
    text or as a list of runs, of which the first is outside the region and may be 0."""
    from pycocotools import mask as coder

    counts = coder.encode(np.asfortranarray(mask).view(np.uint8))['counts'].decode()
    return dict(size=[*mask.shape], counts=counts if text else run_lengths(counts).tolist())


def region_code(mask: np.ndarray, left: int, top: int, height: int, width: int) -> dict[str, Any]:
    """:func:`mask_code` of a region of an image, which is not gone over.

    Args:
        mask: bool (h, w), with some pixel: the part of the image around the region, within it.
        left, top: Where that part is.
        height, width: Of the image.
    """
    from pycocotools import mask as coder

    # begins and ends of the runs in its columns, in pixels of the image counted down the columns
    edges = np.diff(np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    places = np.arange(left, left + mask.shape[1])[:, None] * height
    places = places + np.arange(top, top + mask.shape[0] + 1)
    begins, ends = places[edges == 1], places[edges == -1]
    apart = begins[1:] != ends[:-1]  # a run to the foot of a column may go on in the next one
    begins, ends = begins[np.r_[True, apart]], ends[np.r_[apart, True]]
    runs = np.diff(np.r_[0, np.stack([begins, ends], 1).ravel(), height * width])
    counts = runs[: len(runs) - (runs[-1] == 0)].tolist()  # no empty run at the end
    code = coder.frPyObjects(dict(size=[height, width], counts=counts), height, width)
    return dict(size=[height, width], counts=code['counts'].decode())
