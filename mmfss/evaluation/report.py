"""The table of a paper from single evaluations: pure functions, no file is touched.

A :class:`Run` is one evaluation: one checkpoint, number of shots, fold and episode seed. A
:class:`Report` holds the runs of a command and makes of them rows (checkpoint x shots) of
figures per fold, their mean, its deviation over seeds and its bootstrap interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mmfss.evaluation.counts import EpisodeCounts
from mmfss.evaluation.statistics import (
    LEVEL,
    RESAMPLES,
    SEED,
    bootstrap_interval,
    mean_std,
)

ABSENT = 'mIoU (absent as 0)'
_COUNTS = ('episode', 'class_id', 'intersection_bg', 'intersection_fg', 'union_bg', 'union_fg')
#: entries of the protocol that belong to a run, not to the table
_OF_A_RUN = ('fold', 'seed', 'shots')


@dataclass(frozen=True)
class Run:
    """One evaluation.

    Args:
        label: Short name of its checkpoint pattern.
        shots, fold, seed: What was tested.
        metrics: Results of FewShotIoUMetric, in percent.
        left_out: Names of classes without an IoU, which the mean leaves out.
        protocol: What the dataset says of its episodes, and the metric's rule for classes
            without any under 'absent_classes'.
        checkpoint: Path, sha256, epoch, iter, trained_on, selection.
        settings: Digests of its config and of the user's code, see ``evaluation_plan.Job``.
        counts: Of its episodes, each once; empty on other processes than the main one.
        counted_zero: Names of classes without an IoU, which the mean counts as 0.
        cost: What an episode costs, see :func:`mmfss.engine.cost.episode_cost`; empty where it was
            not measured.
        runtimes: What ran each encoder, and under names that begin with 'light pass' the rest, see
            :class:`mmfss.encoders.runtimes.Runtimes`; empty of results without a model.
    """

    label: str
    shots: int
    fold: int
    seed: int
    metrics: Mapping[str, float]
    left_out: tuple[str, ...]
    protocol: Mapping[str, Any]
    checkpoint: Mapping[str, Any]
    settings: Mapping[str, Any]
    counts: tuple[EpisodeCounts, ...] = field(default=(), repr=False)
    counted_zero: tuple[str, ...] = ()
    cost: Mapping[str, float] = field(default_factory=dict)
    runtimes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int, int, int]:
        """What tells it from other runs of a report."""
        return self.label, self.shots, self.fold, self.seed

    def to_dict(self) -> dict[str, Any]:
        """Plain types. The counts are columns; queries are numbers of a list of paths, and
        support paths are left to the CSV."""
        queries = sorted({row.query for row in self.counts})
        number = {path: i for i, path in enumerate(queries)}
        values = [(r.episode, r.class_id, *r.intersection, *r.union) for r in self.counts]
        columns = [list(column) for column in zip(*values)] or [[] for _ in _COUNTS]
        episodes = dict(zip(_COUNTS, columns))
        return dict(
            checkpoint=self.label,
            shots=self.shots,
            fold=self.fold,
            seed=self.seed,
            metrics=dict(self.metrics),
            left_out=list(self.left_out),
            counted_zero=list(self.counted_zero),
            protocol=dict(self.protocol),
            checkpoint_file=dict(self.checkpoint),
            settings=self.settings,
            cost=dict(self.cost),
            runtimes={name: dict(found) for name, found in self.runtimes.items()},
            episodes=dict(**episodes, query=[number[r.query] for r in self.counts]),
            queries=queries,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Run:
        """The run that :meth:`to_dict` wrote; support paths are not kept."""
        columns = [data['episodes'][name] for name in (*_COUNTS, 'query')]
        counts = tuple(
            EpisodeCounts(i, c, (ib, ifg), (ub, ufg), data['queries'][q])
            for i, c, ib, ifg, ub, ufg, q in zip(*columns, strict=True)
        )
        return cls(
            label=data['checkpoint'],
            shots=data['shots'],
            fold=data['fold'],
            seed=data['seed'],
            metrics={k: float('nan') if v is None else v for k, v in data['metrics'].items()},
            left_out=tuple(data['left_out']),
            protocol=data['protocol'],
            checkpoint=data['checkpoint_file'],
            settings=data['settings'],
            counts=counts,
            counted_zero=tuple(data['counted_zero']),
            cost=data['cost'],
            runtimes=data['runtimes'],
        )


@dataclass
class Report:
    """What a command tested.

    Args:
        header: Benchmark, its number of folds (folds_in_all), config, overrides, environment: plain
            types, written as they are.
        labels: Short name -> pattern of each checkpoint, in the order of the rows.
        shots, folds, seeds: What the table is of, in its order.
        runs: The finished ones, in any order.
    """

    header: Mapping[str, Any]
    labels: Mapping[str, str]
    shots: Sequence[int]
    folds: Sequence[int]
    seeds: Sequence[int]
    runs: list[Run] = field(default_factory=list)
    _finished: dict[tuple[str, int], Row] = field(default_factory=dict, repr=False, init=False)

    @property
    def planned(self) -> int:
        """Number of runs of the whole table."""
        return len(self.labels) * len(self.shots) * len(self.folds) * len(self.seeds)

    def row(self, label: str, shots: int) -> Row:
        """The row of a checkpoint and a number of shots."""
        if (label, shots) in self._finished:  # with its interval, which takes a moment
            return self._finished[label, shots]
        mine = {(r.fold, r.seed): r for r in self.runs if (r.label, r.shots) == (label, shots)}
        row = Row(label, shots, tuple(self.folds), tuple(self.seeds), mine)
        if row.finished:
            self._finished[label, shots] = row
        return row

    def rows(self) -> list[Row]:
        """All rows, shots first."""
        return [self.row(label, shots) for shots in self.shots for label in self.labels]

    def protocol(self) -> dict[str, Any]:
        """What the protocols of all runs have in common."""
        first, *others = [run.protocol for run in self.runs] or [{}]
        return {
            key: value
            for key, value in first.items()
            if key not in _OF_A_RUN and all(other.get(key) == value for other in others)
        }

    def checkpoints(self) -> list[dict[str, Any]]:
        """File, checksum and selection of each checkpoint and fold that was tested."""
        files = {(run.label, run.fold): run.checkpoint for run in self.runs}
        order = [(label, fold) for label in self.labels for fold in self.folds]
        return [
            dict(checkpoint=label, fold=fold, **files[label, fold])
            for label, fold in order
            if (label, fold) in files
        ]

    def to_dict(self) -> dict[str, Any]:
        """All of it in plain types, no number rounded; 'runs' last, they are long."""
        return dict(
            **self.header,
            shots=list(self.shots),
            folds=list(self.folds),
            seeds=list(self.seeds),
            finished=f'{len(self.runs)} of {self.planned} runs',
            protocol=self.protocol(),
            statistics=STATISTICS,
            patterns=dict(self.labels),
            checkpoints=self.checkpoints(),
            rows=[row.to_dict() for row in self.rows()],
            runs=[run.to_dict() for run in self.runs],
        )


#: how std and interval are made
STATISTICS: dict[str, Any] = dict(
    std='sample standard deviation (n - 1) over seeds of the mean over folds',
    interval=f'{100 * LEVEL:g} % percentile bootstrap of the mean over folds and seeds',
    unit='the episodes of a class with one query image, of all seeds; folds are independent',
    resamples=RESAMPLES,
    seed=SEED,
)


@dataclass(frozen=True)
class Row:
    """Figures of one checkpoint pattern and number of shots.

    Args:
        label, shots: What the row is of.
        folds, seeds: What it is to hold.
        runs: ``{(fold, seed): run}``, the finished ones.
    """

    label: str
    shots: int
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    runs: Mapping[tuple[int, int], Run]

    @property
    def finished(self) -> bool:
        """Whether all folds and seeds are there."""
        return len(self.runs) == len(self.folds) * len(self.seeds)

    def fold(self, fold: int) -> list[Run]:
        """Runs of a fold in the order of the seeds; empty unless all of them are there."""
        runs = [self.runs[fold, seed] for seed in self.seeds if (fold, seed) in self.runs]
        return runs if len(runs) == len(self.seeds) else []

    def fold_mean(self, fold: int, name: str = 'mIoU') -> float | None:
        """Mean over seeds of a figure; None while a seed is missing."""
        runs = self.fold(fold)
        return mean_std(figure(run, name) for run in runs)[0] if runs else None

    def mean(self, name: str = 'mIoU') -> tuple[float | None, float | None]:
        """Mean over folds and seeds of a figure, and its deviation over seeds."""
        if not self.finished:
            return None, None
        return mean_std(
            float(np.mean([figure(self.runs[fold, seed], name) for fold in self.folds]))
            for seed in self.seeds
        )

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Bootstrap interval of the mean of mIoU; None where it is unfinished or the counts
        are on another process."""
        folds = [[run.counts for run in self.fold(fold)] for fold in self.folds]
        if not self.finished or not all(counts for fold in folds for counts in fold):
            return None
        first = [self.fold(fold)[0] for fold in self.folds]
        zero = all(run.protocol.get('absent_classes') == 'zero' for run in first)
        classes = [int(run.metrics['classes']) for run in first] if zero else None
        found = bootstrap_interval(folds, classes=classes)
        return found.low, found.high

    @property
    def left_out(self) -> dict[int, list[str]]:
        """Classes of each fold that some seed had no episode of and its mean leaves out."""
        return self._classes(lambda run: run.left_out)

    @property
    def counted_zero(self) -> dict[int, list[str]]:
        """Classes of each fold that some seed had no episode of and its mean counts as 0."""
        return self._classes(lambda run: run.counted_zero)

    def _classes(self, of: Callable[[Run], tuple[str, ...]]) -> dict[int, list[str]]:
        names = {
            fold: sorted({name for run in self.fold(fold) for name in of(run)})
            for fold in self.folds
        }
        return {fold: classes for fold, classes in names.items() if classes}

    def selections(self) -> list[Any]:
        """How the checkpoints were chosen, as far as their files say."""
        found = {run.fold: run.checkpoint.get('selection') for run in self.runs.values()}
        return [found[fold] for fold in self.folds if found.get(fold)]

    def to_dict(self) -> dict[str, Any]:
        """Plain types; None where runs are missing."""
        mean, std = self.mean()
        row: dict[str, Any] = dict(checkpoint=self.label, shots=self.shots, mIoU=mean, std=std)
        row['interval'] = None if self.interval is None else list(self.interval)
        row['FB-IoU'] = self.mean('FB-IoU')[0]
        if self.left_out:
            row[ABSENT] = self.mean(ABSENT)[0]
        row['folds'] = [self._fold_dict(fold) for fold in self.folds]
        return row

    def _fold_dict(self, fold: int) -> dict[str, Any]:
        runs = self.fold(fold)
        per_class: dict[str, list[float]] = {}
        for run in runs:
            for name, value in run.metrics.items():
                if name.startswith('IoU/'):
                    per_class.setdefault(name[4:], []).append(value)
        figures = {
            'fold': fold,
            'mIoU': self.fold_mean(fold),
            'FB-IoU': self.fold_mean(fold, 'FB-IoU'),
            'mIoU of seeds': [figure(run, 'mIoU') for run in runs],
            'classes': {name: mean_std(values)[0] for name, values in per_class.items()},
            'left_out': self.left_out.get(fold, []),
            'counted_zero': self.counted_zero.get(fold, []),
        }
        if self.left_out:
            figures[ABSENT] = self.fold_mean(fold, ABSENT)
        return figures


def figure(run: Run, name: str) -> float:
    """A result of a run. Where no class was left out, the mean with absent classes as 0 is mIoU."""
    if name == ABSENT and name not in run.metrics:
        name = 'mIoU'
    return float(run.metrics[name])
