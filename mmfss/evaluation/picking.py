"""Which episodes of a test a picture shows: by figures, numbers or classes. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmfss.evaluation.counts import EpisodeCounts, each_once
from mmfss.words import listed

KINDS = ('worst', 'best', 'median', 'differ', 'number', 'class')
RANKED = KINDS[:4]
_FORMS = 'worst:N, best:N, median:N, differ:N, number:3,17 or class:NAME:N'


@dataclass(frozen=True)
class Pick:
    """One wish.

    Args:
        kind: One of :data:`KINDS`.
        count: How many episodes; 0 where ``numbers`` says which.
        numbers: Of the episodes, for 'number'.
        name: Of the class, for 'class'.
    """

    kind: str
    count: int = 0
    numbers: tuple[int, ...] = ()
    name: str = ''


def read_pick(text: str) -> Pick:
    """``worst:12`` and the like.

    Raises:
        ValueError: It is of no known form.
    """
    kind, _, rest = text.partition(':')
    name, _, number = rest.rpartition(':') if kind == 'class' else ('', '', rest)
    numbers = tuple(number.split(',')) if kind == 'number' else (number,)
    fits = all(one.isascii() and one.isdecimal() for one in numbers)
    if kind in KINDS and fits and (kind != 'class' or name):
        if kind == 'number':
            return Pick(kind, numbers=tuple(dict.fromkeys(map(int, numbers))))
        if int(number) >= 1:
            return Pick(kind, int(number), name=name)
    raise ValueError(f'--pick must be {_FORMS}, with N >= 1, got {text!r}')


def iou_of(counts: EpisodeCounts) -> float:
    """IoU of the foreground in percent; nan where neither prediction nor truth has any."""
    return 100.0 * counts.intersection[1] / counts.union[1] if counts.union[1] else float('nan')


def check_picks(
    picks: Sequence[Pick],
    classes: Sequence[int],
    methods: Sequence[str],
    name_of: Callable[[int], str],
) -> None:
    """Whether the wishes can be met, as far as that is known before a test.

    Args:
        picks, classes, name_of: As for :func:`picked`.
        methods: Names of those that are compared.

    Raises:
        ValueError: No episode of a number or class, or 'differ' of one method.
    """
    known = dict.fromkeys(map(name_of, classes))
    for pick in picks:
        beyond = [number for number in pick.numbers if number >= len(classes)]
        if beyond:
            raise ValueError(
                f'--pick number: there are episodes 0..{len(classes) - 1}, got {listed(beyond)}'
            )
        if pick.kind == 'class' and pick.name not in known:
            raise ValueError(
                f'--pick class: no episode is of {pick.name!r}; they are of {listed(known)}'
            )
        if pick.kind == 'differ' and len(methods) < 2:
            raise ValueError(
                f'--pick differ needs two methods or more, got {listed(methods) or "none"}'
            )


def picked(
    picks: Sequence[Pick],
    classes: Sequence[int],
    results: Mapping[str, Sequence[EpisodeCounts]],
    name_of: Callable[[int], str],
) -> list[int]:
    """Numbers of the episodes that are wished for, in the order of the wishes, each once.

    'worst', 'best' and 'median' (those nearest to it) go by the IoU of the first method, 'differ'
    by the distance between the best and the worst of all methods, the largest first. Of equal
    ones the lower number comes first. Episodes in which neither truth nor prediction has an object
    have no IoU and no rank. 'class' takes the first episodes of the class.

    Args:
        picks: Wishes.
        classes: Class id of each episode, 0 .. len - 1.
        results: Of each method, on these episodes; may be empty where no wish is ranked.
        name_of: Name of a class id.

    Raises:
        ValueError: see :func:`check_picks`; there are fewer episodes than wished for; methods that
            were tested on other episodes.
    """
    check_picks(picks, classes, list(results), name_of)
    order: list[int] = []
    for pick in picks:
        if pick.kind == 'number':
            found = list(pick.numbers)
        elif pick.kind == 'class':
            found = [i for i, class_id in enumerate(classes) if name_of(class_id) == pick.name]
        else:
            found = _ranked(pick.kind, classes, results)
        if len(found) < pick.count:
            name = f':{pick.name}' * bool(pick.name)
            raise ValueError(
                f'--pick {pick.kind}{name}:{pick.count}: there are {len(found)} such episodes; '
                'lower it, or test more (--episodes)'
            )
        order += found[: pick.count] if pick.count else found
    return list(dict.fromkeys(order))


def _ranked(
    kind: str, classes: Sequence[int], results: Mapping[str, Sequence[EpisodeCounts]]
) -> list[int]:
    """All episodes that have a rank, the first one first."""
    rows = {name: each_once(counts) for name, counts in results.items()}
    for name, counts in rows.items():
        if [(row.episode, row.class_id) for row in counts] != list(enumerate(classes)):
            raise ValueError(
                f'the result of {name} is of other episodes than those that are drawn: '
                f'{len(counts)} of {len(classes)}, or of other classes; test it again'
            )
    queries = {tuple(row.query for row in counts) for counts in rows.values()}
    if len(queries) > 1:
        raise ValueError(
            f'{listed(list(rows))} were tested on other query images: give all of them the same '
            'benchmark, fold, shots, seed and sampler'
        )
    ious = np.array([[iou_of(row) for row in counts] for counts in rows.values()])
    if kind == 'differ':
        figure = -(ious.max(0) - ious.min(0))  # nan where one of them is
    else:
        figure = ious[0]
        if kind == 'best':
            figure = -figure
        elif kind == 'median':
            figure = abs(figure - np.nanmedian(figure)) if np.isfinite(figure).any() else figure
    ranked = np.argsort(figure, kind='stable')  # nan last
    return [int(i) for i in ranked if np.isfinite(figure[i])]
