"""Commands in forked processes, killed at a moment, on small disks: what the trials share.

A process that is forked from one that has imported all begins in milliseconds. Nothing may run in
threads here before.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path

from mmengine.logging import MMLogger

Command = Callable[[], object]
Harm = Callable[[], object]
"""What is done to a process in itself, before its command."""


class Bad(Exception):
    """A promise was not kept; says which."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: status (negative: the signal), and what it said on stderr."""

    status: int
    said: str

    @property
    def last(self) -> str:
        """The last line that it said."""
        return ([''] + self.said.strip().splitlines())[-1]


def speak_here(out: int, err: int) -> None:
    """Let what this process prints and logs go to two open files; it has been forked.

    Whoever it was forked from may have put others in the place of its streams, as pytest does, and
    loggers of then write to those, which may be closed.
    """
    for number, file in enumerate((out, err), 1):
        os.dup2(file, number)
    sys.stdout, sys.stderr = (open(n, 'w', buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.stream = sys.stdout  # setStream would flush the closed one


def _in_child(command: Command, harm: Harm | None, log: str) -> None:
    """Run a command in this process, which ends with its status; what it says goes to a file."""
    with open(log, 'wb') as file:
        speak_here(file.fileno(), file.fileno())
    os.environ['OMP_NUM_THREADS'] = '1'
    if harm is not None:
        harm()
    try:
        status = command()
        code = status if isinstance(status, int) else 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _begun(command: Command, log: Path, harm: Harm | None = None) -> ForkProcess:
    process = get_context('fork').Process(target=_in_child, args=(command, harm, str(log)))
    process.start()
    return process


def _ended(process: ForkProcess, log: Path) -> Ended:
    said = log.read_text(encoding='utf-8', errors='replace')
    return Ended(process.exitcode or 0, said)


def run(
    command: Command, log: Path, harm: Harm | None = None, kill_after: float | None = None
) -> Ended:
    """Run a command to its end in a process of its own, or kill it after some seconds.

    Args:
        command: gives its exit status, or raises SystemExit.
        log: file for what it says.
        harm: done in the process before.
        kill_after: seconds.
    """
    process = _begun(command, log, harm)
    process.join(kill_after if kill_after is not None else 300)
    if process.is_alive():
        process.kill()
        process.join()
        if kill_after is None:
            raise Bad('it did not end in 300 s')
    return _ended(process, log)


def two_at_once(
    command: Command, folder: Path, rng: random.Random, most: float, status: int, why: str
) -> None:
    """Make sure that of two runs of a command, some moments apart, one at most is refused.

    Args:
        command: as of :func:`run`.
        folder: for what they say.
        rng, most: the second begins after at most so many seconds.
        status: of one that is refused.
        why: what is in its last line.
    """
    logs = [folder / f'log{i}' for i in (0, 1)]
    processes = []
    for log in logs:
        processes.append(_begun(command, log))
        time.sleep(rng.uniform(0, most))
    for process in processes:
        process.join(300)
    ended = [_ended(process, log) for process, log in zip(processes, logs)]
    for one in ended:
        well(one, 0, status)
        if one.status and why not in one.last:
            raise Bad(one.last[:300])
    if all(one.status for one in ended):
        raise Bad('both were refused')


def well(ended: Ended, *allowed: int) -> Ended:
    """Make sure that a command ended with an allowed status and without a traceback."""
    if ended.status not in allowed or 'Traceback (most recent call last)' in ended.said:
        raise Bad(f'status {ended.status}: {ended.said[-400:]}')
    return ended


# ---------------------------------------------------------------------------------- moments
_EVENTS = ('replace', 'fsync', 'unlink', 'remove', 'rename', 'rmdir', 'mkdir')


def _at_events(do: Callable[[int], None], names: Sequence[str] = _EVENTS) -> None:
    """Call ``do(n)`` before the n-th change of files in this process, from 0; of some kinds."""
    seen = 0

    def watched(real: Callable) -> Callable:
        def change(*args: object, **kwargs: object) -> object:
            nonlocal seen
            number, seen = seen, seen + 1
            do(number)
            return real(*args, **kwargs)

        return change

    for name in names:
        setattr(os, name, watched(getattr(os, name)))


def events_of(command: Command, log: Path) -> tuple[int, float]:
    """How many changes of files a command makes (before it saves, replaces, removes), and how long
    it takes."""
    count = log.with_suffix('.events')

    def note(number: int) -> None:
        with open(count, 'ab') as file:
            file.write(b'.')

    start = time.monotonic()
    well(run(command, log, lambda: _at_events(note)), 0)
    return (count.stat().st_size if count.exists() else 0), time.monotonic() - start


def killed_at(event: int) -> Harm:
    """A kill before a change of files."""

    def kill(number: int) -> None:
        if number == event:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: _at_events(kill)


def full_at(event: int) -> Harm:
    """From a change of files on, counted by their kinds, the disk is full."""

    def fail(number: int) -> None:
        if number >= event:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def spoil() -> None:
        for name in ('replace', 'fsync', 'mkdir'):
            _at_events(fail, (name,))

    return spoil


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Callable[[int], None] | None]:
    """A file system of a size at ``place``; gives a function that makes it larger. None where none
    may be mounted."""
    place.mkdir(parents=True, exist_ok=True)
    kind = ['mount', '-t', 'tmpfs', '-o']
    made = [*kind, f'size={kilobytes}k', 'tmpfs', str(place)]
    if subprocess.run(made, capture_output=True).returncode:
        yield None
        return

    def grow(size: int) -> None:
        more = [*kind[:3], '-o', f'remount,size={size}k', 'tmpfs', str(place)]
        subprocess.run(more, check=True, capture_output=True)

    try:
        yield grow
    finally:
        subprocess.run(['umount', str(place)], check=True)


# -------------------------------------------------------------------------------------- files
def files_of(folder: Path, leave_out: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Relative path -> content of all files below, but for some names at the top."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.relative_to(folder).parts[0] not in leave_out
    }


def same(found: dict[str, bytes], expected: dict[str, bytes], what: str) -> None:
    """Make sure that two folders hold the same."""
    differ = sorted(
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    )
    if differ:
        raise Bad(f'{what}: {len(differ)} files differ, e.g. {differ[:3]}')


def with_bits(folder: Path) -> list[Path]:
    """Files of a folder that are not empty, as locks are."""
    return sorted(path for path in folder.rglob('*') if path.is_file() and path.stat().st_size)


def flip(path: Path, rng: random.Random) -> str:
    """Turn a bit of a file over; which."""
    data = bytearray(path.read_bytes())
    place, bit = rng.randrange(len(data)), rng.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(bytes(data))
    return f'bit {bit} of byte {place} of {path.name}'


def copied(source: Path, target: Path) -> Path:
    """A copy of a folder, with its times."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    return target
