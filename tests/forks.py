"""Work done in a fork of the test's process, for tests of what is imported."""

from __future__ import annotations

import multiprocessing
import sys
import traceback
from collections.abc import Callable
from typing import Any


def in_a_process(work: Callable[[], Any]) -> Any:
    """Done in a fork of this process: modules that it imports are new there."""
    context = multiprocessing.get_context('fork')
    end, other = context.Pipe(duplex=False)

    def target() -> None:
        sys.dont_write_bytecode = True  # which is of one second, and of files of one size
        try:
            other.send((True, work()))
        except BaseException:
            other.send((False, traceback.format_exc()))

    process = context.Process(target=target)
    process.start()
    other.close()
    done, result = end.recv()
    process.join(timeout=60)
    assert done, result
    return result
