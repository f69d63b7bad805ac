"""Several processes that label together: rank 0 decides, all work, errors end all of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch.distributed as dist

T = TypeVar('T')

EXPECTED = (ValueError, OSError)
"""Errors that a user can mend; they are told to all processes, others end the run as they are."""
_PATIENCE = timedelta(days=30)
"""How long a process waits for the slowest: shares of a large folder may differ by hours."""


class Processes:
    """The process group that is there, or this process alone.

    Objects travel over gloo, also where the group's own backend is another: nothing here is on a
    device, and the waiting times of NCCL are made for training steps.

    Attributes:
        rank: of this process, from 0.
        world: number of processes.
    """

    def __init__(self) -> None:
        self.rank, self.world, self._group = 0, 1, None
        if dist.is_available() and dist.is_initialized():
            self.rank, self.world = dist.get_rank(), dist.get_world_size()
            self._group = dist.new_group(backend='gloo', timeout=_PATIENCE)

    def each(self, function: Callable[[], T]) -> T:
        """What ``function()`` gives in this process; all processes call it.

        Raises:
            ValueError, OSError: The first one that it raised in any; then in every process.
        """
        if self.world == 1:
            return function()
        result, error = None, None
        try:
            result = function()
        except EXPECTED as caught:
            error = caught
        for found in self._gather(error):
            if found is not None:
                raise found
        return cast(T, result)

    def first(self, function: Callable[[], T]) -> T:
        """What ``function()`` gives in rank 0, in every process; errors as in :meth:`each`."""
        result = self.each(lambda: function() if self.rank == 0 else None)
        return cast(T, self._gather(result)[0])

    def all(self, function: Callable[[], T]) -> list[T]:
        """What ``function()`` gives in each process, by rank; errors as in :meth:`each`."""
        return self._gather(self.each(function))

    def _gather(self, value: Any) -> list[Any]:
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._group)
        return values
