"""The steps of INSID3 as functions of features and masks.

Shapes: K shots, S image side, (h, w) the grid of patches, n = h w, C channels, R of them without
position, G segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor

SIMILARITIES = 2**22
"""Inner products that are held at once while patches are matched: 16 MiB."""


@dataclass(frozen=True)
class Growth:
    """Which of G segments are the object.

    Attributes:
        seed: the segment that it starts from.
        cross: (G,) mean similarity of a segment's patches with the prototype.
        intra: (G,) similarity of a segment with the seed, in features with position.
        area: (G,) share of candidates among a segment's patches; 1 for the seed.
        kept: (G,) bool, score > threshold.
    """

    seed: int
    cross: Tensor
    intra: Tensor
    area: Tensor
    kept: Tensor

    @property
    def score(self) -> Tensor:
        """(G,) ``cross intra area``."""
        return self.cross * self.intra * self.area


def without_position(black: Tensor, components: int) -> Tensor:
    """What a black image says about places, taken out of the space of features.

    Args:
        black: (C, h, w) map of a black image.
        components: r, how many directions are taken out; min(r, h w) are.

    Returns:
        (C, R) float32 orthonormal columns W, R = C - min(r, h w): ``W W^T = I - U U^T``.

    Raises:
        ValueError: r >= C.
    """
    channels = len(black)
    if components >= channels:
        raise ValueError(
            f'INSID3.svd_components must be below the {channels} channels of the encoder, got '
            f'{components}: with so many directions taken out nothing but rounding is left. '
            'Published are 500 of 1024 (ViT-L) and 20 of 768 (ViT-B, key points)'
        )
    x = F.normalize(black.double().flatten(1), dim=0, eps=1e-12)
    x = x - x.mean(1, keepdim=True)
    # U = the first r left singular vectors of X; W = the others, by X X^T, ascending
    _, vectors = torch.linalg.eigh(x @ x.T)
    return vectors[:, : channels - min(components, x.shape[1])].float()


def grid_masks(masks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Masks on the grid of patches.

    Bilinear without antialias, > 1/2: of a patch of 16 pixels the four in its middle are read, and
    three must be object. An object that vanishes so is looked for at one pixel of each patch; if it
    vanishes again, the patch at its centre stands for it.

    Args:
        masks: (M, S, S) bool.
        size: (h, w).

    Returns:
        (M, h, w) bool, and (M,) bool, which of them had vanished. An empty mask stays empty.
    """
    soft = masks.float()[:, None]
    grid = F.interpolate(soft, size, mode='bilinear', align_corners=False)[:, 0] > 0.5
    vanished = masks.flatten(1).any(1) & ~grid.flatten(1).any(1)
    for i in vanished.nonzero()[:, 0].tolist():
        grid[i] = F.interpolate(soft[i : i + 1], size, mode='nearest')[0, 0] > 0.5
        if not grid[i].any():
            centre = masks[i].nonzero().float().mean(0).tolist()
            # floor(mean / 16) for patches of 16 pixels
            row, column = (int(x / (s / n)) for x, s, n in zip(centre, masks.shape[1:], size))
            grid[i, row, column] = True
    return grid, vanished


def forward_candidates(similarity: Tensor) -> Tensor:
    """Patches (n,) bool that are like the prototype: ``a > 0``; where none is, the upper tenth."""
    found = similarity > 0
    return found if found.any() else similarity > torch.quantile(similarity, 0.9)


