"""Mean, deviation over seeds and bootstrap intervals of mIoU: pure functions.

What each says. The standard deviation over episode seeds is how far the figure moves when other
episodes are drawn from the same test images. The bootstrap interval is how far it would move
with other test images of the same kind: the query images are resampled. Neither says anything
of another training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mmfss.evaluation.counts import EpisodeCounts

RESAMPLES, LEVEL, SEED = 2000, 0.95, 0
_AT_A_TIME = 4_000_000  # numbers that are held at once


def mean_std(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1 below the line), which one value has none of.

    Raises:
        ValueError: No value.
    """
    array = np.array(list(values), np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f'mean_std needs a list of at least one number, got {array.tolist()}')
    return float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else None


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval, in percent of IoU."""

    low: float
    high: float


def bootstrap_interval(
    folds: Sequence[Sequence[Sequence[EpisodeCounts]]],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = SEED,
    classes: Sequence[int] | None = None,
) -> Interval:
    """Interval of the mean over folds of the mean over seeds of mIoU.

    All episodes with one query image, of all seeds, are one unit, since they are not
    independent: lists of fewer images than episodes are walked several times, and other seeds
    walk the same list. Units are drawn with replacement within each class, as many as the class
    has, so that every class stays present; folds are drawn independently. Each resample gives a
    figure by the sums that the metric takes, and the interval holds the middle ``level`` of
    them. The draws depend on ``seed`` and the number of the fold alone, so two models on the
    same episodes meet the same draws.

    Args:
        folds: For each fold, for each seed, the counts of its episodes, each once. Episodes
            without a query path count as of different images. Those without a foreground pixel
            in prediction and truth are left out, as they have no part in the figure.
        resamples: Number of resamples, >= 1.
        level: Share of them within the interval, between 0 and 1.
        seed: Seed of the draws, >= 0.
        classes: For each fold, how many classes its mean is of, those without an episode
            included, which count as 0; None takes the mean of those with episodes.

    Raises:
        ValueError: An argument out of range, or a fold or seed without episodes.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f'resamples must be >= 1 and level between 0 and 1, got {resamples} and {level}'
        )
    if not folds or not all(folds) or not all(seed_ for fold in folds for seed_ in fold):
        raise ValueError('an interval needs at least one episode of every fold and seed')
    sizes = [None] * len(folds) if classes is None else classes
    figures = np.mean(
        [
            resampled_miou(fold, resamples, np.random.default_rng([seed, number]), size)
            for number, (fold, size) in enumerate(zip(folds, sizes, strict=True))
        ],
        axis=0,
    )
    low, high = np.percentile(figures, [50 * (1 - level), 50 * (1 + level)])
    return Interval(float(low), float(high))


def resampled_miou(
    seeds: Sequence[Sequence[EpisodeCounts]],
    resamples: int,
    rng: np.random.Generator,
    classes: int | None = None,
) -> np.ndarray:
    """mIoU in percent, mean over seeds, of each resample of a fold: float64 (resamples,).

    A class whose drawn images have no episode under some seed is left out of that seed's mean;
    this happens where images are very few. With ``classes`` the mean is of that many, and such a
    class counts as 0 in it.
    """
    shown = [[row for row in rows if row.union[1]] for rows in seeds]
    units = unit_sums(shown, range(len(seeds)))
    total = np.zeros((resamples, len(seeds)))
    present = np.zeros((resamples, len(seeds)), np.int64)
    for _, of_class in sorted(units.items()):
        ious = _resampled_iou(np.stack(list(of_class.values())), resamples, rng)
        present += ~np.isnan(ious)
        total += np.nan_to_num(ious)
    if not present.any():
        raise ValueError('no episode has a foreground pixel in prediction or truth')
    if classes is not None:
        if present.max() > classes:
            raise ValueError(f'episodes of {present.max()} classes, but classes={classes}')
        return (100.0 * total / classes).mean(axis=1)
    with np.errstate(invalid='ignore', divide='ignore'):
        return np.nanmean(100.0 * total / present, axis=1)


def unit_sums(
    columns: Sequence[Iterable[EpisodeCounts]], seeds: Sequence[int]
) -> dict[int, dict[object, np.ndarray]]:
    """Foreground intersections and unions of what is resampled: all episodes of a class with one
    query image; one whose query is not known is a unit of its own.

    Args:
        columns: episodes of an evaluation each.
        seeds: of the columns, which tell apart episodes whose query is not known.

    Returns:
        ``{class id: {unit: int64 (2, columns)}}``.
    """
    units: dict[int, dict[object, np.ndarray]] = {}
    for number, (rows, seed) in enumerate(zip(columns, seeds, strict=True)):
        for row in rows:
            of_class = units.setdefault(row.class_id, {})
            unit = row.query or (seed, row.episode)
            sums = of_class.setdefault(unit, np.zeros((2, len(columns)), np.int64))
            sums[:, number] += (row.intersection[1], row.union[1])
    return units


def _resampled_iou(sums: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """IoU in 0..1 of each resample of one class, (resamples, seeds); nan where there is none.

    Args:
        sums: int64 (units, 2, seeds), intersection and union.
    """
    number, inter, union = len(sums), sums[:, 0], sums[:, 1]
    ious = np.empty((resamples, inter.shape[1]))
    step = max(1, _AT_A_TIME // inter.size)
    for start in range(0, resamples, step):
        draws = rng.integers(number, size=(min(step, resamples - start), number))
        with np.errstate(invalid='ignore'):
            ious[start : start + step] = inter[draws].sum(1) / union[draws].sum(1)
    return ious
