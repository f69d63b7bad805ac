"""Several processes that label together: rank 0 decides, all work, errors end all of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

from mmfss.distributed import each, first, gathered

T = TypeVar('T')

_PATIENCE = timedelta(days=30)
"""How long a process waits for the slowest: shares of a large folder may differ by hours."""


class Processes:
    """The process group that is there, or this process alone; see :mod:`mmfss.distributed`.

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
        """:func:`mmfss.distributed.each`."""
        return each(function, self._group)

    def first(self, function: Callable[[], T]) -> T:
        """:func:`mmfss.distributed.first`."""
        return first(function, self._group)

    def all(self, function: Callable[[], T]) -> list[T]:
        """:func:`mmfss.distributed.gathered`."""
        return gathered(function, self._group)
