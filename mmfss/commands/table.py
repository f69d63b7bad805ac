"""What ``mmfss table`` does: several methods tested alike, and compared."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from mmfss.commands import compare
from mmfss.commands.command_lines import CompareArguments, TableArguments, parse
from mmfss.commands.ending import refusing
from mmfss.files import check_writable
from mmfss.words import repeated


@dataclass(frozen=True)
class Entry:
    """A method of the table.

    Args:
        name: What the table calls it.
        config: Config file of its own; None: that of the table, with METHOD=name.
        checkpoints: Of each of its trainings; none of one that is not trained.
    """

    name: str
    config: str | None
    checkpoints: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> None:
    """:func:`run` with a command line, by default the process's."""
    run(parse(TableArguments, argv))


def run(args: TableArguments) -> None:
    """Test each method in a process of its own, then compare them; what is there is not repeated.

    Raises:
        SystemExit: With the status of the first test that failed, or 2 for wrong arguments; what is
            wrong is said.
    """
    with refusing():
        entries = [read_entry(text) for text in args.methods]
        twice = repeated([entry.name for entry in entries])
        if twice or len(entries) < 2:
            raise ValueError(
                f'a table needs two methods or more of different names, got {list(args.methods)}'
            )
        check_writable(os.path.join(args.out, 'table.json'), '--out')
    for entry in entries:
        print(f'{entry.name}: testing', flush=True)
        done = subprocess.run(command_of(args, entry))
        if done.returncode:
            print(f'error: the test of {entry.name} failed, see above', file=sys.stderr)
            raise SystemExit(done.returncode if done.returncode > 0 else 1)
    compare.run(
        CompareArguments(
            [f'{entry.name}={_file(args, entry)}.json' for entry in entries],
            trainings=True,
            out=os.path.join(args.out, 'table'),
        )
    )


def read_entry(text: str) -> Entry:
    """``METHOD``, or ``CONFIG.py``, and behind ``=`` its checkpoints, with commas between them.

    Raises:
        ValueError: No name.
    """
    start, _, given = text.partition('=')
    checkpoints = tuple(one for one in given.split(',') if one)
    config = start if start.endswith('.py') else None
    name = os.path.splitext(os.path.basename(start))[0]
    if not name:
        raise ValueError(
            f'a method is NAME or CONFIG.py, and =CHECKPOINT[,CHECKPOINT], got {text!r}'
        )
    return Entry(name, config, checkpoints)


def command_of(args: TableArguments, entry: Entry) -> list[str]:
    """The ``mmfss test`` of a method."""
    words = [sys.executable, '-m', 'mmfss', 'test', entry.config or args.config]
    words += entry.checkpoints
    words += ['--cost', '--out', _file(args, entry)]
    words += ['--work-dir', os.path.join(args.out, 'work_dirs', entry.name)]
    if entry.config is None:
        words += ['--method', entry.name]
    for name in (
        'benchmark', 'episodes', 'sampler', 'feature_cache', 'runtime', 'precision', 'calibration',
    ):  # fmt: skip
        value = getattr(args, name)
        if value is not None:
            words += [f'--{name.replace("_", "-")}', str(value)]
    for name in ('folds', 'seeds', 'shots'):
        values = getattr(args, name)
        if values is not None:
            words += [f'--{name}', *map(str, values)]
    if args.amp:
        words.append('--amp')
    if args.cfg_options:
        words += ['--cfg-options', *(f'{k}={v}' for k, v in args.cfg_options.items())]
    return words


def _file(args: TableArguments, entry: Entry) -> str:
    return os.path.join(args.out, entry.name)
