"""Which episodes are picked for a picture."""

from __future__ import annotations

import pytest

from mmfss.evaluation.counts import EpisodeCounts
from mmfss.evaluation.picking import Pick, picked, read_pick

CLASSES = [1, 2, 1, 2, 1]
NAMES = {1: 'cat', 2: 'traffic:light'}.get


def counts(*ious: float | None, query: str = 'q') -> list[EpisodeCounts]:
    """Episodes of these IoUs; None is one without an object in truth and prediction."""
    return [
        EpisodeCounts(i, CLASSES[i], (9, 0 if iou is None else iou), (9, 0 if iou is None else 100),
                      f'{query}{i}')
        for i, iou in enumerate(ious)
    ]  # fmt: skip


A, B = counts(50, 10, 90, 10, 70), counts(50, 30, 20, 0, 75)


@pytest.mark.parametrize(
    'picks, numbers',
    [
        (['worst:2'], [1, 3]),  # equal ones by number
        (['best:2'], [2, 4]),
        (['median:2'], [0, 4]),
        (['differ:2'], [2, 1]),  # by 70 and 20
        (['number:4,0,4'], [4, 0]),
        (['class:traffic:light:1'], [1]),
        (['class:cat:3'], [0, 2, 4]),
        (['best:1', 'number:1,2', 'worst:1'], [2, 1]),
    ],
)
def test_picks(picks, numbers):
    found = picked([read_pick(text) for text in picks], CLASSES, {'a': A, 'b': B}, NAMES)
    assert found == numbers


def test_the_first_method_ranks_and_repeats_of_an_episode_count_once():
    swapped = {'b': [*B, B[0]], 'a': A}
    assert picked([Pick('worst', 1)], CLASSES, swapped, NAMES) == [3]


def test_episodes_without_an_iou_have_no_rank():
    one = {'a': counts(50, None, 90, 10, None)}
    for kind in ('worst', 'best', 'median'):
        assert set(picked([Pick(kind, 3)], CLASSES, one, NAMES)) == {0, 2, 3}
    with pytest.raises(ValueError, match='--pick best:4: there are 3 such episodes; lower it, or'):
        picked([Pick('best', 4)], CLASSES, one, NAMES)


@pytest.mark.parametrize(
    'text',
    ['worst', 'worst:', 'worst:0', 'worst:-1', 'worst:two', 'finest:3', 'number:', 'number:1,x',
     'class:3', 'class::3', 'class:cat', 'number:²'],
)  # fmt: skip
def test_other_forms_are_refused(text):
    message = r'--pick must be worst:N, best:N, median:N, differ:N, number:3,17 or class:NAME:N'
    with pytest.raises(ValueError, match=message):
        read_pick(text)


@pytest.mark.parametrize(
    'pick, results, message',
    [
        ('number:5', {}, r'there are episodes 0\.\.4, got 5'),
        ('class:dog:1', {}, "no episode is of 'dog'; they are of cat, traffic:light"),
        ('class:cat:4', {}, 'class:cat:4: there are 3 such episodes'),
        ('differ:1', {'a': A}, 'differ needs two methods or more, got a'),
        ('worst:1', {'a': A[:4]}, 'the result of a is of other episodes than those that are drawn'),
        ('worst:1', {'a': A, 'b': counts(1, 2, 3, 4, 5, query='r')}, 'a, b were tested on other q'),
    ],
)
def test_what_cannot_be_picked(pick, results, message):
    with pytest.raises(ValueError, match=message):
        picked([read_pick(pick)], CLASSES, results, NAMES)
