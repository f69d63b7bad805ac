"""mmfss.distributed: the work of one for all, and errors that reach all."""

from __future__ import annotations

import pytest
import torch.distributed as dist
from two_processes import in_two_processes

from mmfss.distributed import each, first, gathered


def outcome(share, function):
    """The result; kind and text of an error that a user can mend."""
    try:
        return share(function)
    except (ValueError, OSError) as error:
        return type(error).__name__, str(error)


def test_one_process_does_the_work_itself():
    assert (first(lambda: 1), each(lambda: 2), gathered(lambda: 3)) == (1, 2, [3])
    for share in (first, each, gathered):
        with pytest.raises(KeyError):
            share(lambda: {}['x'])


@pytest.mark.parametrize(
    ('share', 'results'),
    [(first, ['from 0'] * 2), (each, ['from 0', 'from 1']), (gathered, [['from 0', 'from 1']] * 2)],
)
def test_results(share, results):
    def work():
        calls = []
        said = share(lambda: calls.append(1) or f'from {dist.get_rank()}')
        return said, len(calls)

    calls = [1, 0] if share is first else [1, 1]
    assert in_two_processes(work) == list(zip(results, calls))


def test_what_cannot_be_sent_stays_where_it_is():
    assert in_two_processes(lambda: each(lambda: lambda: dist.get_rank())()) == [0, 1]


def fail(*ranks):
    if dist.get_rank() in ranks:
        raise FileNotFoundError(f'no file in {dist.get_rank()}')


@pytest.mark.parametrize('share', [first, each, gathered])
@pytest.mark.parametrize('ranks', [(0,), (1,), (0, 1)])
def test_the_error_of_one_process_is_raised_in_all(share, ranks):
    found = in_two_processes(lambda: outcome(share, lambda: fail(*ranks)))
    error = 'FileNotFoundError', f'no file in {ranks[0]}'
    nothing = [None, None] if share is gathered else None
    assert found == [error if share is not first or ranks[0] == 0 else nothing] * 2


def test_a_group_of_its_own():
    def work():
        group = dist.new_group(backend='gloo')
        return gathered(dist.get_rank, group)

    assert in_two_processes(work) == [[0, 1], [0, 1]]
