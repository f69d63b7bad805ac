"""How a command ends: what its user can mend, and being stopped, in one line; faults of the program
with their traceback."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from mmfss.files import explained

SHOW = 'MMFSS_TRACEBACK'
"""Variable of the environment; not empty: tracebacks are printed, too."""
TERMINATED = 128 + signal.SIGTERM
INTERRUPTED = 128 + signal.SIGINT
_Arguments = TypeVar('_Arguments')
_STOPPED = 'no file is half-written; run the same command again'


@contextmanager
def ends_in_one_line() -> Iterator[None]:
    """Within, errors that a user can mend, ctrl-C and SIGTERM end the process in one line and a
    status: 1, 130 and 143. The traceback goes to the log of a run, if one was begun, and to the
    screen with ``MMFSS_TRACEBACK=1``. Other errors are faults of the program and stay as they are.

    Raises:
        SystemExit: Of what is said above, or the command's own.
    """
    stopped: list[int] = []
    with _sigterm_as_ctrl_c(stopped):
        try:
            yield
        except SystemExit as own:
            if own.code == INTERRUPTED and stopped:  # it has said so itself
                raise SystemExit(TERMINATED) from own
            raise
        except KeyboardInterrupt as stop:
            show_traceback()
            print(f'interrupted: {str(stop) or _STOPPED}', file=sys.stderr)
            raise SystemExit(TERMINATED if stopped else INTERRUPTED) from stop
        except Exception as error:
            text = mendable(error)
            if text is None:
                raise
            log = _log(error)
            show_traceback()
            where = f' (traceback: {log})' if log else ''
            print(f'error: {_process()}{text}{where}', file=sys.stderr)
            raise SystemExit(1) from error


@contextmanager
def refusing() -> Iterator[None]:
    """Within, wrong input ends the command in one line and with status 2.

    Raises:
        SystemExit: Of a ValueError or OSError.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        show_traceback()
        print(f'error: {error}', file=sys.stderr)
        raise SystemExit(2) from error


def say(work: Callable[[_Arguments], str], args: _Arguments) -> None:
    """Do the work of a command that makes one file, and print the summary that it returns.

    Raises:
        SystemExit: With what its user can mend, of its ValueErrors and OSErrors.
    """
    try:
        print(work(args))
    except (ValueError, OSError) as error:
        show_traceback()
        sys.exit(f'error: {error}')


def mendable(error: Exception) -> str | None:
    """What an error says, of a kind that a user can mend; None of one that is the program's fault.

    Those are wrong values and files (ValueError, OSError), packages that are missing, configs that
    are no Python, names that are in no registry, and too little memory on the device.
    """
    kind, text = type(error), f'{error}'
    if isinstance(error, OSError):
        text = f'{explained(error)}'
    elif kind.__name__ == 'OutOfMemoryError':  # of torch
        text += '; make batches smaller, or take --amp'
    elif isinstance(error, KeyError):
        text = str(error.args[0]) if error.args else ''
        if ' registry' not in text:
            return None
    elif not (
        isinstance(error, (ValueError, ImportError, SyntaxError))
        or kind.__name__ == 'ConfigParsingError'
    ):
        return None
    if 'Original Traceback (most recent call last):' in text:  # from a worker of a DataLoader
        text = re.split(rf'\n(?:\w+\.)*{kind.__name__}: ', text)[-1]
    return text.strip() or kind.__name__


def show_traceback() -> None:
    """Print the traceback of the error that is being handled, where that is wanted."""
    if os.environ.get(SHOW):
        traceback.print_exc()


def _log(error: Exception) -> str | None:
    """Write the traceback of an error to the file of the current run's log; the file, if any."""
    logging_ = sys.modules.get('mmengine.logging')
    if logging_ is None:
        return None
    logger = logging_.MMLogger.get_current_instance()
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            info = (type(error), error, error.__traceback__)
            place = (__file__, 0, 'the run ended with an error', None, info)
            handler.handle(logging.LogRecord(logger.name, logging.ERROR, *place))
            return handler.baseFilename
    return None


def _process() -> str:
    """Which process of several speaks."""
    if not _is_launched():
        return ''
    return f'process {os.environ.get("RANK", "?")} of {os.environ["WORLD_SIZE"]}: '


def _is_launched() -> bool:
    return os.environ.get('WORLD_SIZE', '1') != '1'


@contextmanager
def _sigterm_as_ctrl_c(stopped: list[int]) -> Iterator[None]:
    """Within, SIGTERM raises KeyboardInterrupt and is noted. Not in processes of a launcher, which
    says itself what happened: one that waits for others in a collective would not hear of it, and
    has to end all the same."""
    if _is_launched() or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
