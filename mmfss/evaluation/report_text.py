"""A :class:`~mmfss.evaluation.report.Report` as JSON, Markdown and aligned text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmfss.evaluation.report import ABSENT, STATISTICS, Report
from mmfss.evaluation.statistics import LEVEL

#: entries of the header that are in the title, in the protocol, or listed one by one
_ELSEWHERE = ('benchmark', 'role', 'environment', 'folds_in_all')
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
    return _document(report, in_markdown=True)


def text(report: Report) -> str:
    """The same with aligned columns."""
    return _document(report, in_markdown=False)


def _document(report: Report, in_markdown: bool) -> str:
    lines = [title(report), '', *table_lines(table(report), in_markdown), '', *notes(report), '']
    lines += [*table_lines(_checkpoint_table(report, short=not in_markdown), in_markdown), '']
    lines += ['- ' * in_markdown + f'{name}: {value}' for name, value in facts(report)]
    return '\n'.join(lines) + '\n'


def table_lines(rows: Sequence[Sequence[str]], in_markdown: bool) -> list[str]:
    """A table of text as lines.

    Args:
        rows: cells, the head first; all of one length.
        in_markdown: with pipes, those in cells escaped; otherwise columns of equal width, numbers
            to the right.
    """
    if in_markdown:
        safe = [[cell.replace('|', '\\|') for cell in row] for row in rows]
        head, *lines = ['| ' + ' | '.join(row) + ' |' for row in safe]
        return [head, '|' + '---|' * len(rows[0]), *lines]
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(cell[:1] in '-0123456789' for cell in column[1:]) for column in columns]
    return [
        '  '.join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric)
        ).rstrip()
        for row in rows
    ]


def title(report: Report) -> str:
    """What the figures are."""
    role = report.header.get('role', 'novel')
    done = len(report.runs)
    missing = '' if done == report.planned else f' UNFINISHED: {done} of {report.planned} runs.'
    seeds = ', '.join(map(str, report.seeds))
    folds, in_all = len(report.folds), report.header.get('folds_in_all')
    part = '' if in_all in (None, folds) else f', {folds} of {in_all} folds'
    return (
        f'{report.header.get("benchmark")}, {role} classes, mIoU in percent, episode '
        f'seed{"s" * (len(report.seeds) > 1)} {seeds}{part}.{missing}'
    )


def table(report: Report) -> list[list[str]]:
    """Head and rows of the table as cells of text, rounded for reading; of a checkpoint with its
    rule of selection, where all folds have the same."""
    several = len(report.labels) > 1
    absent = any(row.left_out for row in report.rows())
    head = ['shots'] + ['checkpoint'] * several + [f'fold {fold}' for fold in report.folds]
    head += ['mean', 'std', f'{100 * LEVEL:g} % interval', 'FB-IoU']
    head += ['absent as 0'] * absent
    lines = [head]
    for row in report.rows():
        rules = {_rule(selection) for selection in row.selections()}
        name = f'{row.label} ({rules.pop()})' if len(rules) == 1 else row.label
        mean, std = row.mean()
        marked = {*row.left_out, *row.counted_zero}
        cells = [str(row.shots)] + [name] * several
        cells += [_number(row.fold_mean(fold)) + '*' * (fold in marked) for fold in row.folds]
        ends = _OPEN if row.interval is None else ' .. '.join(map(_number, row.interval))
        cells += [_number(mean), _number(std, 2), ends, _number(row.mean('FB-IoU')[0])]
        lines.append(cells + [_number(row.mean(ABSENT)[0])] * absent)
    return lines


def _rule(selection: Any) -> str:
    if isinstance(selection, Mapping):
        return str(selection.get('rule', 'rule not recorded'))
    return str(selection)


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
    kept = [e['checkpoint'] for e in report.checkpoints() if _kept_novel_images(e)]
    if kept:
        which = ', '.join(dict.fromkeys(kept))
        lines.append(f'trained on images that show novel classes, as background: {which}.')
    return lines


def _kept_novel_images(checkpoint: Mapping[str, Any]) -> bool:
    return (checkpoint.get('trained_on') or {}).get('novel_images') == 'kept'


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


def _checkpoint_table(report: Report, short: bool) -> list[list[str]]:
    """Head and rows: file, checksum, epoch and selection of each checkpoint."""
    rows = [['checkpoint', 'fold', 'sha256', 'epoch', 'iter', 'chosen by', 'file']]
    for entry in report.checkpoints():
        sha = entry['sha256'] or _OPEN
        selection = entry['selection']
        figures = selection.get('figures') if isinstance(selection, Mapping) else None
        shown = [f'{name} {_number(value, 2)}' for name, value in (figures or {}).items()]
        chosen = _rule(selection) + (': ' + ', '.join(shown) if shown else '')
        rows.append([
            entry['checkpoint'], str(entry['fold']), sha[:12] if short else sha,
            *(str(_OPEN if entry[k] is None else entry[k]) for k in ('epoch', 'iter')),
            chosen if selection else 'not recorded', entry['path'] or _OPEN,
        ])  # fmt: skip
    return rows
