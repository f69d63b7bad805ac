"""Many small files made in parallel: resumable, with progress, nothing half-written."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmfss.datasets.io import read_mask
from mmfss.files import PART_SUFFIX, atomic

_CHUNK = 16
_SHOWN = 100
_FEW = 200


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


@dataclass(frozen=True)
class Done:
    """What one job returns: files written and kept, and a result for the caller."""

    written: int = 0
    kept: int = 0
    result: Any = None


def save_png(
    path: str | os.PathLike, array: np.ndarray, palette: Sequence[Sequence[int]] | None = None
) -> None:
    """Write a uint8 array (H, W) or (H, W, 3) RGB as PNG, whole or not at all.

    Args:
        path: The file; its folder is made.
        array: Grey values or label values, or a picture.
        palette: RGB colours of the label values from 0 on; only the view of them changes.
    """
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette([channel for colour in palette for channel in colour])
    with atomic(path) as part:
        image.save(part, 'PNG', compress_level=3)  # 20 % more bytes than level 6 in half the time


def read_complete(path: str | os.PathLike, shape: tuple[int, int]) -> np.ndarray | None:
    """The mask in a file, uint8 (height, width); None if there is none, or half of one, or one of
    another size."""
    with suppress(FileNotFoundError, ValueError):
        mask = read_mask(path)
        return mask if mask.shape == tuple(shape) else None
    return None


def is_complete(path: str | os.PathLike, shape: tuple[int, int], *sources: Path) -> bool:
    """Whether a mask file is there, can be decoded to its end, is of (height, width) and was made
    after its sources were last changed."""
    return read_complete(path, shape) is not None and not is_older(path, *sources)


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


def save_mask(path: str | os.PathLike, make: Callable[[], np.ndarray], shape: tuple) -> Done:
    """Write the mask that ``make()`` paints, uint8 (height, width), unless it is complete."""
    if is_complete(path, shape):
        return Done(kept=1)
    save_png(path, make())
    return Done(written=1)


def remove_parts(folder: str | os.PathLike) -> None:
    """Remove what a killed run was just writing in a folder and below; the files are unread."""
    for part in Path(folder).rglob(f'.*{PART_SUFFIX}'):
        part.unlink(missing_ok=True)


def run(function: Callable[[Any], Done], jobs: Sequence, label: str, workers: int | None) -> Tally:
    """Call ``function`` on every job, in processes.

    A job that raises ValueError or FileNotFoundError does not stop the others: all such errors
    are reported together at the end. A full disk or a read-only folder stops the run at once.

    Args:
        function: Importable by name (or a partial of such), returns :class:`Done`.
        jobs: Its arguments.
        label: What the progress bar says.
        workers: Processes; None takes one per CPU (none for a few jobs, which are done before
            processes have started), 0 runs in this process.

    Raises:
        ValueError: Jobs failed; the message has the first of them. OSError: Nothing can be
            written, with what to do. KeyboardInterrupt: As usual; finished files stay.
    """
    if workers is None:
        workers = 0 if len(jobs) < _FEW else os.cpu_count() or 1
    chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
    tally, failures = Tally(), []
    with tqdm(total=len(jobs), desc=label, unit='image', mininterval=0.5) as bar:
        for outcomes in _outcomes(partial(_run_chunk, function), chunks, workers):
            bar.update(len(outcomes))
            for outcome in outcomes:
                if isinstance(outcome, Done):
                    tally.written += outcome.written
                    tally.kept += outcome.kept
                    tally.results.append(outcome.result)
                else:
                    failures.append(outcome)
    if failures:
        raise ValueError(_report(failures, len(jobs), tally, label))
    return tally


def _report(failures: Sequence[str], number: int, tally: Tally, label: str) -> str:
    shown = '\n  '.join(failures[:_SHOWN])
    more = f'\n  and {len(failures) - _SHOWN} more' if len(failures) > _SHOWN else ''
    return (
        f'{label}: {len(failures)} of {number} failed ({tally} of the others):\n  {shown}{more}\n'
        'mend or remove these files and run the command again; what is complete is kept'
    )


def _run_chunk(function: Callable[[Any], Done], jobs: Sequence) -> list[Done | str]:
    outcomes: list[Done | str] = []
    for job in jobs:
        try:
            outcomes.append(function(job))
        except (ValueError, FileNotFoundError) as error:
            outcomes.append(str(error))
        except OSError as error:
            raise explained(error) from error
    return outcomes


_REMEDIES = {
    errno.ENOSPC: 'free some space',
    errno.EDQUOT: 'free some space',
    errno.EROFS: 'choose another output folder',
    errno.EACCES: 'change its rights or choose another output folder',
    errno.EPERM: 'change its rights or choose another output folder',
    errno.EEXIST: 'a file is where a folder must be: remove it or choose another output folder',
    errno.ENOTDIR: 'a file is where a folder must be: remove it or choose another output folder',
}


def explained(error: OSError) -> OSError:
    """The same error with what to do, where something could not be read or written."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None or remedy in f'{error.strerror}':
        return error
    return OSError(
        error.errno,
        f'{error.strerror}; {remedy}, then run the command again: what is complete is kept',
        error.filename,
    )


def _outcomes(function: Callable, chunks: Sequence, workers: int) -> Iterator[list[Done | str]]:
    """Results of the chunks in their order, as they come."""
    if workers == 0 or len(chunks) < 2:
        yield from map(function, chunks)
        return
    # not fork: the parent may have threads (torch, OpenCV), which do not survive it
    context = get_context('forkserver')
    context.set_forkserver_preload(['mmfss'])  # imported once, not once per worker
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield from pool.map(function, chunks)
        except BrokenProcessPool as error:
            raise OSError(
                'a worker process was killed, most likely for want of memory; run the command '
                'again with fewer --workers: what is complete is kept'
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent ends no pool: its workers would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
