"""Forms, textures and rasterisation of the generated benchmark (no scene logic).

Everything per pixel uses only ``+ - * /``, ``sqrt``, ``floor`` and comparisons, which IEEE 754
fixes to the last bit, so that pictures do not depend on versions of numpy or of the C library.
Trigonometry happens on scalars alone, rounded to 9 digits.

Coordinates: a form lives in a local frame, ``|x|, |y| <= 1``, y down. A :class:`Placement`
carries it into the picture, whose sides have length 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

Loop = np.ndarray  # (n, 2) float64, a closed polygon's vertices
Form = tuple[tuple[bool, Loop], ...]  # (True: add, False: cut out), applied in order


def cos_sin(degrees: float) -> tuple[float, float]:
    """Cosine and sine, rounded so that every platform gives the same number."""
    angle = math.radians(degrees)
    return round(math.cos(angle), 9), round(math.sin(angle), 9)


def _loop(*points: tuple[float, float]) -> Loop:
    return np.array(points, dtype=np.float64)


def _oval(cx: float, cy: float, rx: float, ry: float | None = None, n: int = 36) -> Loop:
    ry = rx if ry is None else ry
    turns = [cos_sin(360 * k / n) for k in range(n)]
    return _loop(*[(cx + rx * c, cy + ry * s) for c, s in turns])


def _polar(radii: list[float], start: float = -90.0) -> Loop:
    turns = [cos_sin(start + 360 * k / len(radii)) for k in range(len(radii))]
    return _loop(*[(r * c, r * s) for r, (c, s) in zip(radii, turns)])


def _box(x0: float, y0: float, x1: float, y1: float) -> Loop:
    return _loop((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _heart() -> Loop:
    points = []
    for k in range(48):
        cosines = [cos_sin(7.5 * k * m)[0] for m in (1, 2, 3, 4)]
        s = cos_sin(7.5 * k)[1]
        y = 13 * cosines[0] - 5 * cosines[1] - 2 * cosines[2] - cosines[3]
        points.append((16 * s * s * s / 16.5, -(y + 2.5) / 16.5))
    return _loop(*points)


def _drop() -> Loop:
    arc = [cos_sin(-35 + 250 * k / 28) for k in range(29)]
    return _loop((0.0, -1.0), *[(0.62 * c, 0.36 + 0.62 * s) for c, s in arc])


def _horseshoe() -> Loop:
    outer = [cos_sin(180 + 10 * k) for k in range(19)]
    top = [(0.85 * c, -0.1 + 0.85 * s) for c, s in outer]
    inner = [(0.42 * c, -0.1 + 0.42 * s) for c, s in reversed(outer)]
    return _loop(*top, (0.85, 0.95), (0.42, 0.95), *inner, (-0.42, 0.95), (-0.85, 0.95))


_BLADE = ((0.0, 0.06), (0.0, -0.95), (0.86, -0.62))
FORMS: dict[str, Form] = {
    'star': ((True, _polar([1.0, 0.4] * 5)),),
    'ring': ((True, _oval(0, 0, 0.95)), (False, _oval(0, 0, 0.52))),
    'cross': ((True, _box(-0.3, -0.95, 0.3, 0.95)), (True, _box(-0.95, -0.3, 0.95, 0.3))),
    'crescent': ((True, _oval(0, 0, 0.95)), (False, _oval(0.5, 0, 0.78))),
    'heart': ((True, _heart()), ),
    'gear': ((True, _polar([1.0, 1.0, 0.7, 0.7] * 8, start=-101.25)),
             (False, _oval(0, 0, 0.3, n=24))),
    'arrow': ((True, _loop((-0.95, -0.22), (0.05, -0.22), (0.05, -0.68), (0.95, 0),
                           (0.05, 0.68), (0.05, 0.22), (-0.95, 0.22))), ),
    'triangle': ((True, _polar([1.0, 1.0, 1.0])), ),
    'drop': ((True, _drop()), ),
    'flower': (*[(True, _oval(0.57 * c, 0.57 * s, 0.43, n=24))
                 for c, s in (cos_sin(-90 + 72 * k) for k in range(5))],
               (True, _oval(0.0, 0.0, 0.5, n=24)), (False, _oval(0.0, 0.0, 0.22, n=20))),
    'bolt': ((True, _loop((-0.2, -1.0), (0.5, -1.0), (0.16, -0.3), (0.6, -0.3), (-0.35, 1.0),
                          (-0.1, 0.12), (-0.55, 0.12))), ),
    'key': ((True, _oval(-0.52, 0, 0.47)), (False, _oval(-0.56, 0, 0.2, n=24)),
            (True, _box(-0.15, -0.15, 1.0, 0.15)), (True, _box(0.74, 0.0, 1.0, 0.55)),
            (True, _box(0.3, 0.0, 0.54, 0.45))),
    'horseshoe': ((True, _horseshoe()), ),
    'fish': ((True, _oval(-0.2, 0, 0.75, 0.45)),
             (True, _loop((0.25, 0), (1.0, -0.58), (0.8, 0), (1.0, 0.58))),
             (False, _oval(-0.6, -0.1, 0.09, n=12))),
    'hourglass': ((True, _loop((-0.72, -0.9), (0.72, -0.9), (0.12, 0), (0.72, 0.9),
                               (-0.72, 0.9), (-0.12, 0))), ),
    'comb': ((True, _box(-1.0, -0.75, 0.74, -0.25)),
             *[(True, _box(x, -0.3, x + 0.27, 0.75)) for x in (-1.0, -0.51, -0.02, 0.47)]),
    'mushroom': ((True, _oval(0, 0, 0.95)), (False, _box(-1.0, 0.05, 1.0, 1.0)),
                 (True, _box(-0.26, 0.0, 0.26, 0.9))),
    'tree': ((True, _loop((0, -1.0), (0.45, -0.42), (-0.45, -0.42))),
             (True, _loop((0, -0.65), (0.62, 0.12), (-0.62, 0.12))),
             (True, _loop((0, -0.2), (0.78, 0.68), (-0.78, 0.68))),
             (True, _box(-0.16, 0.6, 0.16, 1.0))),
    'pinwheel': tuple((True, _loop(*[(c * x - s * y, s * x + c * y) for x, y in _BLADE]))
                      for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))),
    'ell': ((True, _loop((-0.7, -0.95), (-0.15, -0.95), (-0.15, 0.42), (0.75, 0.42),
                         (0.75, 0.95), (-0.7, 0.95))), ),
}  # yapf: disable
"""Name of a class -> its form."""


def blob(radii: list[float]) -> Form:
    """A closed blob from radii (each in (0, 1]) at equal angles."""
    return ((True, _polar(radii)),)


@dataclass(frozen=True)
class Placement:
    """The projective map ``x = centre + A p / (1 + tilt . p)`` of a local point p."""

    centre: tuple[float, float]
    matrix: tuple[float, float, float, float]
    tilt: tuple[float, float] = (0.0, 0.0)

    def forward(self, points: np.ndarray) -> np.ndarray:
        """Local points (n, 2) to the picture, (n, 2)."""
        a, b, c, d = self.matrix
        x, y = points[:, 0], points[:, 1]
        depth = 1 + self.tilt[0] * x + self.tilt[1] * y
        return np.stack(
            [self.centre[0] + (a * x + b * y) / depth, self.centre[1] + (c * x + d * y) / depth],
            axis=1,
        )

    def inverse(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points of the picture to local ones; inverse of :meth:`forward`."""
        a, b, c, d = self.matrix
        det = a * d - b * c
        x, y = x - self.centre[0], y - self.centre[1]
        u, v = (d * x - b * y) / det, (a * y - c * x) / det
        depth = 1 - self.tilt[0] * u - self.tilt[1] * v
        return u / depth, v / depth


