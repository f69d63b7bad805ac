"""What ``mmfss plot-curves`` does: it draws the training curves of runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mmfss.commands.command_lines import CurvesArguments, parse
from mmfss.visualization.curves import write_curves


def main(argv: Sequence[str] | None = None) -> None:
    """:func:`run` with a command line, by default the process's."""
    run(parse(CurvesArguments, argv))


def run(args: CurvesArguments) -> None:
    """Draw, and say what was drawn.

    Raises:
        SystemExit: With status 2 for runs or options that cannot be drawn; what is wrong is said.
    """
    try:
        histories = write_curves(args.work_dirs, args.out, args.keys, args.smooth)
    except (ValueError, FileNotFoundError) as error:
        print(f'error: {error}', file=sys.stderr)
        raise SystemExit(2) from error
    for history in histories:
        last = max((max(series) for series in history.train.values()), default=0)
        points = max((len(series) for series in history.val.values()), default=0)
        print(f'{history.name}: {last} iterations, {points} validations')
        for note in history.notes:
            print(f'  {note}')
    print(f'drawn to {args.out}')
