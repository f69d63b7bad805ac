"""Many small files made in parallel: resumable, with progress, nothing half-written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmfss.datasets.io import read_mask
from mmfss.datasets.pool import in_processes
from mmfss.files import explained
from mmfss.words import listed

_CHUNK = 16  # jobs that a process takes at a time
_FEW = 200  # jobs that are done before processes have started
_KILLED = (
    'a worker process was killed, most likely for want of memory; run the command again with fewer '
    '--workers: what is complete is kept'
)


@dataclass(frozen=True)
class Done:
    """What one job returns: files written and kept, and a result for the caller."""

    written: int = 0
    kept: int = 0
    result: Any = None


@dataclass
class Tally:
    """What a run of jobs did.

    Args:
        written: Files made.
        kept: Files that were complete already.
        results: What the jobs returned beside, in the order of the jobs.
    """

    written: int = 0
    kept: int = 0
    results: list = field(default_factory=list)

    def __str__(self) -> str:
        return f'{self.written} made, {self.kept} complete already'


def read_complete(
    path: str | os.PathLike, shape: tuple[int, ...], *sources: Path
) -> np.ndarray | None:
    """The mask in a file, uint8 (height, width); None if there is none, or half of one, or one of
    another size, or one that :func:`is_older` than what it was made from."""
    with suppress(FileNotFoundError, ValueError):
        mask = read_mask(path)
        if mask.shape == tuple(shape) and not is_older(path, *sources):
            return mask
    return None


def is_older(path: str | os.PathLike, *sources: Path) -> bool:
    """Whether a file was made before one of its sources came or changed.

    By the time of the last change of status: one that is unpacked or moved over another keeps the
    time of its content. Sources that are gone count for nothing.
    """
    made, changed = os.stat(path).st_mtime_ns, 0
    for source in sources:
        with suppress(FileNotFoundError):
            changed = max(changed, os.stat(source).st_ctime_ns)
    return changed > made


def run(function: Callable[[Any], Done], jobs: Sequence, label: str, workers: int | None) -> Tally:
    """Call ``function`` on every job, in processes.

    A job that raises ValueError or FileNotFoundError does not stop the others: all such errors
    are reported together at the end. A full disk or a read-only folder stops the run at once.

    Args:
        function: Importable by name (or a partial of such), returns :class:`Done`.
        jobs: Its arguments.
        label: What the progress bar says.
        workers: Processes; None takes one per CPU (none for a few jobs), 0 runs in this process.

    Raises:
        ValueError: Jobs failed; the message has the first of them. OSError: Nothing can be
            written, with what to do. KeyboardInterrupt: As usual; finished files stay.
    """
    if workers is None:
        workers = 0 if len(jobs) < _FEW else os.cpu_count() or 1
    if len(jobs) <= _CHUNK:
        workers = 0
    outcomes = in_processes(
        partial(_outcome, function), jobs, workers, _CHUNK, 'forkserver', _KILLED
    )
    tally, failures = Tally(), []
    for outcome in tqdm(outcomes, desc=label, total=len(jobs), unit='image', mininterval=0.5):
        if isinstance(outcome, Done):
            tally.written += outcome.written
            tally.kept += outcome.kept
            tally.results.append(outcome.result)
        else:
            failures.append(outcome)
    if failures:
        shown = listed(failures, 100, '\n  ', '\n  and {rest} more')
        raise ValueError(
            f'{label}: {len(failures)} of {len(jobs)} failed ({tally} of the others):\n  {shown}\n'
            'mend or remove these files and run the command again; what is complete is kept'
        )
    return tally


def _outcome(function: Callable[[Any], Done], job: Any) -> Done | str:
    """What a job returns, or what was wrong with its files."""
    try:
        return function(job)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    except OSError as error:
        raise explained(error) from error
