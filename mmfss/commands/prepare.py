"""What ``mmfss prepare`` does: one subcommand per dataset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmfss.commands.ending import show_traceback
from mmfss.datasets.preparation import (
    chest_xray,
    coco,
    deepglobe,
    example,
    folder,
    fss1000,
    isaid5i,
    isic,
    lvis92i,
    paco_part,
    pascal_part,
    shapes,
    voc,
)
from mmfss.files import explained

COMMANDS = {
    'coco': coco,
    'shapes': shapes,
    'example': example,
    'voc': voc,
    'folder': folder,
    'fss1000': fss1000,
    'isaid5i': isaid5i,
    'deepglobe': deepglobe,
    'isic': isic,
    'chest_xray': chest_xray,
    'lvis92i': lvis92i,
    'paco_part': paco_part,
    'pascal_part': pascal_part,
}
"""Subcommand -> module with ``add_arguments(parser)`` and ``prepare(args) -> str``.

The first line of the module's docstring is the help. ``args.workers`` is there for all (processes;
None: one per CPU, 0: none) but those with ``SEQUENTIAL = True``.
"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run a subcommand and print its summary.

    Args:
        arguments: The command line without the program; None takes the process's.
        prog: Name of the program in messages; None: prepare.py.

    Raises:
        SystemExit: With ``error: ...`` (status 1) for bad input, a full disk and the like; with
            status 2 for a wrong command line; with status 130 after ctrl-C.
    """
    args = _parser(prog or 'prepare.py').parse_args(arguments)
    try:
        print(COMMANDS[args.command].prepare(args))
    except OSError as error:
        show_traceback()
        sys.exit(f'error: {explained(error)}')
    except ValueError as error:
        show_traceback()
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        print(
            'interrupted: what is complete is kept; run the same command again and it goes on',
            file=sys.stderr,
        )
        sys.exit(130)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Bring a dataset into the form that training and testing read. A run that was '
        'interrupted goes on when the same command is run again.',
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='NAME')
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or '').splitlines()[0]
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        if not getattr(module, 'SEQUENTIAL', False):
            command.add_argument(
                '--workers',
                type=_count,
                metavar='N',
                help='processes (default: one per CPU; 0: all in this one)',
            )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'must be an integer from 0 on, got {text!r}')
    return int(text)
