"""Prompts that are drawn from a support's mask: a box, points, a scribble (SANSA, section 5).

All of them are point prompts of SAM 2. Coordinates are x, y in pixels of the mask (H, W).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from mmfss.encoders.sam2.prompts import BOX_END, BOX_START, OBJECT

KINDS = ('mask', 'point', 'scribble', 'box')
POINTS = 20
"""Clicks of a point prompt; at most so many in training."""
STROKES = 9
"""Strokes of a scribble; 1 to 20 in training."""


@dataclass(frozen=True)
class PointPrompt:
    """A prompt of P points on an image of H x W pixels.

    Attributes:
        coords: (P, 2) float32, x and y.
        labels: (P,) int32, see :data:`mmfss.encoders.sam2.prompts.OBJECT`.
        size: (H, W).
    """

    coords: Tensor
    labels: Tensor
    size: tuple[int, int]

    def at(self, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Coordinates (1, P, 2) in pixels of a square of that side, and labels (1, P)."""
        height, width = self.size
        scale = torch.tensor([side / width, side / height])
        return (self.coords * scale)[None].to(device), self.labels[None].to(device)


@dataclass(frozen=True)
class Pen:
    """How strokes are drawn.

    Attributes:
        steps: least and most vertices after the first.
        speed: largest length of a step; change: most that it changes by in one.
        shift: deviation of the length by which a stroke is moved.
        jitter: least and most by which every other vertex is moved.
        width: least and most of its line.
    """

    steps: tuple[int, int]
    speed: float
    change: float
    shift: float
    jitter: tuple[int, int]
    width: tuple[int, int]


WIDE = Pen((10, 29), 20.0, 15.0, 3.0, (-3, 2), (3, 9))
SMALL = Pen((6, 21), 12.0, 8.0, 1.5, (-1, 0), (2, 4))


def draw_prompt(mask: Tensor, kind: str, training: bool) -> PointPrompt | None:
    """A prompt of the object in a mask.

    In training it is random, by torch's generator; else it is a function of the mask alone.

    Args:
        mask: (H, W) bool.
        kind: one of :data:`KINDS`, or ``multi`` for any of them at random.
        training: of the model.

    Returns:
        None for the mask itself.
    """
    mask = mask.cpu()
    if training:
        seed = int(torch.randint(2**31, ()))
    else:
        seed = zlib.crc32(np.packbits(mask.numpy()).tobytes())
    random = np.random.default_rng(seed)
    if kind == 'multi':
        kind = KINDS[int(random.integers(len(KINDS)))]
    if kind == 'mask':
        return None
    if kind == 'box':
        return box_prompt(mask)
    if kind == 'point':
        count = int(random.integers(1, POINTS + 1)) if training else POINTS
        generator = torch.Generator().manual_seed(int(random.integers(2**31)))
        return point_prompt(mask, count, generator)
    pen, strokes = WIDE, STROKES
    if training:
        pen, strokes = (WIDE, SMALL)[int(random.integers(2))], int(random.integers(1, 21))
    return _at_pixels(torch.from_numpy(scribble(mask.numpy(), pen, strokes, random)))


def _at_pixels(inside: Tensor) -> PointPrompt:
    """A positive click on each pixel of a mask, in row-major order; on (0, 0) where it is empty."""
    height, width = inside.shape
    coords = inside.nonzero().flip(-1).float()
    if not len(coords):
        coords = torch.zeros(1, 2)
    labels = torch.full((len(coords),), OBJECT, dtype=torch.int32)
    return PointPrompt(coords, labels, (height, width))


def point_prompt(mask: Tensor, count: int, generator: torch.Generator | None = None) -> PointPrompt:
    """Positive clicks on ``count`` pixels of a mask (H, W) at random; all of a smaller one."""
    inside = mask.flatten().nonzero()[:, 0]
    chosen = inside[torch.randperm(len(inside), generator=generator)[:count]]
    some = torch.zeros_like(mask, dtype=torch.bool)
    some.view(-1)[chosen] = True
    return _at_pixels(some)


def box_prompt(mask: Tensor) -> PointPrompt:
    """The largest box around components of a mask (H, W); boxes that overlap are one."""
    found: list[list[int]] = []
    count, _, stats, _ = cv2.connectedComponentsWithStats(
        mask.numpy().astype(np.uint8), connectivity=4
    )
    # in scan order; each joins the first that it overlaps (open intervals), there is no second pass
    for left, top, wide, tall, _ in stats[1:count].tolist():
        new = [left, top, left + wide, top + tall]
        for box in found:
            if new[0] < box[2] and box[0] < new[2] and new[1] < box[3] and box[1] < new[3]:
                box[:2] = min(box[0], new[0]), min(box[1], new[1])
                box[2:] = max(box[2], new[2]), max(box[3], new[3])
                break
        else:
            found.append(new)
    # the first of the largest; of an empty mask (0, 0, 0, 0)
    best = max(found, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]), default=[0, 0, 0, 0])
    labels = torch.tensor([BOX_START, BOX_END], dtype=torch.int32)
    height, width = mask.shape
    return PointPrompt(torch.tensor(best).reshape(2, 2).float(), labels, (height, width))


def scribble(mask: np.ndarray, pen: Pen, strokes: int, random: np.random.Generator) -> np.ndarray:
    """Strokes within a mask (H, W) bool, as one; one pixel where they all miss a small object."""
    height, width = mask.shape
    drawn = np.zeros((height, width), np.uint8)
    inside = np.argwhere(mask)
    if not len(inside):
        return drawn.astype(bool)
    for _ in range(strokes):
        stroke = _stroke(inside[random.integers(len(inside))], pen, random)
        line = int(random.integers(pen.width[0], pen.width[1] + 1))
        points = [(int(x), int(y)) for y, x in stroke]
        for start, end in zip(points, points[1:]):
            cv2.line(drawn, start, end, 1, line)
        for point in points:
            cv2.circle(drawn, point, max(0, line // 2 - 1), 1, -1)
    found = (drawn > 0) & mask
    if not found.any():
        found[tuple(inside[random.integers(len(inside))])] = True
    return found


def _stroke(start: np.ndarray, pen: Pen, random: np.random.Generator) -> np.ndarray:
    """Vertices (n, 2) y, x of a stroke, in whole pixels."""
    angle, speed = random.uniform(0, 2 * np.pi), random.uniform(0, pen.speed)
    vertices = [start.astype(float)]
    for _ in range(int(random.integers(pen.steps[0], pen.steps[1] + 1))):
        speed = np.clip(speed + random.uniform(-pen.change, pen.change), 0, pen.speed)
        angle += random.uniform(-0.5, 0.5)
        vertices.append(vertices[-1] + speed * np.array([np.sin(angle), np.cos(angle)]))
    stroke = np.rint(vertices).astype(int)
    away, towards = abs(random.normal(0, pen.shift)), random.uniform(0, 2 * np.pi)
    stroke += np.rint(away * np.array([np.sin(towards), np.cos(towards)])).astype(int)
    moved = random.permutation(len(stroke))[: len(stroke) // 2]
    stroke[moved] += random.integers(pen.jitter[0], pen.jitter[1] + 1, (len(moved), 2))
    return stroke
