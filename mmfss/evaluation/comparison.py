"""Two methods or more on the same episodes, compared pair by pair: pure functions.

Both methods have met the same query images with the same supports, so what they differ by is taken
image by image and varies far less than each figure alone: intervals of two methods may overlap
where their difference is sure. :class:`Compared` has for each scope (the mean over folds, a fold, a
class) the difference of mIoU with a paired bootstrap interval, and the p-value of a paired
permutation test, corrected by Holm for the number of pairs.

Units are those of :mod:`mmfss.evaluation.statistics`: the episodes of a class with one query image,
of all seeds. In the bootstrap all methods meet the same draws. In the permutation test the two
methods of a pair are exchanged in a random half of the units, as if both were the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from mmfss.evaluation.counts import EpisodeCounts
from mmfss.evaluation.report import Run
from mmfss.evaluation.statistics import LEVEL, RESAMPLES, SEED, Interval, unit_sums
from mmfss.words import listed

PERMUTATIONS = 9999
ALPHA = 0.05
_NOT_COMPARED = ('fold', 'seed', 'shots')  # of a protocol: they are what runs are paired by

Place = tuple[int, int, int]
"""Shots, fold, episode seed."""


@dataclass(frozen=True)
class Method:
    """What one method has reached.

    Args:
        name: What tables call it.
        trainings: Of each training (one where nothing is trained) its runs by place.
    """

    name: str
    trainings: tuple[Mapping[Place, Run], ...]

    @property
    def places(self) -> set[Place]:
        """What all its trainings were tested on."""
        return set.intersection(*(set(runs) for runs in self.trainings))


@dataclass(frozen=True)
class Difference:
    """Of a pair of methods, ``one`` less ``other``, in percent of IoU.

    Args:
        one, other: Names of the methods.
        shots: K.
        scope: 'mean', 'fold 2', or the name of a class.
        value: The difference.
        interval: Paired bootstrap interval of it.
        p: Of the permutation test, two-sided.
        corrected: The same after Holm's correction for all pairs of this scope and K.
    """

    one: str
    other: str
    shots: int
    scope: str
    value: float
    interval: Interval
    p: float
    corrected: float

    @property
    def sure(self) -> bool:
        """Whether the corrected p-value is below :data:`ALPHA`."""
        return self.corrected < ALPHA


@dataclass(frozen=True)
class Figures:
    """Of a method and K, in percent.

    Args:
        mean: mIoU, over folds, episode seeds and trainings.
        folds: ``{fold: mIoU}``, over seeds and trainings.
        classes: ``{fold: {class: IoU}}``, the same.
        of_episodes: Sample deviation over episode seeds of the mean over folds and trainings; None
            of one.
        of_trainings: The same over trainings, of the mean over folds and episode seeds.
    """

    mean: float
    folds: Mapping[int, float]
    classes: Mapping[int, Mapping[str, float]]
    of_episodes: float | None
    of_trainings: float | None


class Compared:
    """Methods compared on the episodes that all of them were tested on.

    Args:
        methods: Two or more, of different names.
        resamples, permutations: Of bootstrap and permutation test.
        seed: Of their draws.

    Raises:
        ValueError: Episodes, labels or protocols differ, or a method lacks runs that another has:
            it is said which.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        resamples: int = RESAMPLES,
        permutations: int = PERMUTATIONS,
        seed: int = SEED,
    ) -> None:
        names = [method.name for method in methods]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(
                f'a comparison needs two methods or more of different names, got {listed(names)}'
            )
        self.methods, self.names = tuple(methods), tuple(names)
        self.resamples, self.permutations, self.seed = resamples, permutations, seed
        self.places = sorted(_common_places(methods))
        for place in self.places:
            _check_alike(methods, place)
        self.shots = sorted({place[0] for place in self.places})
        self.folds = sorted({place[1] for place in self.places})
        self.seeds = sorted({place[2] for place in self.places})

    def figures(self, name: str, shots: int) -> Figures:
        """Of one method."""
        trainings = self.methods[self.names.index(name)].trainings
        table = np.array(
            [
                [
                    [runs[shots, fold, seed].metrics['mIoU'] for seed in self.seeds]
                    for fold in self.folds
                ]
                for runs in trainings
            ]
        )  # (trainings, folds, seeds)
        classes: dict[int, dict[str, float]] = {}
        for fold in self.folds:
            found: dict[str, list[float]] = {}
            for runs in trainings:
                for seed in self.seeds:
                    for key, value in runs[shots, fold, seed].metrics.items():
                        if key.startswith('IoU/'):
                            found.setdefault(key[4:], []).append(value)
            classes[fold] = {key: float(np.mean(values)) for key, values in found.items()}
        return Figures(
            float(table.mean()),
            {fold: float(table[:, i].mean()) for i, fold in enumerate(self.folds)},
            classes,
            _deviation(table.mean((0, 1))),
            _deviation(table.mean((1, 2))),
        )

    def cost(self, name: str, shots: int) -> Mapping[str, float]:
        """What an episode of a method costs, see :attr:`.report.Run.cost`; empty if not known."""
        runs = self.methods[self.names.index(name)].trainings[0]
        known = (runs[place].cost for place in self.places if place[0] == shots)
        return next((cost for cost in known if cost), {})

    def best(self, shots: int) -> str | None:
        """The method whose mean is surely above that of all others; None where there is none."""
        beaten: dict[str, set[str]] = {name: set() for name in self.names}
        for found in self.differences:
            if found.shots == shots and found.scope == 'mean' and found.sure:
                first, second = found.one, found.other
                beaten[first if found.value > 0 else second].add(
                    second if found.value > 0 else first
                )
        return next((n for n in self.names if len(beaten[n]) == len(self.names) - 1), None)

    @cached_property
    def differences(self) -> list[Difference]:
        """Of all pairs, by K and scope: the mean over folds first, then folds, then classes."""
        found = []
        for shots in self.shots:
            by_fold = [self._resampled(shots, fold) for fold in self.folds]
            scopes: list[tuple[str, list[Any]]] = [('mean', by_fold)]
            scopes += [(f'fold {fold}', [one]) for fold, one in zip(self.folds, by_fold)]
            for name, parts in scopes:
                found += self._pairs(shots, name, [part.fold for part in parts])
            for part in by_fold:
                for name, cells in part.classes.items():
                    found += self._pairs(shots, name, [cells])
        return found

    def _pairs(self, shots: int, scope: str, parts: Sequence[_Cells]) -> list[Difference]:
        """Differences of all pairs in the mean over some folds, or of a class."""
        values = np.mean([part.value for part in parts], axis=0)  # (methods,)
        draws = np.mean([part.draws for part in parts], axis=0)  # (resamples, methods)
        rows = []
        for number, (a, b) in enumerate(combinations(range(len(self.names)), 2)):
            swapped = np.mean([part.swapped[number] for part in parts], axis=0)
            observed = values[a] - values[b]
            # how often methods that are the same differ by as much: (b + 1) / (m + 1), Phipson and
            # Smyth 2010
            reached = np.abs(swapped) >= abs(observed) - 1e-9
            p = (1 + int(reached.sum())) / (1 + len(swapped))
            low, high = np.percentile(
                draws[:, a] - draws[:, b], [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
            )
            rows.append((a, b, float(observed), Interval(float(low), float(high)), p))
        corrected = holm([row[-1] for row in rows])
        return [
            Difference(self.names[a], self.names[b], shots, scope, value, interval, p, after)
            for (a, b, value, interval, p), after in zip(rows, corrected)
        ]

    def _resampled(self, shots: int, fold: int) -> _Fold:
        """Bootstrap and permutations of one fold."""
        size = math.lcm(*(len(method.trainings) for method in self.methods))
        columns = [  # method by method: seeds x trainings; fewer trainings are repeated
            [
                method.trainings[number % len(method.trainings)][shots, fold, seed]
                for seed in self.seeds
                for number in range(size)
            ]
            for method in self.methods
        ]
        first = columns[0][0]
        zero = first.protocol.get('absent_classes') == 'zero'
        classes = int(first.metrics['classes']) if zero else None
        units = _units(columns, [seed for seed in self.seeds for _ in range(size)])
        names = _class_names(first)
        rng = np.random.default_rng([self.seed, shots, fold])
        ious: dict[int, _Ious] = {}
        for class_id, sums in sorted(units.items()):
            ious[class_id] = _class_ious(sums, self.resamples, self.permutations, rng)
        return _Fold(
            _cells(list(ious.values()), classes),
            {names.get(c, f'class {c}'): _cells([one], None) for c, one in ious.items()},
        )


def holm(values: Sequence[float]) -> list[float]:
    """P-values after Holm's step-down correction (Holm 1979)."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, least = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = least
    return corrected


# ------------------------------------------------------------------------------ what is compared
def _common_places(methods: Sequence[Method]) -> set[Place]:
    """Shots, folds and seeds that all have; they must be the same, and a full table."""
    all_places = set().union(*(set(runs) for m in methods for runs in m.trainings))
    for method in methods:
        missing = sorted(all_places - method.places)
        if missing:
            said = [f'{k}-shot fold {fold} seed {seed}' for k, fold, seed in missing]
            raise ValueError(
                f'{method.name} was not tested on all that the others were: it lacks '
                f'{listed(said, 5)}; test it there, or compare a part with --shots, --folds, '
                '--seeds'
            )
    axes = [sorted({place[i] for place in all_places}) for i in range(3)]
    if len(all_places) != math.prod(map(len, axes)):
        raise ValueError(
            f'the results are no full table of shots {axes[0]}, folds {axes[1]}, seeds {axes[2]}; '
            'compare a part of them with --shots, --folds, --seeds'
        )
    return all_places


def _check_alike(methods: Sequence[Method], place: Place) -> None:
    """Refuse runs of other episodes, labels or protocols."""
    runs = [(method.name, training[place]) for method in methods for training in method.trainings]
    (first, one), *others = runs
    where = f'{place[0]}-shot, fold {place[1]}, seed {place[2]}'
    for name, other in others:
        what = _protocol_difference(one, other) or _episode_difference(one, other)
        if what:
            raise ValueError(
                f'{first} and {name} cannot be compared ({where}): {what}. Test both on the same '
                'episodes: with one benchmark, sampler, seed and data, or one file of frozen '
                'episodes (--episodes)'
            )


def _protocol_difference(one: Run, other: Run) -> str:
    if not one.protocol or not other.protocol:
        return ''  # a CSV has none: its episodes are compared
    keys = sorted({*one.protocol, *other.protocol} - {*_NOT_COMPARED})
    differ = [key for key in keys if one.protocol.get(key) != other.protocol.get(key)]
    said = [f'{k} {one.protocol.get(k)!r:.60} and {other.protocol.get(k)!r:.60}' for k in differ]
    return f'their protocols differ in {listed(said, 5)}' if differ else ''


def _episode_difference(one: Run, other: Run) -> str:
    rows, others = ({row.episode: row for row in run.counts} for run in (one, other))
    if not rows or not others:
        return 'a result has no episodes'
    if set(rows) != set(others):
        return f'they have {len(rows)} and {len(others)} episodes'

    def count(differs: Any) -> list[int]:
        return [number for number, row in rows.items() if differs(row, others[number])]

    for what, found in (
        ('other classes', count(lambda a, b: a.class_id != b.class_id)),
        ('other query images', count(lambda a, b: a.query != b.query)),
        (
            'other supports',
            count(lambda a, b: a.supports and b.supports and a.supports != b.supports),
        ),
        # union of the one and intersection of the other class are together all that is not ignored
        ('labels of other sizes or ignored pixels', count(lambda a, b: _pixels(a) != _pixels(b))),
    ):
        if found:
            return f'{len(found)} of {len(rows)} episodes have {what}, the first is {min(found)}'
    return ''


def _pixels(row: EpisodeCounts) -> int:
    return row.intersection[0] + row.union[1]


def _class_names(run: Run) -> dict[int, str]:
    """``{class id: name}``, as far as its figures tell: they are in the order of the ids."""
    names = [key[4:] for key in run.metrics if key.startswith('IoU/')]
    ids = sorted({row.class_id for row in run.counts if row.union[1]})
    return dict(zip(ids, names)) if len(ids) == len(names) else {}


# -------------------------------------------------------------------------------------- figures
@dataclass(frozen=True)
class _Ious:
    """IoU of a class in 0..1, nan where it has none: (methods, columns), of resamples
    (resamples, methods, columns), and of each pair with units exchanged
    (pairs, permutations, 2, columns)."""

    value: np.ndarray
    draws: np.ndarray
    swapped: np.ndarray


@dataclass(frozen=True)
class _Cells:
    """mIoU in percent: (methods,), (resamples, methods); differences (pairs, permutations)."""

    value: np.ndarray
    draws: np.ndarray
    swapped: np.ndarray


@dataclass(frozen=True)
class _Fold:
    fold: _Cells
    classes: Mapping[str, _Cells]


def _units(columns: Sequence[Sequence[Run]], seeds: Sequence[int]) -> dict[int, np.ndarray]:
    """``{class id: int64 (units, 2, methods, columns)}``, foreground intersections and unions."""
    flat = [run.counts for runs in columns for run in runs]
    found = unit_sums(flat, [*seeds] * len(columns))
    shape = (-1, 2, len(columns), len(seeds))
    stacked = {
        c: np.stack([of[unit] for unit in sorted(of, key=str)]).reshape(shape)
        for c, of in found.items()
    }
    return {c: sums for c, sums in stacked.items() if sums[:, 1].any()}


def _class_ious(
    sums: np.ndarray, resamples: int, permutations: int, rng: np.random.Generator
) -> _Ious:
    number, _, methods, columns = sums.shape
    flat = sums.reshape(number, -1).astype(np.float64)  # sums of pixels stay below 2**53
    drawn = rng.multinomial(number, np.full(number, 1 / number), size=resamples)
    boot = (drawn @ flat).reshape(resamples, 2, methods, columns)
    exchanged = rng.integers(0, 2, (permutations, number)).astype(np.float64)
    total = sums.sum(0).astype(np.float64)
    swapped = []
    for a, b in combinations(range(methods), 2):
        difference = (sums[:, :, b] - sums[:, :, a]).reshape(number, -1).astype(np.float64)
        moved = (exchanged @ difference).reshape(permutations, 2, columns)
        both = np.stack([total[:, a] + moved, total[:, b] - moved], axis=2)
        swapped.append(_iou(both[:, 0], both[:, 1]))
    return _Ious(_iou(total[0], total[1]), _iou(boot[:, 0], boot[:, 1]), np.array(swapped))


def _iou(inter: np.ndarray, union: np.ndarray) -> np.ndarray:
    with np.errstate(invalid='ignore', divide='ignore'):
        return inter / union


def _cells(classes: Sequence[_Ious], number: int | None) -> _Cells:
    """Means over classes, then over columns; ``number`` classes, absent ones as 0, or None: those
    that are there."""

    def mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
        stacked = np.stack(arrays)
        there = ~np.isnan(stacked)
        count = there.sum(0) if number is None else number
        with np.errstate(invalid='ignore', divide='ignore'):
            of_columns = np.nan_to_num(stacked).sum(0) / count
        return 100.0 * np.nanmean(of_columns, axis=-1)

    swapped = mean([one.swapped for one in classes])  # (pairs, permutations, 2)
    return _Cells(
        mean([one.value for one in classes]),
        mean([one.draws for one in classes]),
        swapped[..., 0] - swapped[..., 1],
    )


def _deviation(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None
