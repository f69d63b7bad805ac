"""Where a query looks like the supports, and the points at which the segmenter is asked.

Shapes: P = h w positions of the grid (h, w), Q of the query, C channels, n points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmfss.functional import minmax


def similarities(one: Tensor, other: Tensor) -> Tensor:
    """Cosines (P, Q) of positions, features (P, C) and (Q, C): ``<a, b> / (|a| |b| + 1e-7)``."""
    lengths = one.norm(dim=-1)[:, None] * other.norm(dim=-1)
    return one @ other.T / (lengths + 1e-7)


def mean_map(cosines: Tensor, inside: Tensor) -> Tensor:
    """Mean similarity (..., Q) to the positions of a soft mask ``inside`` (..., P) in [0, 1]."""
    # mean[j] = (1/P) sum_i m_i cos(s_i, q_j) / (sum_i m_i / P + 1e-7)
    count = len(cosines)
    return inside @ cosines / count / (inside.sum(-1, keepdim=True) / count + 1e-7)


def max_map(cosines: Tensor, inside: Tensor) -> Tensor:
    """Largest similarity (Q,), weighted: positions outside take part with the value 0."""
    # max[j] = max_i m_i cos(s_i, q_j)
    return (inside[:, None] * cosines).amax(0)


@dataclass(frozen=True)
class Maps:
    """What each position of a query looks like, (h, w) float32 each.

    Attributes:
        mean, max: similarity to the supported objects, means over shots.
        background: mean similarity to the rest, and to what is marked as not the class.
    """

    mean: Tensor
    max: Tensor
    background: Tensor

    @property
    def half(self) -> Tensor:
        """The middle of the range of ``mean``, a scalar."""
        return (self.mean.max() + self.mean.min()) / 2

    @property
    def agreement(self) -> Tensor:
        """(h, w), > 0 where a position is more like the objects: ``mean^2 - background half``."""
        return self.mean**2 - self.background * self.half


@dataclass(frozen=True)
class Points:
    """Where the segmenter is asked.

    Attributes:
        cross, negative: (h, w) in [0, 1), the maps that are compared.
        filtered: (h, w) ``cross`` where it is not below ``negative``, else 0.
        grid: (n, 2) int64 x, y of the chosen positions, by rising x, then y.
    """

    cross: Tensor
    negative: Tensor
    filtered: Tensor
    grid: Tensor

    @property
    def hot(self) -> Tensor:
        """(h, w) bool: where they are."""
        found = torch.zeros_like(self.filtered, dtype=torch.bool)
        found[self.grid[:, 1], self.grid[:, 0]] = True
        return found


def choose_points(maps: Maps, most: int = 128) -> Points:
    """As many of the best positions as the map of what is left adds up to, at most ``most``."""
    cross = minmax(maps.mean * maps.max, eps=1e-6)
    negative = minmax(maps.background, eps=1e-6)
    filtered = torch.where(negative <= cross, cross, 0)
    return Points(cross, negative, filtered, points_of(filtered, most))


def points_of(filtered: Tensor, most: int = 128) -> Tensor:
    """The largest entries of a map (h, w) >= 0, as x, y (n, 2), by rising x, then y."""
    # n = min(floor(sum f), most); one where the sum is below 1, none where it is 0
    total = float(filtered.sum())
    count = min(int(total), most, filtered.numel()) or int(total > 0)
    hot = torch.zeros_like(filtered, dtype=torch.bool)
    hot.view(-1)[filtered.flatten().topk(count).indices] = True
    return hot.T.nonzero()
