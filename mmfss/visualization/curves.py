"""Training curves of one or several runs in one picture; needs no server and no display."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mmfss.files import atomic, check_writable
from mmfss.visualization.scalars import History, read_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = ('.png', '.pdf', '.svg')
# of Okabe and Ito ("Color Universal Design", 2008): told apart with any colour vision
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')
STYLES: tuple[Literal['-', '--', ':', '-.'], ...] = ('-', '--', ':', '-.')
_COUNTS = ('time', 'data_time', 'classes', 'episodes')  # logged with the metrics, but none
_PER_ROW = 3
_LONGEST = 60  # letters of a name in the legend
Panel = tuple[str, list[str], bool]
"""Title, keys, and whether they are of validation."""


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """Centred moving average over ``window`` points, fewer at both ends; NaN are left out.

    Returns:
        float64 (n,); NaN where there is no number in the window.
    """
    numbers = np.asarray(values, np.float64)
    half = window // 2
    out = np.full(len(numbers), np.nan)
    for i in range(len(numbers)):
        near = numbers[max(0, i - half) : i + half + 1]
        near = near[np.isfinite(near)]
        if len(near):
            out[i] = near.mean()
    return out


def run_names(work_dirs: Sequence[str | Path]) -> list[str]:
    """Names of runs: as many of the last folders of each path as tell them apart."""
    parts = [Path(path).resolve().parts for path in work_dirs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(path[-depth:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f'a run is named twice: {", ".join(map(str, work_dirs))}; name each once')


def _panels(histories: Sequence[History], keys: Sequence[str]) -> list[Panel]:
    """What to draw where: losses share a panel, so do learning rates and all of validation;
    anything else has one of its own."""
    train = list(dict.fromkeys(key for history in histories for key in history.train))
    val = list(dict.fromkeys(key for history in histories for key in history.val))
    for pattern in keys:
        if not any(fnmatchcase(key, pattern) for key in train + val):
            raise ValueError(f'no run has a scalar {pattern!r}; there are {", ".join(train + val)}')
    if keys:
        train, val = (
            [key for key in names if any(fnmatchcase(key, pattern) for pattern in keys)]
            for names in (train, val)
        )
    else:
        losses = [key for key in train if 'loss' in key]
        rates = ['lr'] if 'lr' in train else [key for key in train if key.endswith('lr')]
        train = (['loss'] if 'loss' in losses else losses) + rates
        # not IoU/dog, novel/IoU/dog, ...: the classes one by one are too many
        val = [key for key in val if 'IoU/' not in key and key.split('/')[-1] not in _COUNTS]
    by_title: dict[str, list[str]] = {}
    for key in train:
        rate = key in ('lr', 'base_lr') or key.endswith(('/lr', '.lr'))
        title = 'loss' if 'loss' in key else 'learning rate' if rate else key
        by_title.setdefault(title, []).append(key)
    panels = [(title, names, False) for title, names in by_title.items()]
    return [*panels, (val[0] if len(val) == 1 else 'validation', val, True)] if val else panels


def plot(histories: Sequence[History], keys: Sequence[str] = (), window: int = 0) -> Figure:
    """One panel for losses, one for learning rates, one for the metrics of validation.

    Args:
        histories: the runs, a colour each.
        keys: names of scalars or patterns (``'IoU/*'``) to draw instead of the default: loss,
            learning rate, metrics but for those of single classes.
        window: points of the moving average of losses; 1 for none, 0 for a twentieth of the
            points, at least 5. What was logged is drawn thin behind it.

    Raises:
        ValueError: A key that no run has, or nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    panels = _panels(histories, keys)
    if not panels:
        raise ValueError('there is nothing to draw: no loss, learning rate or metric was logged')
    columns = min(len(panels), _PER_ROW)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, names, is_val) in zip(grid, panels):
        _fill(axes, histories, names, is_val, window)
        axes.set_title(title)
    lines = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], linewidth=2) for i in range(len(histories))
    ]
    names = [history.name for history in histories]  # they differ at their ends
    labels = [n if len(n) <= _LONGEST else '…' + n[-_LONGEST + 1 :] for n in names]
    figure.legend(lines, labels, loc='outside lower left', ncols=columns, frameon=False)
    return figure


def _fill(
    axes: Axes, histories: Sequence[History], names: list[str], is_val: bool, window: int
) -> None:
    """All series of one panel: a colour for each run, a style for each key."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    for run, history in enumerate(histories):
        for place, key in enumerate(names):
            series = (history.val if is_val else history.train).get(key, {})
            steps, values = list(series), list(series.values())
            points = (window or max(5, len(series) // 20)) if 'loss' in key else 1
            colour, style = COLOURS[run % len(COLOURS)], STYLES[place % len(STYLES)]
            if points > 1 and len(values) > 2:
                axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.35)
                values = smooth(values, points).tolist()
            marker = 'o' if len(steps) <= 30 and points == 1 else None
            axes.plot(
                steps, values, style, color=colour, linewidth=1.6, marker=marker, markersize=3
            )
    units = {history.val_unit for history in histories} if is_val else {'iteration'}
    axes.set_xlabel(' or '.join(sorted(units)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.grid(alpha=0.25)
    if len(names) > 1:
        lines = [
            Line2D([], [], color='0.3', linestyle=STYLES[i % len(STYLES)])
            for i in range(len(names))
        ]
        axes.legend(lines, names, fontsize='small')


def write_curves(
    work_dirs: Sequence[str | Path],
    out: str | Path,
    keys: Sequence[str] = (),
    window: int = 0,
) -> list[History]:
    """Read runs, draw them, write the picture whole or not at all.

    Args:
        work_dirs: one or several runs, see :func:`mmfss.visualization.scalars.find_scalars`.
        out: picture to write, ``.png``, ``.pdf`` or ``.svg``.
        keys, window: see :func:`plot`.

    Returns:
        The runs, in the order given.

    Raises:
        FileNotFoundError: A folder that does not exist or has no scalars.
        ValueError: Bad name of the picture, broken scalars, unknown key, nothing to draw.
    """
    if Path(out).suffix not in SUFFIXES:
        raise ValueError(f"the picture must end in {', '.join(SUFFIXES)}, got '{out}'")
    if window < 0:
        raise ValueError(f'the window must be >= 0 points (0: choose, 1: none), got {window}')
    if not work_dirs:
        raise ValueError('there must be at least one run to draw, got none')
    check_writable(out, '--out')
    names = run_names(work_dirs)
    histories = [read_history(path, name) for path, name in zip(work_dirs, names)]
    figure = plot(histories, keys, window)
    with atomic(out) as part:
        figure.savefig(part, format=Path(out).suffix[1:])
    return histories
