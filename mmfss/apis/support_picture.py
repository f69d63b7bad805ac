"""The picture of a support set."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mmfss.apis.shots import Shot
from mmfss.apis.support import SupportSet
from mmfss.datasets.classes import label_palette
from mmfss.visualization.episodes import GAP, PAPER, stack_rows
from mmfss.visualization.overlays import outline, overlay_mask
from mmfss.visualization.text import write_text

PANEL = 176
CAPTION = 24
WIDTH = 1280
MAX_SHOTS = 20
MAX_CLASSES = 60


def draw_support(support: SupportSet) -> np.ndarray:
    """A row for each class, with its name, and in it each shot with its mask.

    Shots have the proportions of their original image, at most 176 pixels high and 352 wide. The
    object is tinted in the colour that the class has in predictions and outlined, unknown pixels
    are yellow. Rows are at most 1280 wide and wrap; the first 20 shots of the first 60 classes are
    drawn, and what is left out is said.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    colours = label_palette(len(support.shots))[1:]
    rows: list[np.ndarray] = []
    for label, (name, shots) in enumerate(list(support.shots.items())[:MAX_CLASSES], 1):
        panels = [_panel(shot, colours[label - 1]) for shot in shots[:MAX_SHOTS]]
        left_out = len(shots) - len(panels)
        count = f'{len(shots)} image{"s" if len(shots) > 1 else ""}'
        more = f', {left_out} of them not shown' if left_out else ''
        rows += [_caption(f'{label}  {name}  ({count}{more})'), *_lines(panels)]
    hidden = len(support.shots) - MAX_CLASSES
    if hidden > 0:
        rows.append(_caption(f'+{hidden} classes that are not shown'))
    picture = stack_rows(rows)
    used = np.flatnonzero((picture != PAPER).any((0, 2)))[-1] + 1 + GAP
    return np.ascontiguousarray(picture[:, :used, ::-1])


def _caption(text: str) -> np.ndarray:
    row = np.empty((CAPTION, WIDTH, 3), np.uint8)
    row[:] = PAPER
    write_text(row, text, GAP + 2, CAPTION - 7, WIDTH - 2 * GAP, size=16)
    return row


def _panel(shot: Shot, colour: Sequence[int]) -> np.ndarray:
    """RGB, at the original proportions."""
    height, width = shot.shape
    scale = min(PANEL / height, 2 * PANEL / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if size[1] < shot.image.shape[0] else cv2.INTER_LINEAR
    image = np.ascontiguousarray(cv2.resize(shot.image, size, interpolation=how)[..., ::-1])
    out = overlay_mask(image, shot.mask, (colour[0], colour[1], colour[2]))
    outline(out, cv2.resize(shot.mask, size, interpolation=cv2.INTER_NEAREST) == 1, colour, 2)
    return out


def _lines(panels: list[np.ndarray]) -> list[np.ndarray]:
    """Panels side by side, as many as fit on each line."""
    lines: list[list[np.ndarray]] = [[]]
    used = GAP
    for panel in panels:
        if lines[-1] and used + panel.shape[1] + GAP > WIDTH:
            lines.append([])
            used = GAP
        lines[-1].append(panel)
        used += panel.shape[1] + GAP
    return [_line(line) for line in lines]


def _line(panels: list[np.ndarray]) -> np.ndarray:
    height = max(panel.shape[0] for panel in panels)
    row = np.empty((height + GAP, GAP + sum(p.shape[1] + GAP for p in panels), 3), np.uint8)
    row[:] = PAPER
    left = GAP
    for panel in panels:
        row[: panel.shape[0], left : left + panel.shape[1]] = panel
        left += panel.shape[1] + GAP
    return row
