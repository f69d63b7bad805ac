"""Jobs in a process of their own: what is measured there is not of what ran before.

    python -m benchmarks.worker '{"job": "training", "args": {...}}'

prints the result as JSON in the last line of stdout.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

JOBS = {
    'training': 'benchmarks.training:measured_step',
    'point': 'benchmarks.curves:measured_point',
    'start': 'benchmarks.start:measured_start',
    'runtimes': 'benchmarks.runtimes:measured_process',
}
"""Functions of keyword arguments that return JSON."""


def in_process(job: str, **args: Any) -> Any:
    """Run a job of ``JOBS`` in a new process and return its result.

    Raises:
        ValueError: It failed; the message ends with what it wrote to stderr.
    """
    tools = Path(__file__).resolve().parents[1]
    paths = [str(tools), str(tools.parent), os.environ.get('PYTHONPATH', '')]
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.worker', json.dumps(dict(job=job, args=args))],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise ValueError(
            f'the process of the job {job!r} ended with status {done.returncode}: '
            f'{done.stderr.strip()[-2000:] or "it wrote nothing"}'
        )
    return json.loads(lines[-1])


if __name__ == '__main__':
    from benchmarks.cli import quiet  # registers all parts

    request = json.loads(sys.argv[1])
    module, _, name = JOBS[request['job']].partition(':')
    with quiet():
        result = getattr(importlib.import_module(module), name)(**request['args'])
    print('\n' + json.dumps(result))