def _fill(loop: Loop, rows: np.ndarray, width: int, x0: float, step: float) -> np.ndarray:
    """Even-odd fill by scan lines: bool (len(rows), width), sample k at ``x0 + k * step``."""
    xa, ya = loop[:, 0], loop[:, 1]
    xb, yb = np.roll(xa, -1), np.roll(ya, -1)
    row, edge = np.nonzero((ya[None] <= rows[:, None]) != (yb[None] <= rows[:, None]))
    t = (rows[row] - ya[edge]) / (yb[edge] - ya[edge])
    crossing = xa[edge] + t * (xb[edge] - xa[edge])
    column = np.clip(np.ceil((crossing - x0) / step), 0, width).astype(np.int64)
    flips = np.zeros((len(rows), width + 1), dtype=np.int64)
    np.add.at(flips, (row, column), 1)
    return (np.cumsum(flips, axis=1)[:, :width] & 1).astype(bool)


def rasterise(
    form: Form, placement: Placement, x0: float, y0: float, shape: tuple[int, int], step: float
) -> np.ndarray:
    """Which sample points of a grid lie within a placed form.

    Args:
        x0, y0: the first sample point; ``step`` lies between neighbours.
        shape: rows and columns of the grid.

    Returns:
        bool array of that shape.
    """
    rows = y0 + step * np.arange(shape[0], dtype=np.float64)
    inside = np.zeros(shape, dtype=bool)
    for add, loop in form:
        filled = _fill(placement.forward(loop), rows, shape[1], x0, step)
        inside = inside | filled if add else inside & ~filled
    return inside


