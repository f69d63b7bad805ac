"""Figures for a paper: episodes in rows, methods side by side; masks and text are vectors.

Columns: supports with their masks, the query with its truth, and of each method its maps, where
they are asked for, and its prediction with the outline of the truth.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mmfss.files import atomic
from mmfss.visualization.curves import SUFFIXES
from mmfss.visualization.episodes import MAX_SUPPORTS
from mmfss.visualization.overlays import (
    ERROR_LEGEND,
    EXTRA,
    HIT,
    IGNORE_COLOUR,
    IGNORED,
    MISSED,
    PREDICTION_COLOUR,
    SUPPORT_COLOUR,
    TRUTH_COLOUR,
    error_kinds,
    overlay_heat,
)
from mmfss.visualization.visualizer import ShownEpisode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 200
"""Of photos in a figure, and of one that is written as pixels."""
WIDTHS = (0.4, 4.0)
"""Of a panel, in inches."""
_GAP, _MARGIN, _LINE = 0.04, 0.25, 0.16  # inches: between panels, beside them, a line of text
_FONT = 7.0  # points


def figure(
    rows: Sequence[Mapping[str, ShownEpisode]],
    width: float = 1.2,
    maps: bool = False,
    errors: bool = False,
    texts: Mapping[str, Mapping[str, str]] | None = None,
) -> Figure:
    """Draw episodes.

    Args:
        rows: for each episode what each method made of it, by the method's name; of all the same
            methods, in one order.
        width: of a panel, inches.
        maps: draw all maps of the methods, too.
        errors: colour hits, extra and missed pixels in the place of the predictions.
        texts: of each method, what its maps show; written below.

    Returns:
        A figure of matplotlib, of the size that its panels take.

    Raises:
        ValueError: No row, rows of different methods, or a width out of :data:`WIDTHS`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not rows or len({tuple(row) for row in rows}) != 1 or not rows[0]:
        raise ValueError('a figure needs at least one episode, and all of the same methods')
    check_width(width)
    methods = list(rows[0])
    shots = [min(max(len(row[methods[0]].supports) for row in rows), MAX_SUPPORTS)]
    names = {m: list(dict.fromkeys(k for row in rows for k in row[m].maps)) for m in methods}
    if not maps:
        names = dict.fromkeys(methods, [])
    columns = shots[0] + 1 + sum(len(names[m]) + 1 for m in methods)
    heights = [width * max(_tall(row[methods[0]]), 0.3) for row in rows]
    notes = [
        f'{name} ({method}): {texts[method][name]}' if len(methods) > 1 else
        f'{name}: {texts[method][name]}'
        for method in methods for name in names[method] if name in (texts or {}).get(method, {})
    ]  # fmt: skip
    across = columns * (width + _GAP)
    notes = [line for note in notes for line in _wrapped(note, across)]
    colours = _colours(errors)
    side_by_side = min(len(colours), max(1, int(across / 0.7)))  # 0.7 inches take the longest
    foot = _LINE * (len(notes) + -(-len(colours) // side_by_side)) + 0.1
    panels = _panels(rows[0], shots[0], names)
    captions = [_caption(panel, rows[0], width) for panel in panels]
    head = _LINE * (1 + max(map(len, captions)))
    # below each panel is a line, of the IoU or the class
    size = (2 * _MARGIN + across, head + sum(heights) + len(rows) * (_LINE + _GAP) + foot)
    drawn = Figure(figsize=size, dpi=DPI)
    FigureCanvasAgg(drawn)
    top = size[1] - head
    for place, (row, height) in enumerate(zip(rows, heights)):
        top -= height
        for column, panel in enumerate(panels):
            left = _MARGIN + column * (width + _GAP)
            axes = drawn.add_axes(
                (left / size[0], top / size[1], width / size[0], height / size[1])
            )
            axes.set_axis_off()
            _draw(axes, panel, row, width, errors)
            if place == 0:
                axes.set_title('\n'.join(captions[column]), fontsize=_FONT, pad=3)
            if panel[0] == 'prediction' and row[panel[1]].iou is not None:
                _below(axes, f'IoU {row[panel[1]].iou:.1f} %')
            elif panel[0] == 'support' and panel[1] == '0':
                first = row[methods[0]]
                _below(axes, f'{first.number}: {first.class_name}')
        top -= _LINE + _GAP
    _legend(drawn, size, notes, colours, side_by_side)
    return drawn


def _tall(shown: ShownEpisode) -> float:
    """Height of the query as a share of its width, at its own proportions."""
    return shown.prediction.shape[0] / shown.prediction.shape[1]


def _panels(
    row: Mapping[str, ShownEpisode], shots: int, names: Mapping[str, Sequence[str]]
) -> list[tuple[str, str, str]]:
    """Kind, method (or number of the support) and map of each panel of a row."""
    panels = [('support', str(k), '') for k in range(shots)]
    panels.append(('truth', next(iter(row)), ''))
    for method in row:
        panels += [('map', method, name) for name in names[method]]
        panels.append(('prediction', method, ''))
    return panels


def _draw(
    axes: Axes,
    panel: tuple[str, str, str],
    row: Mapping[str, ShownEpisode],
    width: float,
    errors: bool,
) -> None:
    """Fill a panel."""
    kind, of, name = panel
    pixels = max(1, round(width * DPI))
    if kind == 'support':
        first = next(iter(row.values()))
        if int(of) >= len(first.supports):
            return
        photo, mask = first.supports[int(of)], first.support_masks[int(of)]
        _photo(axes, photo, photo.shape[:2], pixels)
        _fill(axes, mask == 1, SUPPORT_COLOUR, 0.45)
        _fill(axes, mask == 255, IGNORE_COLOUR, 0.7, outline=False)
        return
    shown = row[of]
    size = shown.prediction.shape[:2]
    if kind == 'map':
        _photo(axes, shown.query, size, pixels, shown.maps.get(name))
        return
    _photo(axes, shown.query, size, pixels)
    if kind == 'truth':
        if shown.truth is not None:
            _fill(axes, shown.truth == 1, TRUTH_COLOUR, 0.45)
            _fill(axes, shown.truth == 255, IGNORE_COLOUR, 0.7, outline=False)
        return
    if errors and shown.truth is not None:
        kinds = error_kinds(shown.prediction, shown.truth)
        for one in (HIT, EXTRA, MISSED, IGNORED):
            _fill(axes, kinds == one, ERROR_LEGEND[one][1], 0.7, outline=False)
        return
    _fill(axes, shown.prediction == 1, PREDICTION_COLOUR, 0.45)
    if shown.truth is not None:
        _fill(axes, shown.truth == 1, TRUTH_COLOUR, 0.0)


def _caption(
    panel: tuple[str, str, str], row: Mapping[str, ShownEpisode], width: float
) -> list[str]:
    """Lines above a panel."""
    kind, of, name = panel
    if kind == 'support':
        text = f'support {int(of) + 1}' if len(next(iter(row.values())).supports) > 1 else 'support'
    elif kind == 'truth':
        text = 'query, truth' if row[of].truth is not None else 'query'
    elif kind == 'map':
        return [*(_wrapped(of, width) if len(row) > 1 else []), *_wrapped(name, width)]
    else:
        text = of
    return _wrapped(text, width)


def _wrapped(text: str, width: float) -> list[str]:
    """Lines of a text that take no more than ``width`` inches."""
    return textwrap.wrap(text, max(8, int(width * 15)))


def _photo(
    axes: Axes,
    photo: np.ndarray,
    size: tuple[int, int],
    pixels: int,
    heat: np.ndarray | None = None,
) -> None:
    """Embed a photo of proportions ``size`` (h, w), at most ``pixels`` wide or high; the panel
    counts in pixels of ``size`` from here on."""
    scale = min(1.0, pixels / max(size))
    shape = (max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))
    smaller = shape[0] < photo.shape[1] or shape[1] < photo.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    image = cv2.resize(photo, shape, interpolation=how)
    if heat is not None:
        image = overlay_heat(image, heat)
    height, width = size
    axes.imshow(image, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation='none')


def _fill(
    axes: Axes,
    mask: np.ndarray,
    colour: Sequence[int],
    opacity: float,
    outline: bool = True,
) -> None:
    """Paths of a mask, bool (h, w), filled and outlined; its border at that of the image is no
    border of the object."""
    if not mask.any():
        return
    rgb = tuple(part / 255 for part in colour)
    values = mask.astype(np.float32)
    if opacity:
        axes.contourf(values, [0.5, 1.5], colors=[rgb], alpha=opacity, antialiased=True)
    if outline and not mask.all():
        axes.contour(values, [0.5], colors=[rgb], linewidths=0.8)


def _below(axes: Axes, text: str) -> None:
    axes.text(
        0.5, -0.02, text, transform=axes.transAxes, ha='center', va='top', fontsize=_FONT,
    )  # fmt: skip


def _colours(errors: bool) -> list[tuple[str, Sequence[int]]]:
    """What the colours mean."""
    colours: list[tuple[str, Sequence[int]]] = [('support', SUPPORT_COLOUR)]
    colours.append(('truth', TRUTH_COLOUR))
    return colours + (
        list(ERROR_LEGEND.values()) if errors else [('prediction', PREDICTION_COLOUR)]
    )


def _legend(
    drawn: Figure,
    size: tuple[float, float],
    notes: Sequence[str],
    colours: Sequence[tuple[str, Sequence[int]]],
    side_by_side: int,
) -> None:
    """What the colours mean, so many in a line, and below it what the maps show."""
    from matplotlib.patches import Patch

    handles = [Patch(color=[part / 255 for part in colour], label=name) for name, colour in colours]
    bottom = (_LINE * len(notes) + 0.04) / size[1]
    drawn.legend(
        handles=handles, loc='lower left', ncols=side_by_side, frameon=False, fontsize=_FONT,
        bbox_to_anchor=(_MARGIN / size[0], bottom), borderaxespad=0, handlelength=1.0,
    )  # fmt: skip
    for place, note in enumerate(reversed(notes)):
        drawn.text(_MARGIN / size[0], (_LINE * place + 0.05) / size[1], note, fontsize=_FONT)


def write_figure(drawn: Figure, out: str | Path) -> None:
    """Write a figure whole or not at all; text in PDF and SVG stays text.

    Args:
        out: ``.png``, ``.pdf`` or ``.svg``.

    Raises:
        ValueError: It ends otherwise.
    """
    import matplotlib

    check_suffix(out)
    kept = {'pdf.fonttype': 42, 'svg.fonttype': 'none', 'svg.hashsalt': 'mmfss'}
    level = logging.getLogger('fontTools.subset').level
    logging.getLogger('fontTools.subset').setLevel(logging.WARNING)
    undated = {'.pdf': {'CreationDate': None}, '.svg': {'Date': None}}.get(Path(out).suffix)
    try:
        with matplotlib.rc_context(kept), atomic(out) as part:
            drawn.savefig(part, format=Path(out).suffix[1:], metadata=undated)
    finally:
        logging.getLogger('fontTools.subset').setLevel(level)


def check_width(width: float) -> None:
    """Whether panels may be so wide.

    Raises:
        ValueError: out of :data:`WIDTHS`.
    """
    if not WIDTHS[0] <= width <= WIDTHS[1]:
        low, high = WIDTHS
        raise ValueError(f'the width of a panel must be {low} to {high} inches, got {width}')


def check_suffix(out: str | Path) -> None:
    """Whether a figure can be written there.

    Raises:
        ValueError: It ends otherwise than in one of :data:`~mmfss.visualization.curves.SUFFIXES`.
    """
    if Path(out).suffix not in SUFFIXES:
        raise ValueError(f"a figure must end in {', '.join(SUFFIXES)}, got '{out}'")
