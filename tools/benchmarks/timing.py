"""Times: monotonic, synchronised with the device, interleaved, and what they were taken of."""

from __future__ import annotations

import gc
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

Clock = Callable[[], float]


def clock_of(device: torch.device) -> Clock:
    """Seconds of a monotonic clock, once the device has done what it was given."""
    if device.type != 'cuda':
        return time.perf_counter

    def read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


def summary(values: Sequence[float]) -> dict[str, Any]:
    """``median``, ``low``, ``high`` and the ``values`` themselves."""
    if not values:
        raise ValueError('there is nothing to sum up: repeats must be >= 1')
    return dict(
        median=statistics.median(values), low=min(values), high=max(values), values=list(values)
    )


def interleaved(
    jobs: Mapping[str, Callable[[], Any]], repeats: int, clock: Clock, warmup: int = 1
) -> dict[str, dict[str, Any]]:
    """Time jobs in turns, A B A B ..., so that a machine that slows down slows all of them.

    Args:
        jobs: by name.
        repeats: turns that count, >= 1.
        clock: of :func:`clock_of`.
        warmup: turns before, that do not count.

    Returns:
        :func:`summary` of the seconds of each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(warmup + repeats):
        for name, job in jobs.items():
            gc.collect()
            start = clock()
            job()
            spent = clock() - start
            if turn >= warmup:
                seconds[name].append(spent)
        note(f'turn {turn + 1} of {warmup + repeats}')
    return {name: summary(values) for name, values in seconds.items()}


def note(text: str) -> None:
    """A line of progress on stderr."""
    print(f'  {text}', file=sys.stderr, flush=True)


def matmul_peak(device: torch.device, dtype: torch.dtype, side: int = 2048) -> float:
    """Operations per second (2 side^3 each) of the fastest of some square matrix products."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    clock = clock_of(device)
    best = float('inf')
    for _ in range(6):
        start = clock()
        torch.mm(a, b)
        best = min(best, clock() - start)
    return 2 * side**3 / best


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process ever held: of the device's allocator, or of the process.

    Linux hands the peak of a parent down to its children through getrusage, so its own count of
    the process is read where there is one.
    """
    if device.type == 'cuda':
        return int(torch.cuda.max_memory_allocated(device))
    said = _status()
    if 'VmHWM' in said:
        return said['VmHWM']
    unit = 1 if sys.platform == 'darwin' else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def held_bytes() -> dict[str, int]:
    """Memory that this process holds now: its ``own``, and ``files`` that are mapped, libraries
    among them, which the system may take back. Linux alone says so; elsewhere empty."""
    said, names = _status(), dict(own='RssAnon', files='RssFile')
    return {ours: said[name] for ours, name in names.items() if name in said}


def _status() -> dict[str, int]:
    """Entries of /proc/self/status that are sizes, in bytes; none where there is no such file."""
    file = Path('/proc/self/status')
    lines = file.read_text().splitlines() if file.exists() else []
    entries = (line.split() for line in lines if line.endswith(' kB'))
    return {name.rstrip(':'): 1024 * int(size) for name, size, _ in entries}


def load() -> list[float] | None:
    """Load averages of 1, 5 and 15 minutes, None where the system has none."""
    return list(os.getloadavg()) if hasattr(os, 'getloadavg') else None


def parameters(parts: Iterable[tuple[str, torch.nn.Module]]) -> dict[str, dict[str, int]]:
    """Parameters of each part: ``all`` and ``trainable``."""
    return {
        name: dict(
            all=sum(p.numel() for p in part.parameters()),
            trainable=sum(p.numel() for p in part.parameters() if p.requires_grad),
        )
        for name, part in parts
    }
