"""Images are read while the model works on those before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar('Item')
Read = TypeVar('Read')

_THREADS = 4


def read_ahead(
    read: Callable[[Item], Read], items: Iterable[Item], batch: int = 1
) -> Iterator[list[Future[Read]]]:
    """What ``read`` gives for each item, in order, in lists of ``batch`` (the last may be shorter).

    While the caller works on one list the next is read in threads: ``items`` is asked for one list
    more than was handed out. A list is emptied when the next one is asked for, so that two of them
    are held at a time. An error, of ``read`` or of ``items``, is the result of its own place; after
    one of ``items`` there is nothing more.

    Args:
        read: runs in a thread.
        items: may be endless.
        batch: >= 1.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(min(batch, _THREADS))
    try:
        coming = _submit(pool, read, source, batch)
        while coming:
            now, coming = coming, _submit(pool, read, source, batch)
            yield now
            now.clear()  # makes room for what is read next
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(
    pool: ThreadPoolExecutor, read: Callable[[Item], Read], source: Iterator[Item], batch: int
) -> list[Future[Read]]:
    begun: list[Future[Read]] = []
    try:
        while len(begun) < batch:
            begun.append(pool.submit(read, next(source)))
    except StopIteration:
        pass
    except Exception as error:  # of the caller's own generator; results before it come first
        failed: Future[Read] = Future()
        failed.set_exception(error)
        begun.append(failed)
    return begun
