"""Work that several processes share: errors of one reach all, so that none waits for ever.

All processes of the group call these functions together; one process alone just does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch.distributed as dist
from mmengine.dist import all_gather_object, broadcast_object_list, get_dist_info

T = TypeVar('T')
EXPECTED = (ValueError, OSError)
"""Errors that a user can mend: they are told to all processes. Others end the run as they are."""


def first(function: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """What ``function()`` gives in process 0, in all of them; the others do not call it.

    Raises:
        ValueError, OSError: The one that it raised, in every process.
    """
    rank, world = get_dist_info(group)
    if world == 1:
        return function()
    shared: list[Any] = [None, None]
    if rank == 0:
        try:
            shared[0] = function()
        except EXPECTED as error:
            shared[1] = error
    broadcast_object_list(shared, group=group)
    if shared[1] is not None:
        raise shared[1]
    return shared[0]


def each(function: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """What ``function()`` gives in this process, once it went well in all; it need not be
    something that can be sent.

    Raises:
        ValueError, OSError: The first one, by process, that it raised in any; in every process.
    """
    if get_dist_info(group)[1] == 1:
        return function()
    result = raised = None
    try:
        result = function()
    except EXPECTED as error:
        raised = error
    for found in all_gather_object(raised, group):
        if found is not None:
            raise found
    return cast(T, result)


def gathered(function: Callable[[], T], group: dist.ProcessGroup | None = None) -> list[T]:
    """What ``function()`` gives in each process, by process; errors as of :func:`each`."""
    return all_gather_object(each(function, group), group)
