"""Windows over a photo at its own resolution, and their results put together without a seam.

    grid = Tiles(1024, 128).over(11000, 9000)
    blend = Blend(grid, thresholds)
    for window in grid.windows:                        # in any order
        blend.add(window, logits, scores)              # of the window as a photo of its own
    blend.labels, blend.scores

A pixel is decided as :func:`mmfss.apis.nway.decide` decides one, by the mean of what the windows
that it lies in say, weighted: a window's weight falls to nothing towards its border, where its
neighbour's rises, and all of them together are 1. What lies in one window alone is decided when
that comes; of what overlaps, strips are kept until the last window of each has come, and then added
up in the order of the windows. So labels do not depend on the order in which windows come, bit by
bit, and memory does not hold the logits of the photo.

Shapes: a photo of H x W pixels, N classes, S side of the model's images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

import numpy as np
import torch
from torch import Tensor

from mmfss.apis.nway import ABSENT, Contest, weighted_logits
from mmfss.apis.prediction import TiledPrediction, certainty_of, confidence_of, sureness_of
from mmfss.arguments import integer
from mmfss.functional import up

SMALLEST = 32
"""Side of a window in pixels, at least."""


@dataclass(frozen=True)
class Window:
    """A part of a photo: its place among the windows, (row, column), and where it is in pixels."""

    place: tuple[int, int]
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Tiles:
    """How photos are cut into windows.

    Args:
        size: side of the windows in pixels of the photo; a photo that is smaller is one window.
        overlap: of neighbours in pixels, at least; they are laid evenly over the photo. None is an
            eighth of the size.

    Raises:
        ValueError: a side below 32, or an overlap that is negative or more than half of it.
    """

    size: int
    overlap: int | None = None

    def __post_init__(self) -> None:
        integer('tiles', self.size, SMALLEST)
        if self.overlap is None:
            object.__setattr__(self, 'overlap', self.size // 8)
        if integer('overlap', self.overlap, 0) > self.size // 2:
            raise ValueError(
                f'overlap must be at most half of the tiles, {self.size // 2} pixels for tiles of '
                f'{self.size}, got {self.overlap}'
            )

    def over(self, height: int, width: int) -> Grid:
        """The windows of a photo."""
        return Grid(self._axis(height), self._axis(width))

    def _axis(self, length: int) -> Axis:
        overlap = self.overlap or 0
        if length <= self.size:
            return Axis(length, ((0, length),))
        count = -(-(length - overlap) // (self.size - overlap))
        free, gaps = length - self.size, count - 1
        starts = [(2 * i * free + gaps) // (2 * gaps) for i in range(count)]
        return Axis(length, tuple((start, start + self.size) for start in starts))


@dataclass(frozen=True)
class Axis:
    """Windows along one side of a photo: ``spans`` from pixel to pixel, rising, over ``length``."""

    length: int
    spans: tuple[tuple[int, int], ...]

    @cached_property
    def cells(self) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
        """The parts between all begins and ends: from, to, and the windows that cover it."""
        cuts = sorted({edge for span in self.spans for edge in span})
        return tuple(
            (a, b, tuple(i for i, (start, end) in enumerate(self.spans) if start <= a < end))
            for a, b in pairwise(cuts)
        )

    @cached_property
    def cells_of(self) -> tuple[tuple[int, ...], ...]:
        """Of each window the numbers of its cells."""
        return tuple(
            tuple(number for number, cell in enumerate(self.cells) if i in cell[2])
            for i in range(len(self.spans))
        )

    @cached_property
    def weights(self) -> tuple[Tensor, ...]:
        """Of each window at each of its pixels, float32; over the windows of a pixel they are 1."""
        total, tents = np.zeros(self.length), []
        for start, end in self.spans:
            inside = np.arange(end - start) + 0.5
            tents.append(np.minimum(inside, end - start - inside))  # distance to the nearer end
            total[start:end] += tents[-1]
        return tuple(
            torch.from_numpy((tent / total[start:end]).astype(np.float32))
            for tent, (start, end) in zip(tents, self.spans)
        )


@dataclass(frozen=True)
class Grid:
    """The windows of a photo, by rows and columns."""

    rows: Axis
    columns: Axis

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the photo."""
        return self.rows.length, self.columns.length

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """From the upper left to the lower right; whole rows one after the other."""
        return tuple(
            Window((i, j), top, left, bottom - top, right - left)
            for i, (top, bottom) in enumerate(self.rows.spans)
            for j, (left, right) in enumerate(self.columns.spans)
        )

    def share(self, place: tuple[int, int]) -> float:
        """The weight of a window, mean over the pixels of the photo; of all of them 1."""
        row, column = self.rows.weights[place[0]], self.columns.weights[place[1]]
        total = row.sum(dtype=torch.float64) * column.sum(dtype=torch.float64)
        return float(total) / (self.rows.length * self.columns.length)


