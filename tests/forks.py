"""Work done in a fork of the test's process: of what is imported, or without importing it again."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from reliability.running import speak_here

LIMIT = 300  # seconds


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


def python(
    argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str], fresh: bool = False
) -> subprocess.CompletedProcess[str]:
    """What ``python SCRIPT ARGUMENT...`` does, in a fork, which has imported everything already.

    ``fresh`` is a new Python; so is all where CUDA is in use, which no fork outlives.
    """
    argv = [str(arg) for arg in argv]
    if fresh or torch.cuda.is_initialized():
        command = [sys.executable, *argv]
        return subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=LIMIT
        )
    return at_once(argv, cwd, [env])[0]


def at_once(
    argv: Sequence[str | Path], cwd: Path, envs: Sequence[Mapping[str, str]]
) -> list[subprocess.CompletedProcess[str]]:
    """:func:`python` in so many forks at a time, as the ranks of a group need it."""
    argv, started = [str(arg) for arg in argv], []
    for env in envs:
        files = tempfile.TemporaryFile('w+'), tempfile.TemporaryFile('w+')  # noqa: SIM115
        numbers = [file.fileno() for file in files]
        args = (argv, cwd, env, *numbers)
        process = multiprocessing.get_context('fork').Process(target=_run_script, args=args)
        process.start()
        started.append((process, files))
    found = []
    for process, files in started:
        process.join(LIMIT)
        if process.is_alive():
            process.kill()
            process.join()
        texts = []
        for file in files:
            file.seek(0)
            texts.append(file.read())
            file.close()
        found.append(subprocess.CompletedProcess(argv, process.exitcode, *texts))
    return found


def _run_script(argv: list[str], cwd: Path, env: Mapping[str, str], out: int, err: int) -> None:
    speak_here(out, err)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    paths = [path for path in env.get('PYTHONPATH', '').split(os.pathsep) if path]
    sys.path[:0] = [os.path.dirname(argv[0]), *paths]
    sys.argv = argv
    runpy.run_path(argv[0], run_name='__main__')
