"""What the cache says; processes beside the test's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Imports once and forks for each job, which is quicker than a Python for each.
_SERVER = """
import json, os, sys
import feature_cases
print(flush=True)
for line in sys.stdin:
    code, arguments, out = json.loads(line)
    pid = os.fork()
    if not pid:
        os.dup2(os.open(out, os.O_CREAT | os.O_WRONLY), 1)
        os.dup2(1, 2)
        sys.argv[1:] = arguments
        exec(compile(code, 'job', 'exec'), dict(__name__='__main__'))
        sys.stdout.flush()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Messages of the cache, which must be warnings of the current logger."""
    messages: list[str] = []

    def record(text: str, logger: str, level: int) -> None:
        assert (logger, level) == ('current', 30)
        messages.append(text)

    monkeypatch.setattr('mmfss.features.disk.print_log', record)
    return messages


@pytest.fixture(scope='session')
def _server(repo_root: Path) -> Iterator[subprocess.Popen]:
    path = os.pathsep.join(map(str, (repo_root, repo_root / 'tests')))
    process = subprocess.Popen(
        [sys.executable, '-c', _SERVER],
        env=os.environ | dict(PYTHONPATH=path, OMP_NUM_THREADS='1'),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == '\n'
        yield process
        process.stdin.close()


@pytest.fixture
def in_a_process(
    _server: subprocess.Popen, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., str]:
    """Run code with ``sys.argv[1:]`` in another process, which must end well; what it printed."""

    def run(code: str, *arguments: object) -> str:
        out = tmp_path_factory.mktemp('job') / 'out.txt'
        print(json.dumps([code, list(map(str, arguments)), str(out)]), file=_server.stdin)
        _server.stdin.flush()
        status, printed = _server.stdout.readline(), out.read_text()
        assert status == '0\n', printed
        return printed

    return run
