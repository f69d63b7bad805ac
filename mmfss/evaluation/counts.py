"""Exact pixel counts of episodes, and mIoU and FB-IoU from them: pure functions.

[bg, fg] pairs are int64 arrays (2,): background first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

IGNORE = 255


@dataclass(frozen=True)
class EpisodeCounts:
    """What one episode adds to the metric.

    Args:
        episode: Number of the episode.
        class_id: Label value of its class.
        intersection: Pixels that are [bg, fg] in both prediction and truth.
        union: Pixels that are [bg, fg] in either.
        query: Path of the query image, '' where it is not known.
        supports: Paths of the support images.
    """

    episode: int
    class_id: int
    intersection: tuple[int, int]
    union: tuple[int, int]
    query: str = ''
    supports: tuple[str, ...] = ()


def count_episode(pred: np.ndarray, truth: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """Intersection and union of background and foreground, ignored pixels left out.

    Args:
        pred: (h, w), values 0 and 1.
        truth: (h, w), values 0, 1 and 255 (ignored).

    Returns:
        ([bg, fg] intersection, [bg, fg] union) as exact integers.

    Raises:
        ValueError: Shapes differ, or other values.
    """
    if pred.ndim != 2 or pred.shape != truth.shape:
        raise ValueError(
            f'prediction and truth must be of one (h, w), got {pred.shape} and '
            f'{truth.shape}; resize the logits to the size of the label first'
        )
    one, other = (pred == 1), (truth == 1)
    if not (one | (pred == 0)).all():
        raise ValueError(
            f'a prediction may hold 0 and 1, got {_values(pred)}; threshold the '
            'probabilities at 0.5'
        )
    zero = truth == 0
    if not (other | zero | (truth == IGNORE)).all():
        raise ValueError(
            f'a truth mask may hold 0, 1 and {IGNORE}, got {_values(truth)}; '
            'binarise the label for the class of the episode'
        )
    both_fg = int(np.count_nonzero(one & other))
    false_fg = int(np.count_nonzero(one & zero))
    missed = int(np.count_nonzero(other)) - both_fg
    both_bg = int(np.count_nonzero(zero)) - false_fg
    wrong = false_fg + missed
    return (both_bg, both_fg), (both_bg + wrong, both_fg + wrong)


def _values(array: np.ndarray, limit: int = 8) -> list:
    return np.unique(array)[:limit].tolist()


def each_once(counts: Iterable[EpisodeCounts]) -> list[EpisodeCounts]:
    """Each episode number once (the first of its rows), in ascending order."""
    rows: dict[int, EpisodeCounts] = {}
    for row in counts:
        rows.setdefault(row.episode, row)
    return [rows[number] for number in sorted(rows)]


def sum_per_class(counts: Iterable[EpisodeCounts]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """``{class id: ([bg, fg] intersection, [bg, fg] union)}``, each episode number once."""
    sums: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for row in each_once(counts):
        inter, union = sums.setdefault(row.class_id, (np.zeros(2, np.int64), np.zeros(2, np.int64)))
        inter += row.intersection
        union += row.union
    return sums


def few_shot_iou(sums: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> tuple[dict, float, float]:
    """Class IoUs, their mean, and FB-IoU, in percent.

    A class's IoU is that of its foreground summed over its episodes; FB-IoU is the mean of
    background and foreground IoU summed over all episodes. A class without a foreground
    pixel in prediction and truth has no IoU and is not among the results.

    Returns:
        ``{class id: IoU}``, mIoU, FB-IoU; the means are nan where there is nothing to average.
    """
    ious = {
        c: 100.0 * float(inter[1]) / float(union[1])
        for c, (inter, union) in sorted(sums.items())
        if union[1]
    }
    miou = float(np.mean(list(ious.values()))) if ious else float('nan')
    inter, union = (sum((pair[i] for pair in sums.values()), np.zeros(2, np.int64)) for i in (0, 1))
    with np.errstate(invalid='ignore', divide='ignore'):
        return ious, miou, float(100.0 * np.mean(inter / union))
