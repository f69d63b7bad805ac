"""What a benchmark prints and writes, and how it is compared with an earlier one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfss.evaluation.report_text import table_lines

FORMAT = 1
SECONDS = ('ms (median)', 'low', 'high')


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown with aligned columns; numbers have four digits that count."""
    cells = [
        [
            '-' if value is None else number(value) if isinstance(value, float) else str(value)
            for value in row
        ]
        for row in (header, *rows)
    ]
    widths = [max(map(len, column)) for column in zip(*cells)]
    head, *body = ([c.ljust(width) for c, width in zip(row, widths)] for row in cells)
    return '\n'.join(table_lines([head, *body], in_markdown=True))


def number(value: float) -> str:
    """Four digits that count."""
    size = abs(value)
    if size >= 1000 or size == 0:
        return f'{value:.0f}'
    if size < 0.001:
        return f'{value:.2g}'
    return f'{value:.{3 if size < 1 else 2 if size < 100 else 1}f}'


def spread(times: Mapping[str, Any], factor: float = 1.0) -> list[float]:
    """Median, lowest and highest of a summary; in milliseconds with a factor of 1000."""
    return [factor * times[key] for key in ('median', 'low', 'high')]


def mib(size: float) -> str:
    """Bytes as MiB."""
    return f'{size / 2**20:.0f} MiB'


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
    different = [
        f'{key}: {before.get(key)!r} there, {now.get(key)!r} here'
        for key in sorted(set(before) | set(now))
        if before.get(key) != now.get(key)
    ]
    if different:
        raise ValueError(
            f'--compare {path} was measured with other settings ({"; ".join(different)}); repeat '
            'one of the two with the settings of the other'
        )
    return content


def elsewhere(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A remark where an earlier record is of another machine, or of unknown origin; else ''."""
    one, other = (content.get('environment', {}).get('machine') for content in (before, now))
    if one == other:
        return ''
    return f', which was measured on another machine ({one}): its times do not compare'


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
