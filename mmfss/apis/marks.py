"""What a person marks of an object: box, points, scribbles; and its file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmfss.datasets.preparation.folder_layouts import tool_of
from mmfss.encoders.sam2.prompts import BOX_END, BOX_START, NOT_OBJECT, OBJECT

Point = tuple[float, float]
SCRIBBLE_POINTS = 16
"""Most points that the scribbles of a prompt become; also the most strokes."""
MAX_POINTS = 64
_KEYS = ('box', 'points', 'scribbles')


@dataclass(frozen=True)
class Prompt:
    """What a person marks of an object, in pixels (x, y) of the upright image of W x H.

    Attributes:
        box: (x1, y1, x2, y2) around the object, x1 < x2 <= W, y1 < y2 <= H.
        points: (x, y) of each, x < W, y < H; at most 64.
        labels: of each point: 1 on the object, 0 not on it.
        scribbles: strokes on the object, at most 16, each a tuple of points.
    """

    box: tuple[float, float, float, float] | None = None
    points: Sequence[Point] = ()
    labels: Sequence[int] = ()
    scribbles: Sequence[Sequence[Point]] = ()

    def check(self, width: int, height: int) -> None:
        """Raise ValueError for what does not fit an image: a box without area or outside it,
        points outside, labels of another number or value, not finite, nothing on the object."""
        size = f'the image of {width} x {height} pixels (width x height)'
        if self.box is not None:
            x1, y1, x2, y2 = _numbers(self.box, 4, 'the box', '(x1, y1, x2, y2)')
            if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
                raise ValueError(
                    f'the box must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2 within {size}, got '
                    f'{tuple(self.box)}; draw it from the upper left to the lower right corner'
                )
        if len(self.points) != len(self.labels):
            raise ValueError(
                f'each point needs a label, 1 (object) or 0 (not), got {len(self.points)} points '
                f'and {len(self.labels)} labels'
            )
        wrong = [v for v in self.labels if isinstance(v, bool) or v not in (NOT_OBJECT, OBJECT)]
        if wrong:
            raise ValueError(f'labels of points must be 1 (object) or 0 (not), got {wrong[0]!r}')
        for what, allowed, got in (
            ('points', MAX_POINTS, self.points),
            ('strokes of a scribble', SCRIBBLE_POINTS, self.scribbles),
        ):
            if len(got) > allowed:
                raise ValueError(f'a prompt may have {allowed} {what}, got {len(got)}; leave out')
        if any(len(stroke) == 0 for stroke in self.scribbles):
            raise ValueError('a stroke of the scribbles has no point; leave it out')
        for x, y in (
            _numbers(p, 2, 'a point', '(x, y)')
            for part in (self.points, *self.scribbles)
            for p in part
        ):
            if not (0 <= x < width and 0 <= y < height):
                raise ValueError(f'point ({x:g}, {y:g}) lies outside {size}')
        if self.box is None and OBJECT not in self.labels and not len(self.scribbles):
            raise ValueError(
                'nothing tells where the object is: give a box, a point of label 1 on the object, '
                'or a scribble'
            )

    def tokens(self, width: int, height: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        """The points that SAM 2 is given: box corners first, then points, then scribbles.

        Args:
            width, height: of the image, which :meth:`check` has seen.
            side: S of the model.

        Returns:
            float32 (P, 2), x and y in pixels of the S x S image; int32 (P,) labels 0..3 of SAM 2.
        """
        points: list[Point] = []
        labels: list[int] = []
        if self.box is not None:
            x1, y1, x2, y2 = self.box
            points += [(x1, y1), (x2, y2)]
            labels += [BOX_START, BOX_END]
        points += [(x, y) for x, y in self.points]  # arrays are taken too
        labels += list(self.labels)
        strokes = [np.array(stroke, np.float64) for stroke in self.scribbles]
        for line in sample_strokes(strokes, max(width, height)):
            points += line.tolist()
            labels += [OBJECT] * len(line)
        scale = np.array([side / width, side / height])
        return (np.array(points) * scale).astype(np.float32), np.array(labels, np.int32)


def sample_strokes(strokes: list[np.ndarray], long_side: float) -> list[np.ndarray]:
    """Points spread evenly along strokes.

    Each stroke gives one point, in its middle; the other 16 - strokes are shared out by length,
    in full where all strokes together are as long as the image, else in proportion.

    Args:
        strokes: at most 16, (n, 2) each, n >= 1.
        long_side: longer side of the image, in the same unit.

    Returns:
        For each stroke (m, 2), m >= 1; at most 16 in all.
    """
    lengths = [np.linalg.norm(np.diff(s, axis=0), axis=1).sum() for s in strokes]
    rest = SCRIBBLE_POINTS - len(strokes)
    sampled = []
    for stroke, length in zip(strokes, lengths):
        count = 1 + int(rest * length / max(sum(lengths), long_side))
        steps = np.linalg.norm(np.diff(stroke, axis=0), axis=1)
        at = np.concatenate([[0.0], np.cumsum(steps)])
        wanted = (np.arange(count) + 0.5) / count * at[-1]
        sampled.append(np.stack([np.interp(wanted, at, stroke[:, i]) for i in (0, 1)], axis=1))
    return sampled


def read_prompt(path: str | os.PathLike) -> Prompt:
    """Read a prompt file, JSON with one or more of::

        {"box": [x1, y1, x2, y2], "points": [[x, y, 1], [x, y, 0]], "scribbles": [[[x, y], ...]]}

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON of this form. What it marks is checked with its image.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'prompt file {path} not found')
    form = '{"box": [x1, y1, x2, y2], "points": [[x, y, 1]], "scribbles": [[[x, y], ...]]}'
    try:
        data = json.loads(path.read_text(encoding='utf-8-sig'))
        unknown = sorted(set(data) - set(_KEYS))
        if not isinstance(data, dict) or unknown:
            raise ValueError(f'unknown entries {unknown[:5]}')
        points = [_numbers(p, 3, 'a point', '[x, y, label]') for p in data.get('points') or []]
        box = data.get('box')
        if box is not None:
            x1, y1, x2, y2 = _numbers(box, 4, 'the box', '[x1, y1, x2, y2]')
            box = x1, y1, x2, y2
        wrong = [label for *_, label in points if label not in (NOT_OBJECT, OBJECT)]
        if wrong:
            raise ValueError(f'labels of points must be 1 (object) or 0 (not), got {wrong[0]:g}')
        return Prompt(
            box,
            tuple((x, y) for x, y, _ in points),
            tuple(int(label) for *_, label in points),
            tuple(
                tuple((x, y) for x, y in (_numbers(p, 2, 'a point', '[x, y]') for p in stroke))
                for stroke in data.get('scribbles') or []
            ),
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        tool = tool_of(path)
        raise ValueError(
            f'{path} is no prompt ({error}); a prompt is {form}, with at least one of the three'
            + (f'. The file is from {tool}' if tool else '')
        ) from error


def _numbers(values: Sequence[float], count: int, what: str, form: str) -> list[float]:
    """The numbers of a point or box, finite."""
    numbers = list(values) if isinstance(values, (list, tuple, np.ndarray)) else []
    fine = len(numbers) == count and all(
        isinstance(v, (int, float, np.number)) and not isinstance(v, bool) and math.isfinite(v)
        for v in numbers
    )
    if not fine:
        raise ValueError(f'{what} must be {form} of finite numbers, got {values!r:.80}')
    return [float(v) for v in numbers]
