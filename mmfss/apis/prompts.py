"""Prompts on support images: box, points and scribbles become a mask, by SAM 2's own prompt encoder
and mask decoder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import numpy as np

Point = tuple[float, float]


@dataclass(frozen=True)
class Prompt:
    """What a person marks of an object, in pixels (x, y) of the upright image.

    Attributes:
        box: (x1, y1, x2, y2).
        points: (x, y) of each.
        labels: of each point: 1 object, 0 not.
        scribbles: strokes on the object, each a tuple of points.
    """

    box: tuple[float, float, float, float] | None = None
    points: tuple[Point, ...] = ()
    labels: tuple[int, ...] = ()
    scribbles: tuple[tuple[Point, ...], ...] = ()


@dataclass(frozen=True)
class Proposal:
    """A mask that a prompt gave: bool (H, W), with its predicted IoU."""

    mask: np.ndarray
    score: float
    prompt: Prompt


class Proposer:
    """Masks from prompts."""

    def __init__(self, model, checkpoint: str | None = None) -> None:
        self.model = model

    def propose(self, image, prompt: Prompt) -> Proposal:
        raise NotImplementedError


def read_prompt(path: str | os.PathLike) -> Prompt:
    """Read a prompt file."""
    data = json.loads(open(path, encoding='utf-8').read())
    points = data.get('points', [])
    return Prompt(
        tuple(data['box']) if data.get('box') else None,
        tuple((p[0], p[1]) for p in points),
        tuple(p[2] for p in points),
        tuple(tuple(map(tuple, s)) for s in data.get('scribbles', [])),
    )