@cache
def form_area(name: str) -> float:
    """Area of a named form in its local frame (of 4 for the full square)."""
    identity = Placement((0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    return float(rasterise(FORMS[name], identity, -1.0, -1.0, (256, 256), 1 / 128).sum()) / 128**2


def _parity(x: np.ndarray) -> np.ndarray:
    return np.floor(x) - 2 * np.floor(x / 2)


def _fraction(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


def _dots(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    v = v * 1.15
    x, y = _fraction(u + 0.5 * _parity(v)) - 0.5, _fraction(v) - 0.5
    return x * x + y * y < 0.1


def _bricks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    v = v * 1.3
    return (_fraction(v) < 0.3) | (_fraction(u / 1.7 + 0.5 * _parity(v)) < 0.2)


def _zigzag(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    tooth = np.abs(_fraction(u / 1.6) - 0.5) * 1.6
    return _fraction(v + tooth) < 0.5


def _speckle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    x, y = np.floor(u * 2.2).astype(np.int64), np.floor(v * 2.2).astype(np.int64)
    mixed = (x * 73856093) ^ (y * 19349663)  # an integer hash of the cell
    mixed = ((mixed ^ (mixed >> 13)) & 0xFFFFFF) * 1274126177 & 0x7FFFFFFF
    return (mixed ^ (mixed >> 16)) & 255 < 110


Texture = Callable[[np.ndarray, np.ndarray], np.ndarray]
TEXTURES: dict[str, Texture] = {
    'stripes': lambda u, v: _fraction(u) < 0.5,
    'checker': lambda u, v: _parity(2 * u) != _parity(2 * v),
    'dots': _dots,
    'rings': lambda u, v: _fraction(np.sqrt(u * u + v * v)) < 0.5,
    'bricks': _bricks,
    'zigzag': _zigzag,
    'grid': lambda u, v: (_fraction(u) < 0.25) | (_fraction(v) < 0.25),
    'speckle': _speckle,
    'sails': lambda u, v: _fraction(u) + _fraction(v) < 0.85,
    'plaid': lambda u, v: 0.5 * (_fraction(u / 1.3) < 0.5) + 0.5 * (_fraction(v / 1.3) < 0.5),
}  # yapf: disable
"""Name -> function of coordinates in periods, which gives the share of the second colour."""
