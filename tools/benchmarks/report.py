"""What a benchmark prints and writes, and how it is compared with an earlier one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfss.checkpoints.provenance import environment
from mmfss.files import check_writable, write_text

FORMAT = 1


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown with aligned columns."""
    cells = [[_cell(value) for value in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        '| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths)) + ' |'
        for row in cells
    ]
    return '\n'.join(
        [lines[0], '|' + '|'.join('-' * (width + 2) for width in widths) + '|', *lines[1:]]
    )


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    if isinstance(value, float):
        return number(value)
    return str(value)


def number(value: float) -> str:
    """Four digits that count."""
    size = abs(value)
    if size >= 1000 or size == 0:
        return f'{value:.0f}'
    return (
        f'{value:.{3 if size < 1 else 2 if size < 100 else 1}f}'
        if size >= 0.001
        else f'{value:.2g}'
    )


def seconds_row(name: str, times: Mapping[str, Any], *more: Any) -> list[Any]:
    """Name, median, lowest and highest of a summary in milliseconds, and further cells."""
    return [name, *(1000 * times[key] for key in ('median', 'low', 'high')), *more]


SECONDS = ('ms (median)', 'low', 'high')


def mib(size: float) -> str:
    """Bytes as MiB."""
    return f'{size / 2**20:.0f} MiB'


def record(
    subcommand: str,
    settings: Mapping[str, Any],
    results: Mapping[str, Any],
    command: Sequence[str],
    load_before: Sequence[float] | None,
    load_after: Sequence[float] | None,
) -> dict[str, Any]:
    """All that is written: settings, results, and what they were measured on."""
    return dict(
        format=FORMAT,
        subcommand=subcommand,
        settings=dict(settings),
        results=dict(results),
        command=list(command),
        environment=environment(),
        load=dict(before=load_before, after=load_after),
    )


def write(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a record as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + '\n')


def check_output(path: str | None, option: str) -> None:
    """Refuse a path that cannot be written, before the work.

    Raises:
        ValueError: it cannot be written.
    """
    if path is not None:
        check_writable(path, option)


def read(path: str | os.PathLike, subcommand: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """An earlier record of the same subcommand and settings.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no record, or of another subcommand or other settings.
    """
    content = load(path)
    if content['subcommand'] != subcommand:
        raise ValueError(
            f'--compare {path} is of the subcommand {content["subcommand"]!r}, this run is of '
            f'{subcommand!r}; give a file that --json of this subcommand wrote'
        )
    now = json.loads(json.dumps(dict(settings)))
    before = content['settings']
    different = {
        key: (before.get(key), now.get(key))
        for key in sorted(set(before) | set(now))
        if before.get(key) != now.get(key)
    }
    if different:
        said = '; '.join(f'{key}: {a!r} there, {b!r} here' for key, (a, b) in different.items())
        raise ValueError(
            f'--compare {path} was measured with other settings ({said}); repeat one of the two '
            'with the settings of the other'
        )
    return content


def elsewhere(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A remark where an earlier record is of another machine, or of unknown origin; else ''."""
    one, other = (content.get('environment', {}).get('machine') for content in (before, now))
    if one == other:
        return ''
    return f', which was measured on another machine ({one}): its times do not compare'


def load(path: str | os.PathLike) -> dict[str, Any]:
    """A record of any subcommand.

    Raises:
        FileNotFoundError: There is no such file. ValueError: It is no record of a benchmark.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f'{path} not found; give a file that --json of a benchmark wrote')
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        complete = {'subcommand', 'settings', 'results'} <= set(content)
    except (ValueError, TypeError):
        complete = False
    if not complete or content.get('format') != FORMAT:
        raise ValueError(
            f'{path} is no record of a benchmark of format {FORMAT}; give a file that --json wrote'
        )
    return content


def leaves(node: Any, path: str = '') -> Iterator[tuple[str, float]]:
    """Numbers in nested results by path; of summaries the median alone."""
    if isinstance(node, Mapping):
        if {'median', 'values'} <= set(node):
            yield path, float(node['median'])
            return
        for key, value in node.items():
            yield from leaves(value, f'{path}.{key}' if path else str(key))
    elif isinstance(node, (int, float)) and not isinstance(node, bool):
        yield path, float(node)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[list[Any]]:
    """Rows of path, before, now, and change in percent; figures that one of them lacks say so."""
    a, b = dict(leaves(before)), dict(leaves(now))
    rows = []
    for key in dict.fromkeys([*a, *b]):
        old, new = a.get(key), b.get(key)
        if old is None or new is None:
            change = 'only ' + ('now' if old is None else 'before')
        elif old == new:
            change = '0 %'
        else:
            change = f'{100 * (new / old - 1):+.1f} %' if old else 'from 0'
        rows.append([key, old, new, change])
    return rows
