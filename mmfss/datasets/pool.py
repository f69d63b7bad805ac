"""A function of many things, in processes of this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


def in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    chunk: int,
    start: str,
    killed: str,
) -> Iterator[Result]:
    """What ``function`` gives for each item, in their order, as it comes.

    After an error, or ctrl-C, nothing more is begun and no process is left behind.

    Args:
        function: Importable by name, or a partial of such; its results can be pickled.
        items: Its arguments.
        workers: Processes; 0 calls it in this one.
        chunk: Items that a process takes at a time.
        start: 'fork', which starts at once and has what this process holds; or 'forkserver', for
            long work: threads of this process (torch's, OpenCV's) do not survive a fork.
        killed: What the error says where the system killed a process.

    Raises:
        OSError: A process was killed. Whatever ``function`` raises.
    """
    if workers == 0:
        yield from map(function, items)
        return
    context = get_context(start)
    if start == 'forkserver':  # imported once, not once per process
        context.set_forkserver_preload([getattr(function, 'func', function).__module__])
    with ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            yield from pool.map(function, items, chunksize=chunk)
        except BrokenProcessPool as error:
            raise OSError(killed) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked one would have the parent's
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent ends no pool: its workers would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
