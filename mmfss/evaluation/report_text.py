"""A :class:`~mmfss.evaluation.report.Report` as JSON, Markdown and aligned text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmfss.evaluation.report import ABSENT, STATISTICS, Report, Row
from mmfss.evaluation.statistics import LEVEL

#: entries of the header that are in the title, in the protocol, or listed one by one
_ELSEWHERE = ('benchmark', 'role', 'environment')
_OPEN = '-'  # what the table has where a figure is not there


def to_json(value: Any, depth: int = 0) -> str:
    """JSON with every number in full; lists of plain values take one line, nan becomes null."""
    pad = '\n' + '  ' * (depth + 1)
    end = '\n' + '  ' * depth
    if isinstance(value, Mapping) and value:
        parts = [
            f'{json.dumps(str(key), ensure_ascii=False)}: {to_json(entry, depth + 1)}'
            for key, entry in value.items()
        ]
        return '{' + pad + f',{pad}'.join(parts) + end + '}'
    if isinstance(value, (list, tuple)):
        nested = any(isinstance(entry, (Mapping, list, tuple)) for entry in value)
        parts = [to_json(entry, depth + 1) for entry in value]
        return '[' + pad + f',{pad}'.join(parts) + end + ']' if nested else f'[{", ".join(parts)}]'
    if isinstance(value, float) and not math.isfinite(value):
        return 'null'
    return json.dumps(value, ensure_ascii=False)


def markdown(report: Report) -> str:
    """Table, then what it was made with."""
    head, *rows = table(report)
    lines = [title(report), '', *_pipes(head, rows), '', *notes(report), '']
    lines += _pipes(*_checkpoint_table(report, short=False))
    lines += ['', *(f'- {name}: {value}' for name, value in facts(report))]
    return '\n'.join(lines) + '\n'


def text(report: Report) -> str:
    """The same with aligned columns."""
    lines = [title(report), '', *_aligned(table(report)), '', *notes(report), '']
    head, rows = _checkpoint_table(report, short=True)
    lines += [*_aligned([head, *rows]), '']
    lines += [f'{name}: {value}' for name, value in facts(report)]
    return '\n'.join(lines) + '\n'


def title(report: Report) -> str:
    """What the figures are."""
    role = report.header.get('role', 'novel')
    done = len(report.runs)
    missing = '' if done == report.planned else f' UNFINISHED: {done} of {report.planned} runs.'
    seeds = ', '.join(map(str, report.seeds))
    return (
        f'{report.header.get("benchmark")}, {role} classes, mIoU in percent, episode '
        f'seed{"s" * (len(report.seeds) > 1)} {seeds}.{missing}'
    )


def table(report: Report) -> list[list[str]]:
    """Head and rows of the table as cells of text, rounded for reading."""
    several = len(report.labels) > 1
    absent = any(row.left_out for row in report.rows())
    head = ['shots'] + ['checkpoint'] * several + [f'fold {fold}' for fold in report.folds]
    head += ['mean', 'std', f'{100 * LEVEL:g} % interval', 'FB-IoU']
    head += ['absent as 0'] * absent
    return [head, *(_cells(row, several, absent) for row in report.rows())]


def _cells(row: Row, several: bool, absent: bool) -> list[str]:
    mean, std = row.mean()
    cells = [str(row.shots)] + [_named(row)] * several
    marked = {*row.left_out, *row.counted_zero}
    cells += [_number(row.fold_mean(fold)) + '*' * (fold in marked) for fold in row.folds]
    ends = _OPEN if row.interval is None else ' .. '.join(map(_number, row.interval))
    cells += [_number(mean), _number(std, 2), ends, _number(row.mean('FB-IoU')[0])]
    return cells + [_number(row.mean(ABSENT)[0])] * absent


def _named(row: Row) -> str:
    """Checkpoint of a row with its rule of selection, where all folds have the same."""
    rules = {_rule(selection) for selection in row.selections()}
    return f'{row.label} ({rules.pop()})' if len(rules) == 1 else row.label


def _rule(selection: Any) -> str:
    if isinstance(selection, Mapping):
        return str(selection.get('rule', 'rule not recorded'))
    return str(selection)


def _chosen(selection: Any) -> str:
    """Rule and validation figures of a checkpoint, as far as its file says."""
    if not selection:
        return 'not recorded'
    figures = selection.get('figures') if isinstance(selection, Mapping) else None
    shown = [f'{name} {_number(value, 2)}' for name, value in (figures or {}).items()]
    return _rule(selection) + (': ' + ', '.join(shown) if shown else '')


def _number(value: float | None, digits: int = 1) -> str:
    return _OPEN if value is None or math.isnan(value) else f'{value:.{digits}f}'


def notes(report: Report) -> list[str]:
    """How to read the table."""
    lines = [
        f'mean: over folds and seeds; std: {STATISTICS["std"]}; interval: '
        f'{STATISTICS["interval"]}, {STATISTICS["resamples"]} resamples, unit: '
        f'{STATISTICS["unit"]}.'
    ]
    left_out = 'left out of the mean, which counts them as 0 in the column "absent as 0".'
    for row in report.rows():
        for classes, what in (
            (row.left_out, left_out),
            (row.counted_zero, 'counted as IoU 0 in the mean (absent_classes: zero).'),
        ):
            for fold, names in classes.items():
                lines.append(
                    f'* {row.shots}-shot, {row.label}, fold {fold}: no episodes of '
                    f'{", ".join(names)}; {what}'
                )
    return lines


def facts(report: Report) -> list[tuple[str, str]]:
    """Protocol and provenance, one line each."""
    found = [(f'protocol: {k}', _value(v)) for k, v in report.protocol().items()]
    found += [(k, _value(v)) for k, v in report.header.items() if k not in _ELSEWHERE]
    environment = report.header.get('environment', {})
    known = environment.get('commit')
    state = 'not known' if known is None else known['sha'] + ' (changed)' * known['dirty']
    found.append(('commit', state))
    found += [(k, _value(v)) for k, v in environment.items() if k != 'commit']
    return found


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ', '.join(f'{k} {_value(v)}' for k, v in value.items()) or 'none'
    if isinstance(value, (list, tuple)):
        return ', '.join(map(_value, value)) or 'none'
    return 'none' if value is None else str(value)


def _checkpoint_table(report: Report, short: bool) -> tuple[list[str], list[list[str]]]:
    """File, checksum, epoch and selection of each checkpoint."""
    head = ['checkpoint', 'fold', 'sha256', 'epoch', 'iter', 'chosen by', 'file']
    rows = []
    for entry in report.checkpoints():
        sha = entry['sha256'] or _OPEN
        rows.append([
            entry['checkpoint'], str(entry['fold']), sha[:12] if short else sha,
            *(str(_OPEN if entry[k] is None else entry[k]) for k in ('epoch', 'iter')),
            _chosen(entry['selection']), entry['path'] or _OPEN,
        ])  # fmt: skip
    return head, rows


def _pipes(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    safe = [[cell.replace('|', '\\|') for cell in row] for row in (head, *rows)]
    lines = ['| ' + ' | '.join(row) + ' |' for row in safe]
    return [lines[0], '|' + '---|' * len(head), *lines[1:]]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width; numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = [all(row[i][:1] in '-0123456789' for row in rows[1:]) for i in range(len(widths))]
    return [
        '  '.join(
            cell.rjust(w) if right else cell.ljust(w)
            for cell, w, right in zip(row, widths, numeric)
        ).rstrip()
        for row in rows
    ]
