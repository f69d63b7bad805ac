"""Pictures of episodes: supports, query, what the model made of them, and its errors in one row.

Pure functions on numpy arrays. Shapes: H, W of an image; P the side of a panel. Images are RGB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from mmfss.visualization.overlays import (
    ERROR_LEGEND,
    IGNORED,
    PREDICTION_COLOUR,
    SUPPORT_COLOUR,
    TRUTH_COLOUR,
    error_kinds,
    overlay_errors,
    overlay_heat,
    overlay_mask,
)
from mmfss.visualization.text import text_width, write_text

MAX_SUPPORTS = 5
GAP = 4
TITLE_HEIGHT = 22
CAPTION_HEIGHT = 18
PAPER = (24, 24, 28)
_SWATCH = 10  # side of a square of the legend

Panel = tuple[str, np.ndarray]


def _check_image(image: np.ndarray, what: str) -> np.ndarray:
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or 0 in image.shape
    ):
        got = f'{getattr(image, "dtype", type(image).__name__)} {getattr(image, "shape", "")}'
        raise ValueError(f'{what} must be a uint8 array (H, W, 3) in RGB, got {got}')
    return image


def _check_mask(mask: np.ndarray, what: str, allowed: tuple[int, ...]) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or 0 in mask.shape:
        raise ValueError(f'{what} must be an array (H, W), got shape {mask.shape}')
    if not np.isin(mask, allowed).all():
        strange = sorted(set(np.unique(mask).tolist()) - set(allowed))[:5]
        raise ValueError(f'{what} may hold only {allowed}, got {strange}; binarise it first')
    return mask.astype(np.uint8)


def _fit(image: np.ndarray, panel: int, shape: tuple[int, int]) -> np.ndarray:
    """Resize so that an image of proportions ``shape`` (H, W) has its longer side at ``panel``."""
    scale = panel / max(shape)
    height, width = (max(1, round(side * scale)) for side in shape)
    shrinks = height < image.shape[0] or width < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=how)


def _compose(
    panels: Sequence[Panel], title: str, panel: int, legend: Sequence[int] = ()
) -> np.ndarray:
    """Panels side by side under their captions; above them the title, and on its right the colours
    of the errors, where they leave it half of the width."""
    top = TITLE_HEIGHT + CAPTION_HEIGHT
    width = len(panels) * (panel + GAP) + GAP
    row = blank(top + panel + GAP, width)
    names = [ERROR_LEGEND[kind] for kind in legend]
    taken = sum(_SWATCH + 4 + text_width(name) + 12 for name, _ in names)
    if taken > width // 2:
        names, taken = [], 0
    left, upper = width - GAP - taken + 12, (TITLE_HEIGHT - _SWATCH) // 2
    for name, colour in names:
        row[upper : upper + _SWATCH, left : left + _SWATCH] = colour
        left += _SWATCH + 4
        write_text(row, name, left, TITLE_HEIGHT - 7, text_width(name))
        left += text_width(name) + 12
    write_text(row, title, GAP + 2, TITLE_HEIGHT - 7, width - 2 * GAP - 2 - taken)
    for k, (caption, picture) in enumerate(panels):
        left = GAP + k * (panel + GAP)
        write_text(row, caption, left + 2, top - 6, panel - 4)
        y, x = top + (panel - picture.shape[0]) // 2, left + (panel - picture.shape[1]) // 2
        row[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return row


def draw_episode(
    query: np.ndarray,
    supports: Sequence[np.ndarray],
    support_masks: Sequence[np.ndarray],
    prediction: np.ndarray,
    truth: np.ndarray | None = None,
    maps: Mapping[str, np.ndarray] | None = None,
    title: str = '',
    panel_size: int = 160,
) -> np.ndarray:
    """One row: supports with masks, query, maps of the method, prediction, truth, errors.

    Args:
        query: uint8 (H, W, 3) RGB, as the model saw it.
        supports: K such images; the first ``MAX_SUPPORTS`` are drawn.
        support_masks: K masks (h, w) of 0, 1, 255.
        prediction: (h, w) of 0, 1, of any size: its proportions are those of the query's panels.
        truth: (h, w) of 0, 1, 255 (shown yellow), of the prediction's size; None leaves out the
            panels of truth and errors.
        maps: name -> (h, w) of any size, 0..1; each is drawn as heat under its name, in order.
        title: written above the row, e.g. the class; beside it the legend of the errors.
        panel_size: P, pixels, 48 to 1024.

    Returns:
        uint8 (TITLE_HEIGHT + CAPTION_HEIGHT + P + GAP, n * (P + GAP) + GAP, 3), n panels.

    Raises:
        ValueError: On arrays of another shape, dtype or range, and on supports without masks.
    """
    if not 48 <= panel_size <= 1024:
        raise ValueError(f'panel_size must be from 48 to 1024 pixels, got {panel_size}')
    if len(supports) != len(support_masks) or len(supports) == 0:
        raise ValueError(
            f'there must be one mask for each support, and at least one support; '
            f'got {len(supports)} supports, {len(support_masks)} masks'
        )
    panels: list[Panel] = []
    for k, (image, mask) in enumerate(zip(supports[:MAX_SUPPORTS], support_masks), 1):
        image = _check_image(image, f'support {k}')
        mask = _check_mask(mask, f'mask of support {k}', (0, 1, 255))
        picture = overlay_mask(_fit(image, panel_size, image.shape[:2]), mask, SUPPORT_COLOUR)
        panels.append((f'support {k}/{len(supports)}', picture))
    predicted = _check_mask(prediction, 'prediction', (0, 1))
    image = _fit(_check_image(query, 'query'), panel_size, predicted.shape)
    panels.append(('query', image))
    for name, heat in (maps or {}).items():
        heat = np.asarray(heat)
        if heat.ndim != 2 or 0 in heat.shape:
            raise ValueError(f'map {name} must be an array (h, w); got {heat.shape}')
        if not np.isfinite(heat).all():
            raise ValueError(f'map {name} must be finite, within 0..1; got NaN or infinity')
        panels.append((name, overlay_heat(image, heat)))
    panels.append(('prediction', overlay_mask(image, predicted, PREDICTION_COLOUR)))
    legend: list[int] = []
    if truth is not None:
        mask = _check_mask(truth, 'truth', (0, 1, 255))
        kinds = error_kinds(predicted, mask)
        panels.append(('truth', overlay_mask(image, mask, TRUTH_COLOUR)))
        panels.append(('errors', overlay_errors(image, kinds)))
        legend = [kind for kind in ERROR_LEGEND if kind != IGNORED or (kinds == IGNORED).any()]
    return _compose(panels, title, panel_size, legend)


def blank(height: int, width: int) -> np.ndarray:
    """Paper to put panels on: uint8 (height, width, 3)."""
    return np.full((height, width, 3), PAPER, np.uint8)


def with_notes(picture: np.ndarray, notes: Sequence[str]) -> np.ndarray:
    """A picture of rows, and below it lines of text; a line that is wider is shortened."""
    strip = blank(len(notes) * CAPTION_HEIGHT + GAP, picture.shape[1])
    for place, note in enumerate(notes, 1):
        write_text(strip, note, GAP + 2, place * CAPTION_HEIGHT - 4, strip.shape[1] - 2 * GAP)
    return np.concatenate([picture, strip]) if notes else picture


def stack_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of :func:`draw_episode` one below the other; narrower ones are filled on the right.

    Returns:
        uint8 (sum of heights, widest, 3).

    Raises:
        ValueError: Where there is no row.
    """
    if len(rows) == 0:
        raise ValueError('there must be at least one row to stack, got none')
    width = max(row.shape[1] for row in rows)
    canvas = blank(sum(row.shape[0] for row in rows), width)
    top = 0
    for row in rows:
        canvas[top : top + row.shape[0], : row.shape[1]] = _check_image(row, 'a row')
        top += row.shape[0]
    return canvas