def backward_votes(query: Tensor, free: Tensor, grid: Tensor) -> Tensor:
    """In how many supports the patch that is nearest to a query's lies in the object.

    Args:
        query: (m, R) unit features of patches.
        free: (K, n, R) unit features of the supports.
        grid: (K, h, w) bool.

    Returns:
        (m,) int32 from 0 to K; of patches equally near the first counts.
    """
    votes = torch.zeros(len(query), dtype=torch.int32, device=query.device)
    step = max(1, SIMILARITIES // free.shape[1])
    for support, inside in zip(free, grid.flatten(1)):
        for start in range(0, len(query), step):
            nearest = (query[start : start + step] @ support.T).argmax(1)
            votes[start : start + step] += inside[nearest].int()
    return votes


def nearest_similarity(query: Tensor, marked: Tensor) -> Tensor:
    """(m,) largest inner product of ``query`` (m, R) with any of ``marked`` (p, R), p > 0."""
    step = max(1, SIMILARITIES // len(marked))
    return torch.cat([(rows @ marked.T).amax(1) for rows in query.split(step)])


def average_linkage(x: Tensor, tau: float) -> Tensor:
    """Segments of an image: agglomerative clustering with average linkage, wherever patches are.

    Args:
        x: (n, C) unit features.
        tau: clusters join while the mean similarity of their patches is above it.

    Returns:
        (n,) int64 on the device of ``x``, labels from 0 on.
    """
    count = len(x)
    if count < 2:
        return torch.zeros(count, dtype=torch.int64, device=x.device)
    # d_ij = 1 - clamp(<x_i, x_j>, -1, 1), i < j: row by row as scipy takes it, so that neither
    # the whole matrix nor its float64 is ever held
    distances, at = np.empty(count * (count - 1) // 2), 0
    for start in range(0, count, 256):
        block = (1 - (x[start : start + 256] @ x[start:].T).clamp(-1, 1)).cpu().numpy()
        for i, row in enumerate(block):
            stop = at + len(row) - i - 1
            distances[at:stop] = row[i + 1 :]
            at = stop
    # clusters at a linkage of 1 - tau stay apart; fcluster joins those at its bound
    bound = np.nextafter(1 - tau, -1)
    labels = fcluster(linkage(distances, 'average'), bound, 'distance')
    return torch.from_numpy(labels.astype(np.int64) - 1).to(x.device)


def grow(
    similarity: Tensor,
    candidates: Tensor,
    segments: Tensor,
    plain: Tensor,
    free: Tensor,
    prototype: Tensor,
    threshold: float,
) -> Growth:
    """Start from the segment that is most like the prototype, take those that go with it.

    Args:
        similarity: (n,) of the patches with the prototype.
        candidates: (n,) bool, at least one.
        segments: (n,) int64 from 0 on.
        plain, free: (n, C), (n, R) unit features.
        prototype: (R,).
        threshold: of the scores; the seed must pass it too.
    """
    number = int(segments.max()) + 1

    def mean(values: Tensor) -> Tensor:
        total = values.new_zeros(number, *values.shape[1:]).index_add_(0, segments, values)
        return total / count.reshape(-1, *[1] * (values.ndim - 1))

    count = torch.bincount(segments, minlength=number).float()
    area = mean(candidates.float())
    # d_k = unit(mean f_d), o_k = unit(mean f); seed = argmax <d_k, p> of those with a candidate
    nearness = F.normalize(mean(free), dim=1, eps=1e-12) @ prototype
    seed = int(nearness.masked_fill(area == 0, -torch.inf).argmax())
    whole = F.normalize(mean(plain), dim=1, eps=1e-12)
    area[seed] = 1
    found = Growth(seed, mean(similarity), whole @ whole[seed], area, area > 0)
    return Growth(seed, found.cross, found.intra, area, found.score > threshold)


def match_points(
    points: Tensor,
    support: Tensor,
    query: Tensor,
    support_size: tuple[int, int],
    query_size: tuple[int, int],
    spread: float = 7.0,
    temperature: float = 0.04,
) -> Tensor:
    """Where the points of one photo are in another.

    Args:
        points: (P, 2) x, y in pixels of the support.
        support, query: (h, w, C) unit features.
        support_size, query_size: (height, width) of the photos.
        spread: standard deviation in cells of the Gaussian around the most similar cell.
        temperature: of the softmax over all cells.

    Returns:
        (P, 2) x, y in pixels of the query.
    """
    height, width = query.shape[:2]
    rows, columns = support.shape[:2]
    scale = points.new_tensor([columns / support_size[1], rows / support_size[0]])
    # round: halves to even
    x, y = (points * scale).round().long().unbind(1)
    chosen = support[y.clamp(0, rows - 1), x.clamp(0, columns - 1)]
    similarity = chosen @ query.flatten(0, 1).T
    grid = torch.stack(
        torch.meshgrid(*(torch.arange(k, device=query.device) for k in (width, height)),
                       indexing='xy'), -1
    ).flatten(0, 1).float()  # fmt: skip
    # softmax(s exp(-|g - g*|^2 / (2 sigma^2)) / t), and its mean place
    away = (grid - grid[similarity.argmax(1)][:, None]).square().sum(-1)
    weights = (similarity * (-away / (2 * spread**2)).exp() / temperature).softmax(1)
    return weights @ grid * grid.new_tensor([query_size[1] / width, query_size[0] / height])
