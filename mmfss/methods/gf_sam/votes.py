"""Which of the masks are kept: clusters of masks that cover each other's points, and two votes.

Shapes: n points and a mask of each, A clusters, (h, w) grid of the features with P = h w positions,
T side of the masks in pixels, l = T / 4 that of their logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .matching import Maps, mean_map

_PIXELS = 2**23
"""Of masks at full size that are made at once: 32 MB of float32."""


def resampling(source: int, target: int, device: torch.device) -> Tensor:
    """Weights (target, source) with which bilinear resizing (``align_corners=False``, no antialias)
    takes the entries of a row."""
    rows = torch.eye(source, device=device)[None]
    return F.interpolate(rows, size=target, mode='linear', align_corners=False)[0].T


@dataclass(frozen=True)
class GridMasks:
    """What the votes read of n masks of T x T pixels: nothing else of them is ever made at once.

    Attributes:
        corners: (n, h, w) bool, at the pixel of each position's upper left corner.
        taps: (n, a, b) bool, at the pixels that bilinear resizing to (h, w) takes.
        weights: (h, a) and (w, b) with which it takes them.
    """

    corners: Tensor
    taps: Tensor
    weights: tuple[Tensor, Tensor]

    @classmethod
    def read(cls, masks: Tensor, side: int, grid: tuple[int, int]) -> GridMasks:
        """From masks.

        Args:
            masks: (n, l, l) logits, which would be resized to the side; or bool (n, T, T).
            side: T.
            grid: (h, w).
        """
        device, bits = masks.device, masks.dtype == torch.bool
        up = None if bits else resampling(masks.shape[-1], side, device)

        def at(rows: Tensor, columns: Tensor) -> Tensor:
            if up is None:
                return masks[:, rows][:, :, columns]
            # mask = [up(z) > 0], at these pixels alone
            return up[rows] @ masks @ up[columns].T > 0

        down = [resampling(side, length, device) for length in grid]
        taps = [weights.any(0).nonzero()[:, 0] for weights in down]
        return cls(
            # floor(x T / w), what nearest resizing takes
            at(*(torch.arange(length, device=device) * side // length for length in grid)),
            at(*taps),
            (down[0][:, taps[0]], down[1][:, taps[1]]),
        )

    def soft(self, taps: Tensor) -> Tensor:
        """Masks, or unions of them, resized to (..., h w) in [0, 1] from their taps."""
        rows, columns = self.weights
        return (rows @ taps.float() @ columns.T).flatten(-2)


def clusters(cover: Tensor) -> Tensor:
    """Weakly connected components of the graph in which mask i points at what it covers.

    Args:
        cover: (n, n) bool: does mask i cover point j?

    Returns:
        (n,) int64: cluster of each point, numbered in the order of their first points.
    """
    count = len(cover)
    linked = cover | cover.T | torch.eye(count, dtype=torch.bool, device=cover.device)
    labels = torch.arange(count, device=cover.device)
    while True:  # each takes the lowest label among its neighbours, until nothing changes
        lower = torch.where(linked, labels, count).amin(1)
        lower = lower[lower]
        if torch.equal(lower, labels):
            return labels.unique(return_inverse=True)[1]
        labels = lower


def vote_foreground(soft: Tensor, labels: Tensor, maps: Maps) -> tuple[Tensor, Tensor]:
    """First vote ("positive-negative alignment"): does a mask add more object than background?

    Args:
        soft: (n, P) masks on the grid.
        labels: (n,) clusters.
        maps: of the query.

    Returns:
        (n,) bool; and (n,) float32 scores: what the last mask of its cluster would have added, for
        all masks of it, as published.
    """
    agreement = maps.agreement.flatten()
    region = (agreement > 0).float()
    merit = soft @ agreement / (soft.sum(1) + 1e-6)
    keep = torch.zeros(len(soft), dtype=torch.bool, device=soft.device)
    scores = torch.zeros_like(merit)
    for cluster in range(int(labels.max()) + 1):
        members = (labels == cluster).nonzero()[:, 0]
        taken = torch.zeros_like(agreement)
        for i in members[merit[members].argsort(descending=True)].tolist():
            rest = soft[i] * (1 - taken)
            positive, negative = region @ rest, (1 - region) @ rest
            if positive > negative:
                keep[i] = True
                taken += rest
        scores[members] = positive - negative
    return keep, scores


@dataclass(frozen=True)
class Consistency:
    """What the second vote looks at: (A, n), and its result (n,) bool."""

    distance: Tensor
    weighted: Tensor
    agrees: Tensor


def vote_consistency(
    unions: Tensor, labels: Tensor, grid: Tensor, width: int, cosines: Tensor
) -> tuple[Consistency, Tensor]:
    """Second vote ("point-mask clustering"): is a point most like its own cluster's mask?

    Args:
        unions: (A, P) union of each cluster's masks on the grid.
        labels: (n,) clusters of the points.
        grid: (n, 2) x, y of the points.
        width: w.
        cosines: (P, P) of the query with itself.

    Returns:
        The vote, and the similarity maps (A, P) of the unions.
    """
    maps = mean_map(cosines, unions)
    # dist(a, p) = min_q in a |p - q|, 0 counts as 1
    apart = (grid[:, None] - grid).square().sum(-1)
    member = labels == torch.arange(len(unions), device=labels.device)[:, None]
    far = int(apart.max()) + 1
    distance = torch.where(member[:, None], apart, far).amin(-1).clamp(min=1).float().sqrt()
    weighted = maps[:, grid[:, 1] * width + grid[:, 0]] / distance
    right = weighted.argmax(0) == labels
    # fewer than half of a cluster's points agree: none does
    agree, size = (member & right).sum(1), member.sum(1)
    agrees = right & (agree >= size - agree)[labels]
    return Consistency(distance, weighted, agrees), maps


def states(agrees: Tensor, keep: Tensor) -> Tensor:
    """(n,) int64: 1 with both votes, 2 with one, 0 with none."""
    return torch.where(agrees & keep, 1, torch.where(agrees | keep, 2, 0))


def last_resort(state: Tensor, scores: Tensor) -> Tensor:
    """The one mask that is taken where none has both votes: (n,) bool. Masks without a vote have
    score 0, so the first of them wins where all others score below."""
    only = torch.zeros_like(state, dtype=torch.bool)
    only[torch.where(state == 2, scores, 0).argmax()] = True
    return only


def union_logits(logits: Tensor, side: int) -> Tensor:
    """Largest logit of any mask, (T, T) of (n, l, l), a few masks at a time; the union of the masks
    is where it is > 0. Of no mask it is -inf."""
    best = logits.new_full((side, side), -torch.inf)
    for some in logits.split(max(1, _PIXELS // side**2)) if len(logits) else ():
        full = F.interpolate(some[:, None], (side, side), mode='bilinear', align_corners=False)
        best = torch.maximum(best, full.amax((0, 1)))
    return best
