"""What ``mmfss weights`` does: it lists official weights, fetches them, says where they belong."""

from __future__ import annotations

import sys

from mmengine.config import Config

from mmfss.checkpoints.fetching import fetch
from mmfss.checkpoints.official import (
    VARIABLE,
    WEIGHTS,
    Official,
    fault_of,
    folders,
    local_file,
    official_in,
)
from mmfss.commands.command_lines import WeightsArguments
from mmfss.configs import DEFAULT_METHOD, find_method, method_names
from mmfss.evaluation.report_text import table_lines
from mmfss.files import PART_SUFFIX


def run(args: WeightsArguments) -> int:
    """Do it, and return the exit status: 0 done, 1 something could not be fetched, 2 wrong
    arguments, 130 after ctrl-C."""
    try:
        if args.action == 'fetch' and not args.names:
            raise ValueError(f'fetch what? {_NAMES}')
        wanted = named(args.names) or list(WEIGHTS.values())
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    if args.action != 'fetch':
        print(listing(wanted) if args.action == 'list' else '\n'.join(map(place, wanted)))
        return 0
    failed = 0
    for one in wanted:
        try:
            fetch(one)
        except (OSError, ValueError) as error:
            print(f'error: {error}', file=sys.stderr)
            failed += 1
        except KeyboardInterrupt:
            print(
                'interrupted: what came is kept; run the same command again and it goes on',
                file=sys.stderr,
            )
            return 130
    return 1 if failed else 0


_NAMES = (
    "give names that `mmfss weights` lists, methods, or 'default', which is what the method needs "
    'that `mmfss label` takes where nothing else is said'
)


def named(names: tuple[str, ...]) -> list[Official]:
    """The weights that are meant by names of their own, of methods, and 'default', each once.

    Raises:
        ValueError: nothing has that name, or a method of that name needs none.
    """
    found: list[Official] = []
    for name in names:
        if name in WEIGHTS:
            found.append(WEIGHTS[name])
            continue
        try:
            of_method = needed_by(DEFAULT_METHOD if name == 'default' else name)
        except ValueError as error:
            raise ValueError(
                f'there are no weights {name!r}; {_NAMES}: {", ".join(WEIGHTS)}; {error}'
            ) from error
        if not of_method:
            raise ValueError(f'the method {name} needs no official weights')
        found += of_method
    return list(dict.fromkeys(found))


def needed_by(method: str) -> list[Official]:
    """The official weights that the config of a method asks for.

    Raises:
        ValueError: there is no such method.
    """
    return list(official_in(Config.fromfile(find_method(method)).model))


def listing(wanted: list[Official]) -> str:
    """A table: what there is, how large, under which licence, for which methods, and where."""
    needs = {method: needed_by(method) for method in method_names()}
    rows = [('name', 'MB', 'licence', 'methods', 'file')]
    for one in wanted:
        path = local_file(one)
        size = path.stat().st_size if path else one.bytes
        if path is not None:
            where = f'{path} {fault_of(path, one.bytes)}'.strip()
        else:
            part = folders()[0] / (one.file + PART_SUFFIX)
            came = f', {part.stat().st_size / 1e6:.0f} MB of it came' if part.is_file() else ''
            where = f'not there{came}' if one.url else f'not there; gated: {one.page}'
        users = ', '.join(method for method, needed in needs.items() if one in needed)
        megabytes = '' if size is None else f'{size / 1e6:.0f}'
        rows.append((one.name, megabytes, one.licence, users or '-', where))
    looked = ', then '.join(map(str, folders()))
    return '\n'.join(
        [
            *table_lines(rows, in_markdown=False),
            '',
            f'Looked for in {looked}; {VARIABLE} sets another folder. The methods are those whose '
            'configs take them as they stand.',
            'Nothing is fetched but by `mmfss weights fetch NAME ...`, where NAME may also be a '
            "method, or 'default'.",
            'Without a network: `mmfss weights where NAME ...` says what to put where.',
        ]
    )


def place(one: Official) -> str:
    """Where the file comes from and where it belongs, in one line."""
    source = one.url or f'{one.page} (gated: ask for {one.file} there)'
    return f'{source} -> {local_file(one) or folders()[0] / one.file}'
