"""Scenes of Shapes-5i: what is where in picture i of a split, and how it looks.

A scene depends on ``(seed, split, i)`` alone; its layout is drawn in relative coordinates and
does not depend on the image size. Random numbers are PCG64 doubles only, and arithmetic is exact
to the bit (see ``shapes_drawing.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmfss.datasets.shapes_drawing import (
    FORMS,
    TEXTURES,
    Form,
    Placement,
    blob,
    cos_sin,
    form_area,
    rasterise,
)

SPLITS = ('train', 'val')
CLASS_NAMES = tuple(FORMS)
TEXTURE_NAMES = tuple(TEXTURES)
_SAMPLES = 3  # samples per pixel and axis
_GRID = 48  # layouts are tried on a grid of this size
_SECOND_USE = (6, 8, 5, 9, 7, 1, 3, 0, 4, 2)  # textures of classes 11..20; folds 2, 3 swap halves


def class_texture(class_id: int) -> str:
    """The texture family of a class (1..20); each belongs to two classes of different folds."""
    k = class_id - 1
    return TEXTURE_NAMES[k if k < 10 else _SECOND_USE[k - 10]]


class _Draws:
    """Random numbers from PCG64 doubles alone: the part of numpy's streams that is stable."""

    def __init__(self, *key: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self._rng.random())

    def below(self, n: int) -> int:
        return int(self._rng.random() * n)

    def chance(self, p: float) -> bool:
        return float(self._rng.random()) < p

    def order(self, n: int) -> list[int]:
        return [int(k) for k in np.argsort(self._rng.random(n), kind='stable')]

    def field(self, *shape: int) -> np.ndarray:
        return self._rng.random(shape)

    def colours(self, contrast: float) -> np.ndarray:
        """Two BGR colours, (2, 3) in 0..255, whose brightness differs by at least that much."""
        while True:
            pair = 255 * self._rng.random((2, 3))
            grey = pair[:, 0] * 0.114 + pair[:, 1] * 0.587 + pair[:, 2] * 0.299
            if abs(float(grey[0]) - float(grey[1])) >= contrast:
                return pair


@dataclass(frozen=True)
class SceneObject:
    """One thing of a scene; ``class_id`` 0 is a blob of no class."""

    class_id: int
    form: Form
    texture: str
    placement: Placement
    scale: float
    period: float
    colours: np.ndarray


def scene_classes(seed: int, split: str, index: int) -> tuple[int, ...]:
    """The 1 to 3 distinct classes (1..20) meant for an image, the main one first.

    Every 20 images in a row have every class once as the main one.
    """
    part = SPLITS.index(split)
    block, k = index // 20, index % 20
    wanted = []
    for rank in range(3):
        class_id = _Draws(seed, part, block, 1 + rank).order(20)[k] + 1
        if class_id not in wanted:
            wanted.append(class_id)
    p = _Draws(seed, part, index, 0, 0).uniform(0, 1)
    return tuple(wanted[: 1 if p < 0.35 else 2 if p < 0.78 else 3])


def _place(draws: _Draws, scale: float, shrink: float) -> tuple[Placement, float]:
    scale = scale * shrink
    c, s = cos_sin(draws.uniform(0, 360))
    aspect = draws.uniform(0.84, 1.16)
    mirror = -1 if draws.chance(0.5) else 1
    shear = draws.uniform(-0.15, 0.15)
    a, b, d, e = scale * aspect * mirror, scale * shear, 0.0, scale / aspect
    matrix = (c * a - s * d, c * b - s * e, s * a + c * d, s * b + c * e)
    tilt = (draws.uniform(-0.22, 0.22), draws.uniform(-0.22, 0.22))
    centre = (draws.uniform(0.12, 0.88), draws.uniform(0.12, 0.88))
    return Placement(centre, matrix, tilt), scale


def _contents(draws: _Draws, classes: tuple[int, ...]) -> list[tuple[int, Form, str, float]]:
    """(class, form, texture, wanted area as a share of the picture), in painter's order."""
    wanted = list(classes)
    if len(wanted) < 3 and draws.chance(0.35):
        wanted.append(wanted[draws.below(len(wanted))])
    low, high = ((0.09, 0.25), (0.07, 0.17), (0.06, 0.12), (0.05, 0.09))[len(wanted) - 1]
    things = []
    for class_id in wanted:
        name = CLASS_NAMES[class_id - 1]
        things.append((class_id, FORMS[name], class_texture(class_id), draws.uniform(low, high)))
    if draws.chance(0.6):
        radii = [draws.uniform(0.55, 1.0) for _ in range(7 + draws.below(5))]
        texture = TEXTURE_NAMES[draws.below(len(TEXTURE_NAMES))]
        things.append((0, blob(radii), texture, draws.uniform(0.03, 0.08)))
    return [things[k] for k in draws.order(len(things))]


def layout_scene(seed: int, split: str, index: int) -> list[SceneObject]:
    """The objects of an image from back to front; at least 60 % of each is to be seen."""
    draws = _Draws(seed, SPLITS.index(split), index, 0, 1)
    step = 1 / _GRID
    placed: list[SceneObject] = []
    seen: list[tuple[np.ndarray, float]] = []  # visible samples, how many there were in full
    for class_id, form, texture, share in _contents(draws, scene_classes(seed, split, index)):
        area = form_area(CLASS_NAMES[class_id - 1]) if class_id else 2.0
        for attempt in range(60):
            placement, scale = _place(draws, float(np.sqrt(share / area)), 0.99**attempt)
            full = scale * scale * area * _GRID * _GRID
            mask = rasterise(form, placement, step / 2, step / 2, (_GRID, _GRID), step)
            if mask.sum() >= 0.8 * full and all(
                int((old & ~mask).sum()) >= 0.6 * total for old, total in seen
            ):
                seen = [(old & ~mask, total) for old, total in seen] + [(mask, full)]
                period, colours = draws.uniform(0.05, 0.075), draws.colours(90)
                placed.append(
                    SceneObject(class_id, form, texture, placement, scale, period, colours)
                )
                break
    return placed


