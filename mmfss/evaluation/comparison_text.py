"""A comparison as text, Markdown, LaTeX, CSV and plain types."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from mmfss.evaluation.comparison import ALPHA, Compared, Difference
from mmfss.evaluation.report_text import table_lines
from mmfss.evaluation.statistics import LEVEL
from mmfss.files import as_cell

COST = {
    'parameters': ('parameters, million', 1e-6),
    'trained': ('of these trained', 1e-6),
    'gflop': ('GFLOP', 1.0),
    'ms': ('ms', 1.0),
    'memory': ('peak memory, MiB', 2**-20),
}
"""Entry of a record's cost -> head of its column, and the factor of what is shown."""
_OPEN = '-'


def document(compared: Compared, markdown: bool) -> str:
    """Figures, differences and how they were made.

    Args:
        compared: The comparison.
        markdown: Tables with pipes; otherwise aligned columns.
    """
    lines = [*table_lines(figure_table(compared), markdown), '']
    lines += [*table_lines(difference_table(compared.differences), markdown), '']
    lines += notes(compared)
    return '\n'.join(lines) + '\n'


def figure_table(compared: Compared, bold: str = '{}') -> list[list[str]]:
    """Head and rows: K, method, folds, mean, deviations, what it costs.

    Args:
        compared: The comparison.
        bold: What the mean becomes that is surely above all others.
    """
    costs = {(n, k): compared.cost(n, k) for n in compared.names for k in compared.shots}
    shown = [name for name in COST if any(name in cost for cost in costs.values())]
    head = ['shots', 'method', *(f'fold {fold}' for fold in compared.folds)]
    head += ['mean', 'std of episodes', 'std of trainings', *(COST[name][0] for name in shown)]
    rows = [head]
    for shots in compared.shots:
        best = compared.best(shots)
        for name in compared.names:
            found = compared.figures(name, shots)
            mean = _number(found.mean)
            rows.append([
                str(shots), name, *(_number(found.folds[fold]) for fold in compared.folds),
                bold.format(mean) if name == best else mean,
                _number(found.of_episodes, 2), _number(found.of_trainings, 2),
                *(_cost(costs[name, shots], entry) for entry in shown),
            ])  # fmt: skip
    return rows


def difference_table(differences: Sequence[Difference], every: bool = False) -> list[list[str]]:
    """Head and rows of pairs: their difference, its interval, what the test says.

    Args:
        differences: As :attr:`Compared.differences`.
        every: Classes too, and not the mean and folds alone.
    """
    interval = f'{100 * LEVEL:g} % interval'
    rows = [['shots', 'of', 'pair', 'difference', interval, 'p', 'p corrected', 'verdict']]
    for found in differences:
        if every or found.scope == 'mean' or found.scope.startswith('fold '):
            low, high = found.interval.low, found.interval.high
            rows.append([
                str(found.shots), found.scope, f'{found.one} - {found.other}',
                f'{found.value:+.2f}', f'{low:+.2f} .. {high:+.2f}', f'{found.p:.4f}',
                f'{found.corrected:.4f}', verdict(found),
            ])  # fmt: skip
    return rows


def verdict(found: Difference) -> str:
    """Which of a pair is better, if that is sure."""
    if not found.sure:
        return 'not told apart'
    return f'{found.one if found.value > 0 else found.other} is better'


def notes(compared: Compared) -> list[str]:
    """How to read the tables."""
    pairs = len(compared.names) * (len(compared.names) - 1) // 2
    known = any(compared.cost(name, shots) for name in compared.names for shots in compared.shots)
    costs = (
        'GFLOP (a product and a sum are two operations), ms and memory are of one episode, its '
        'supports and query encoded and nothing kept. Memory: on CUDA what torch holds, elsewhere '
        'the whole process.'
    )
    return [
        f'mIoU in percent over folds {_listed(compared.folds)}, episode seeds '
        f'{_listed(compared.seeds)}. std of episodes: over episode seeds; std of trainings: over '
        'the trainings of a method; both are of the mean over all else (n - 1).',
        f'Difference: of the same episodes. Interval: paired bootstrap, {compared.resamples} '
        'resamples of the query images of each class; it says nothing of other trainings. p: '
        f'paired permutation test, two-sided, {compared.permutations} permutations; corrected by '
        f"Holm's method for {pairs} pair{'s' * (pairs > 1)}. Verdict: corrected p below {ALPHA:g}.",
        *[costs] * known,
    ]


def latex(compared: Compared) -> str:
    """A table for the package booktabs; a mean is bold where the paired test says that it is above
    all others."""
    rows = figure_table(compared, bold=r'\textbf{{{}}}')
    rows = [[_escaped(cell) for cell in row] for row in rows]
    width = len(rows[0])
    lines = [
        r'% \usepackage{booktabs}',
        rf'\begin{{tabular}}{{rl{"r" * (width - 2)}}}',
        r'\toprule',
    ]
    lines += [' & '.join(rows[0]) + r' \\', r'\midrule']
    for before, row in zip([rows[1], *rows[1:]], rows[1:]):
        if before[0] != row[0]:
            lines.append(r'\midrule')
        lines.append(' & '.join(row) + r' \\')
    lines += [r'\bottomrule', r'\end{tabular}']
    lines += [f'% {_escaped(line)}' for line in notes(compared)]
    return '\n'.join(lines) + '\n'


def csv_text(compared: Compared) -> str:
    """A line for each pair and scope, classes too; nothing rounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(
        ('shots', 'scope', 'one', 'other', 'difference', 'low', 'high', 'p', 'p_corrected')
    )
    for found in compared.differences:
        writer.writerow((
            found.shots, as_cell(found.scope), as_cell(found.one), as_cell(found.other),
            found.value, found.interval.low, found.interval.high, found.p, found.corrected,
        ))  # fmt: skip
    return text.getvalue()


def plain_types(compared: Compared) -> dict[str, Any]:
    """All of it for JSON, nothing rounded."""
    return dict(
        methods=list(compared.names),
        shots=compared.shots,
        folds=compared.folds,
        seeds=compared.seeds,
        trainings={method.name: len(method.trainings) for method in compared.methods},
        notes=notes(compared),
        figures=[
            dict(
                method=name,
                shots=shots,
                **vars(compared.figures(name, shots)),
                cost=dict(compared.cost(name, shots)),
            )
            for shots in compared.shots
            for name in compared.names
        ],
        differences=[
            dict(vars(found), interval=[found.interval.low, found.interval.high], sure=found.sure)
            for found in compared.differences
        ],
        best={str(shots): compared.best(shots) for shots in compared.shots},
    )


def _number(value: float | None, digits: int = 1) -> str:
    return _OPEN if value is None else f'{value:.{digits}f}'


def _cost(cost: Mapping[str, float], entry: str) -> str:
    return f'{cost[entry] * COST[entry][1]:.4g}' if entry in cost else _OPEN


def _listed(values: Sequence[int]) -> str:
    return ', '.join(map(str, values))


def _escaped(text: str) -> str:
    """Text for LaTeX; what :func:`latex` has made bold stays."""
    if text.startswith(r'\textbf{'):
        return text
    names = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}'}
    return ''.join(names.get(c, f'\\{c}' if c in '&%$#_{}' else c) for c in text)