@dataclass(frozen=True)
class _Strip:
    """What a window says of a cell: per class the weighted logits, or None where it is absent from
    the window, and its object scores (N,)."""

    logits: Sequence[Tensor | None]
    scores: Tensor


class Blend:
    """The windows of a photo, on the CPU.

    Args:
        grid: the windows.
        thresholds: (N,) float32, of the object score of a class in a window.
        sure: keep :attr:`sure`.

    Attributes:
        labels: uint8 (H, W): 0 background, 1..N the classes. What has not been decided is 0.
        sure: uint8 (H, W), see :func:`mmfss.apis.prediction.sureness_of`; None where not kept.
        tile_scores: float32 (rows, columns, N), object scores of the classes in each window.
    """

    def __init__(self, grid: Grid, thresholds: np.ndarray, sure: bool = False) -> None:
        self.grid, self.thresholds = grid, torch.from_numpy(thresholds)
        shape = (len(grid.rows.spans), len(grid.columns.spans))
        self.labels = np.zeros(grid.shape, np.uint8)
        self.sure = np.zeros(grid.shape, np.uint8) if sure else None
        self.tile_scores = np.zeros((*shape, len(thresholds)), np.float32)
        self._certainty = np.zeros(shape)
        self._confidence, self._inside = np.zeros((2, *shape, len(thresholds)))
        self._waiting: dict[tuple[int, int], dict[tuple[int, int], _Strip]] = {}

    def add(self, window: Window, logits: Tensor, scores: Tensor) -> None:
        """Take what the model says of a window.

        Args:
            window: one of the grid's, each once.
            logits: (N, S, S) float32.
            scores: (N,) float32.
        """
        place = window.place
        self.tile_scores[place] = scores.numpy()
        self._certainty[place] = certainty_of(logits, scores, self.thresholds)
        self._confidence[place] = [confidence_of(one) for one in logits]
        self._inside[place] = [float((one >= 0).float().mean()) for one in logits]
        cells = self._cells_of(window)
        shared = {cell: area for cell, area, alone in cells if not alone}
        strips: dict[tuple[int, int], list[Tensor | None]] = {cell: [] for cell in shared}
        size = (window.height, window.width)
        contest = Contest(size)
        for label, one in enumerate(weighted_logits(logits, scores, self.thresholds), 1):
            if one is None or (not shared and one.amax() < -1e-30):
                for kept in strips.values():
                    kept.append(None)
                continue
            full = one if one.shape == size else up(one[None, None], size)[0, 0]
            for cell, (rows, columns) in shared.items():
                strips[cell].append(full[rows, columns].clone())
            contest.enter(label, full)
        certain = contest.labels.numpy()
        sure = None if self.sure is None else sureness_of(contest, scores)
        for _, (rows, columns), alone in cells:
            if alone:
                target = (_moved(rows, window.top), _moved(columns, window.left))
                self.labels[target] = certain[rows, columns]
                if self.sure is not None and sure is not None:
                    self.sure[target] = sure[rows, columns]
        for cell, kept in strips.items():
            self._keep(cell, place, _Strip(kept, scores))

    def _cells_of(self, window: Window) -> list[tuple[tuple[int, int], tuple[slice, slice], bool]]:
        """Of the cells of a window: (row, column), where it is in the window, and whether it is in
        no other."""
        down, along = self.grid.rows, self.grid.columns
        found = []
        for r, c in product(down.cells_of[window.place[0]], along.cells_of[window.place[1]]):
            (top, bottom, rows), (left, right, columns) = down.cells[r], along.cells[c]
            area = slice(top - window.top, bottom - window.top)
            across = slice(left - window.left, right - window.left)
            found.append(((r, c), (area, across), len(rows) * len(columns) == 1))
        return found

    def _keep(self, cell: tuple[int, int], place: tuple[int, int], strip: _Strip) -> None:
        """Keep a strip until it is the last of its cell, which is decided then."""
        waiting = self._waiting.setdefault(cell, {})
        waiting[place] = strip
        rows, columns = self.grid.rows.cells[cell[0]], self.grid.columns.cells[cell[1]]
        if len(waiting) < len(rows[2]) * len(columns[2]):
            return
        del self._waiting[cell]
        contest = Contest((rows[1] - rows[0], columns[1] - columns[0]))
        parts = [waiting[one] for one in sorted(waiting)]
        weights = [self._weight(one, rows[:2], columns[:2]) for one in sorted(waiting)]
        for number in range(len(self.thresholds)):
            values = [part.logits[number] for part in parts]
            if all(value is None for value in values):
                continue
            # z = sum_t w_t z_t, in the order of the windows; sum_t w_t = 1
            total = torch.zeros(contest.labels.shape)
            for weight, value in zip(weights, values):
                total += weight * (ABSENT if value is None else value)
            contest.enter(number + 1, total)
        target = (slice(*rows[:2]), slice(*columns[:2]))
        self.labels[target] = contest.labels.numpy()
        if self.sure is not None:
            scores = sum(
                weight * part.scores[:, None, None] for weight, part in zip(weights, parts)
            )
            self.sure[target] = sureness_of(contest, scores)

    def _weight(
        self, place: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> Tensor:
        """Of a window in a cell: (h, w)."""
        axes = ((self.grid.rows, rows), (self.grid.columns, columns))
        row, column = (
            axis.weights[i][start - axis.spans[i][0] : end - axis.spans[i][0]]
            for i, (axis, (start, end)) in zip(place, axes)
        )
        return row[:, None] * column

    @property
    def scores(self) -> np.ndarray:
        """(N,) float32: the largest object score of each class in any window."""
        return self.tile_scores.max((0, 1))

    @property
    def certainty(self) -> float:
        """Mean of the windows, each by its share of the photo."""
        return float((self._shares() * self._certainty).sum())

    @property
    def confidences(self) -> np.ndarray:
        """(N,): the mean probability of the mask of each class, over the windows that show it;
        over all of them where none does."""
        shown = self.tile_scores >= self.thresholds.numpy()
        shown = np.where(shown.any((0, 1)), shown, True)
        areas = shown * self._shares()[..., None] * self._inside
        total = areas.sum((0, 1))
        return (areas * self._confidence).sum((0, 1)) / np.where(total > 0, total, 1)

    def prediction(self, classes: tuple[str, ...], source: str) -> TiledPrediction:
        """All of it, once every window has come."""
        return TiledPrediction(
            classes, self.scores, self.thresholds.numpy(), self.labels, source,
            self.tile_scores, self.confidences, self.certainty, self.sure,
        )  # fmt: skip

    def _shares(self) -> np.ndarray:
        shape = self._certainty.shape
        return np.array([self.grid.share(place) for place in np.ndindex(shape)]).reshape(shape)


def _moved(area: slice, by: int) -> slice:
    return slice(area.start + by, area.stop + by)