def _smooth_noise(draws: _Draws, size: int, cells: int) -> np.ndarray:
    """Bilinear noise in -1..1, (size, size), ``cells`` knots on each side."""
    knots = 2 * draws.field(cells + 2, cells + 2) - 1
    position = (np.arange(size) + 0.5) / size * cells
    low = np.floor(position).astype(np.int64)
    t = position - low
    rows = knots[low] * (1 - t)[:, None] + knots[low + 1] * t[:, None]
    return rows[:, low] * (1 - t) + rows[:, low + 1] * t


def _background(draws: _Draws, size: int) -> np.ndarray:
    """Two soft colours, a faint texture and smooth noise: (size, size, 3)."""
    first, second = 40 + 175 * draws.field(3), 40 + 175 * draws.field(3)
    blend = (0.5 + 0.6 * _smooth_noise(draws, size, 2 + draws.below(3)))[..., None]
    canvas = first + (0.6 * (second - first)) * blend
    if draws.chance(0.75):
        texture = TEXTURES[TEXTURE_NAMES[draws.below(len(TEXTURE_NAMES))]]
        c, s = cos_sin(draws.uniform(0, 360))
        x = (np.arange(size) + 0.5) / size / draws.uniform(0.04, 0.12)
        pattern = texture(c * x[None] - s * x[:, None], s * x[None] + c * x[:, None]) * 1.0
        canvas = canvas + (draws.uniform(10, 32) * (pattern - 0.5))[..., None]
    return canvas + 14 * _smooth_noise(draws, size, 24)[..., None]


def _paint(thing: SceneObject, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (size, size) in 0..1 and colour (size, size, 3) of one object."""
    k, step = _SAMPLES, 1 / (size * _SAMPLES)
    corners = np.concatenate([thing.placement.forward(loop) for add, loop in thing.form if add])
    low = np.clip(np.floor(corners.min(axis=0) * size), 0, size).astype(np.int64)
    high = np.clip(np.ceil(corners.max(axis=0) * size), 0, size).astype(np.int64)
    # the pixels (rows, columns) that the object may touch
    window = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
    top, left = window[0].start * k, window[1].start * k
    height, width = (w.stop - w.start for w in window)
    inside = rasterise(
        thing.form,
        thing.placement,
        (left + 0.5) * step,
        (top + 0.5) * step,
        (height * k, width * k),
        step,
    )
    rows, columns = np.nonzero(inside)
    u, v = thing.placement.inverse((left + columns + 0.5) * step, (top + rows + 0.5) * step)
    per = thing.scale / thing.period
    tone = np.zeros(inside.shape, dtype=np.int64)
    tone[rows, columns] = 2 * TEXTURES[thing.texture](u * per, v * per)  # 0, 1 or 2 halves
    counts, tones = (a.reshape(height, k, width, k).sum(axis=(1, 3)) for a in (inside, tone))
    cover, share = np.zeros((size, size)), np.zeros((size, size, 1))
    cover[window] = counts / (k * k)
    share[window] = (tones / (2 * np.maximum(counts, 1)))[..., None]
    return cover, thing.colours[0] * (1 - share) + thing.colours[1] * share


def _finish(draws: _Draws, canvas: np.ndarray) -> np.ndarray:
    """Uneven light, blur in some, noise in all; uint8."""
    size = canvas.shape[0]
    c, s = cos_sin(draws.uniform(0, 360))
    x = (np.arange(size) + 0.5) / size - 0.5
    light = 1 + draws.uniform(0.05, 0.5) * (c * x[None] + s * x[:, None])
    canvas = canvas * light[..., None] * draws.uniform(0.85, 1.1)
    if draws.chance(0.4):
        for _ in range(2):  # binomial 1 2 1, rows and columns
            p = np.concatenate([canvas[:1], canvas, canvas[-1:]])
            canvas = ((p[:-2] + 2 * p[1:-1] + p[2:]) / 4).transpose(1, 0, 2)
    noise = draws.field(size, size, 3) + draws.field(size, size, 3) - 1
    canvas = canvas + draws.uniform(8, 28) * noise
    return np.clip(np.floor(canvas + 0.5), 0, 255).astype(np.uint8)


def render_sample(
    seed: int, split: str, index: int, image_size: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """Draw picture ``index`` of a split.

    Returns:
        image, uint8 (S, S, 3) BGR; label, uint8 (S, S) of 0, 1..20 and 255 where a pixel belongs
        to no one thing by three quarters (the edges).

    Raises:
        ValueError: on a split other than ``train`` and ``val``.
    """
    if split not in SPLITS:
        raise ValueError(f"split of Shapes-5i must be one of {SPLITS}, got '{split}'")
    draws = _Draws(seed, SPLITS.index(split), index, 0, 2)
    canvas = _background(draws, image_size)
    weights = {0: np.ones((image_size, image_size))}
    for thing in layout_scene(seed, split, index):
        cover, colour = _paint(thing, image_size)
        canvas = canvas * (1 - cover)[..., None] + colour * cover[..., None]
        weights = {label: weight * (1 - cover) for label, weight in weights.items()}
        weights[thing.class_id] = weights.get(thing.class_id, 0) + cover
    labels = np.array(sorted(weights), dtype=np.uint8)
    stack = np.stack([weights[int(label)] for label in labels])
    label = labels[stack.argmax(axis=0)]
    label[stack.max(axis=0) < 0.75] = 255
    return _finish(draws, canvas), label
