"""What ``mmfss check`` does: the self-check of a support set, and which method suits it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.method_choice import compare, methods_at_hand
from mmfss.apis.support import SupportSet
from mmfss.apis.support_folder import check_support, read_support
from mmfss.commands.command_lines import CheckArguments, parse
from mmfss.commands.ending import show_traceback
from mmfss.commands.label import reading_of
from mmfss.files import explained


def check(argv: Sequence[str] | None = None) -> int:
    """:func:`run` with a command line, by default the process's."""
    return run(parse(CheckArguments, argv))


def run(args: CheckArguments) -> int:
    """Print what was found and return the exit status."""
    try:
        print(_found(args))
    except OSError as error:
        return _told(explained(error))
    except (ValueError, ImportError) as error:
        return _told(f'{error}')
    return 0


def _told(text: str) -> int:
    show_traceback()
    print(f'error: {text}', file=sys.stderr)
    return 2


def _found(args: CheckArguments) -> str:
    reading = reading_of(args.reading)
    check_support(args.support, reading)

    def read(inferencer: FewShotInferencer) -> SupportSet:
        return read_support(args.support, inferencer, args.prompt_weights, reading)[0]

    runtime = args.encoder_runtime()
    method = args.methods[0] if args.methods and args.config is None else None
    own = FewShotInferencer(
        args.config,
        args.weights,
        args.device,
        amp=args.amp,
        method=method,
        grey_values=args.grey_values(),
        runtime=runtime,
    )
    found = own.check(read(own))
    names = methods_at_hand() if args.methods is None else args.methods
    others = (
        compare(read, names, args.device, args.amp, _begun, own.grey_values, runtime)
        if len(names) > 1
        else None
    )
    lines = [found.text()]
    if others is not None:
        lines += ['', others.text()]
    return '\n'.join(lines)


def _begun(name: str) -> None:
    print(f'checking with {name}', file=sys.stderr)
