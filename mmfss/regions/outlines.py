"""Outlines of regions: polygons with holes along the borders of pixels, and figures as polygons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mmfss.regions.coco import code_of, decoded
from mmfss.regions.parts import cropped

Point = tuple[float, float]
_MOST_RADIUS = 1e6
Outline = tuple[np.ndarray, ...]
"""A connected part of a region: its outer ring, then those of its holes; float64 (n, 2) of corners
x, y each, without the first one repeated at the end."""


def check_tolerance(tolerance: float) -> None:
    """Raise ValueError for a tolerance of :func:`outlines_of` that is none."""
    if not 0 <= tolerance < math.inf:
        raise ValueError(f'the tolerance of outlines must be 0 or more pixels, got {tolerance!r}')


def outlines_of(mask: np.ndarray, tolerance: float = 0.0) -> list[Outline]:
    """The outlines of the connected parts of a mask, from the upper left to the lower right.

    Pixels that touch at a corner are connected, as in :mod:`mmfss.labelling.annotations`.

    Args:
        mask: bool (H, W).
        tolerance: How far an outline may leave the border, in pixels (Douglas and Peucker): fewer
            corners. 0 keeps every pixel.

    Raises:
        ValueError: A tolerance below 0, or that is no number.
    """
    check_tolerance(tolerance)
    import cv2  # where it is needed: the help of commands imports this file

    if not mask.any():
        return []
    part, left, top = cropped(mask)
    # OpenCV follows the centres of pixels. Of the mask at twice its size these lie a quarter of a
    # pixel off the border, on the side of the region, and so tell which corner they are of
    twice = cv2.resize(part.view(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    rings, tree = cv2.findContours(twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    corners = [_ring((ring[:, 0] + 1) // 2, tolerance) + (left, top) for ring in rings]
    holes: dict[int, list[np.ndarray]] = {}
    for ring, (*_, parent) in zip(corners, tree[0]):
        holes.setdefault(int(parent), []).append(ring)
    outer = [number for number, (*_, parent) in enumerate(tree[0]) if parent < 0]
    found = [(corners[n], *sorted(holes.get(n, ()), key=_first)) for n in outer]
    return sorted(found, key=lambda outline: _first(outline[0]))


def _first(ring: np.ndarray) -> tuple[float, float]:
    """The corner that comes first in reading order, as y, x."""
    y = ring[:, 1].min()
    return float(y), float(ring[ring[:, 1] == y, 0].min())


def _ring(corners: np.ndarray, tolerance: float) -> np.ndarray:
    """The corners at which a ring turns."""
    ring = corners[(corners != np.roll(corners, 1, 0)).any(1)]
    before, after = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0) - ring
    ring = ring[(before != after).any(1)]
    if tolerance > 0:
        import cv2

        few = cv2.approxPolyDP(ring.astype(np.int32)[:, None], tolerance, True)[:, 0]
        if len(few) > 2 and cv2.contourArea(few) > 0:
            ring = few
    return ring.astype(np.float64)


def joined(outline: Outline) -> np.ndarray:
    """A part with holes as one ring, float64 (n, 2), for forms that know no holes: each hole hangs
    on a seam that is walked there and back. Whoever fills by the even-odd rule, as pycocotools
    does, gets the same pixels; whoever also draws the border draws the seam."""
    ring = outline[0]
    for hole in outline[1:]:
        hole = np.roll(hole, -int(np.lexsort((hole[:, 1], hole[:, 0]))[0]), 0)
        at = int(((ring - hole[0]) ** 2).sum(1).argmin())
        ring = np.concatenate([ring[: at + 1], hole, hole[:1], ring[at:]])
    return ring


def filled(outlines: Sequence[Outline], height: int, width: int) -> np.ndarray:
    """The mask bool (H, W) of some outlines, filled as COCO does: of each by the even-odd rule, all
    together.

    Raises:
        ValueError: See :func:`.coco.code_of`.
    """
    flat = [joined(outline).ravel().tolist() for outline in outlines]
    return decoded(code_of(flat, height, width), height, width)


# ---------------------------------------------------------------------------------- figures
def rectangle(a: Point, b: Point, degrees: float = 0, about: Point | None = None) -> list[float]:
    """The polygon x, y, x, y, ... of a rectangle between two corners.

    Args:
        a, b: The corners.
        degrees: By which it is turned clockwise.
        about: The point that stays where it is; None: the centre.
    """
    x, y = about or ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    (left, right), (top, bottom) = sorted((a[0], b[0])), sorted((a[1], b[1]))
    corners = [
        (u - x, v - y) for u, v in ((left, top), (right, top), (right, bottom), (left, bottom))
    ]
    return [v for p, q in corners for v in (x + p * cos - q * sin, y + p * sin + q * cos)]


def ellipse(centre: Point, radii: tuple[float, float], degrees: float = 0) -> list[float]:
    """A polygon that is nowhere more than a quarter of a pixel off an ellipse, turned clockwise
    about its centre.

    Raises:
        ValueError: A radius of more than a million pixels, whose polygon would not end.
    """
    most = float(np.maximum(np.abs(radii).max(), 1))  # NaN stays
    if not most <= _MOST_RADIUS:
        raise ValueError(f'an ellipse of {radii[0]:.4g} by {radii[1]:.4g} pixels reaches too far')
    number = math.ceil(math.pi / math.acos(max(1 - 0.25 / most, -1)))
    t = np.linspace(0, 2 * np.pi, max(number, 16), endpoint=False)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    p, q = radii[0] * np.cos(t), radii[1] * np.sin(t)
    x, y = centre[0] + p * cos - q * sin, centre[1] + p * sin + q * cos
    return [float(v) for v in np.stack([x, y], 1).ravel()]
