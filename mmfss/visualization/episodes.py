"""Pictures of episodes: supports, query, what the model made of them, and its errors in one row.

Pure functions on numpy arrays. Shapes: H, W of an image; P the side of a panel. Images are RGB.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def _write_legend(row: np.ndarray, kinds: Sequence[int]) -> int:
    """The colours of the errors, on the right of the title; returns the pixels it takes."""
    names = [ERROR_LEGEND[kind] for kind in kinds]
    needs = sum(_SWATCH + 4 + text_width(name) + 12 for name, _ in names)
    if needs > row.shape[1] // 2:
        return 0
    left = row.shape[1] - GAP - needs + 12
    top = (TITLE_HEIGHT - _SWATCH) // 2
    for name, colour in names:
        row[top : top + _SWATCH, left : left + _SWATCH] = colour
        left += _SWATCH + 4
        write_text(row, name, left, TITLE_HEIGHT - 7, text_width(name))
        left += text_width(name) + 12
    return needs


def _compose(
    panels: Sequence[Panel], title: str, panel: int, legend: Sequence[int] = ()
) -> np.ndarray:
    top = TITLE_HEIGHT + CAPTION_HEIGHT
    width = len(panels) * (panel + GAP) + GAP
    row = np.empty((top + panel + GAP, width, 3), np.uint8)
    row[:] = PAPER
    taken = _write_legend(row, legend) if legend else 0
    write_text(row, title, GAP + 2, TITLE_HEIGHT - 7, width - 2 * GAP - 2 - taken)
    for k, (caption, picture) in enumerate(panels):
        left = GAP + k * (panel + GAP)
        write_text(row, caption, left + 2, top - 6, panel - 4)
        y, x = top + (panel - picture.shape[0]) // 2, left + (panel - picture.shape[1]) // 2
        row[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return row


def _check_heat(maps: np.ndarray, what: str, shape: str, number: int | None) -> np.ndarray:
    """``number`` maps, or one without the first axis."""
    maps = np.asarray(maps)
    right = maps.ndim == 2 if number is None else maps.ndim == 3 and maps.shape[0] == number
    if not right or 0 in maps.shape:
        raise ValueError(f'{what} must be an array {shape}; got {maps.shape}')
    if not np.isfinite(maps).all():
        raise ValueError(f'{what} must be finite, within 0..1; got NaN or infinity')
    return maps


def _support_panels(
    supports: Sequence[np.ndarray], masks: Sequence[np.ndarray], panel: int
) -> list[Panel]:
    if len(supports) != len(masks) or len(supports) == 0:
        raise ValueError(
            f'there must be one mask for each support, and at least one support; '
            f'got {len(supports)} supports, {len(masks)} masks'
        )
    panels = []
    for k, (image, mask) in enumerate(zip(supports[:MAX_SUPPORTS], masks)):
        image = _check_image(image, f'support {k + 1}')
        mask = _check_mask(mask, f'mask of support {k + 1}', (0, 1, 255))
        picture = overlay_mask(_fit(image, panel, image.shape[:2]), mask, SUPPORT_COLOUR)
        panels.append((f'support {k + 1}/{len(supports)}', picture))
    return panels


def _heat_panels(
    image: np.ndarray, pseudo_masks: np.ndarray | None, refined_prior: np.ndarray | None
) -> list[Panel]:
    panels = []
    if pseudo_masks is not None:
        fg, ae = _check_heat(pseudo_masks, 'pseudo masks', '(2, S, S): fg, ae', 2)
        panels += [
            ('pseudo fg', overlay_heat(image, fg)),
            ('pseudo ae', overlay_heat(image, ae)),
        ]
    if refined_prior is not None:
        refined = _check_heat(refined_prior, 'refined prior', '(h, w)', None)
        panels.append(('refined prior', overlay_heat(image, refined)))
    return panels


def draw_episode(
    query: np.ndarray,
    supports: Sequence[np.ndarray],
    support_masks: Sequence[np.ndarray],
    prediction: np.ndarray,
    truth: np.ndarray | None = None,
    pseudo_masks: np.ndarray | None = None,
    refined_prior: np.ndarray | None = None,
    title: str = '',
    panel_size: int = 160,
) -> np.ndarray:
    """One row: supports with masks, query, pseudo masks, refined prior, prediction, truth, errors.

    Args:
        query: uint8 (H, W, 3) RGB, as the model saw it.
        supports: K such images; the first ``MAX_SUPPORTS`` are drawn.
        support_masks: K masks (h, w) of 0, 1, 255.
        prediction: (h, w) of 0, 1, of any size: its proportions are those of the query's panels.
        truth: (h, w) of 0, 1, 255 (shown yellow), of the prediction's size; None leaves out the
            panels of truth and errors.
        pseudo_masks: (2, S, S), fg and ae in 0..1, or None to leave both panels out.
        refined_prior: (g, g) in 0..1, or None to leave the panel out.
        title: written above the row, e.g. the class; beside it the legend of the errors.
        panel_size: P, pixels, 48 to 1024.

    Returns:
        uint8 (TITLE_HEIGHT + CAPTION_HEIGHT + P + GAP, n * (P + GAP) + GAP, 3), n panels.

    Raises:
        ValueError: On arrays of another shape, dtype or range, and on supports without masks.
    """
    if not 48 <= panel_size <= 1024:
        raise ValueError(f'panel_size must be from 48 to 1024 pixels, got {panel_size}')
    panels = _support_panels(supports, support_masks, panel_size)
    predicted = _check_mask(prediction, 'prediction', (0, 1))
    image = _fit(_check_image(query, 'query'), panel_size, predicted.shape)
    panels.append(('query', image))
    panels += _heat_panels(image, pseudo_masks, refined_prior)
    panels.append(('prediction', overlay_mask(image, predicted, PREDICTION_COLOUR)))
    legend: list[int] = []
    if truth is not None:
        mask = _check_mask(truth, 'truth', (0, 1, 255))
        kinds = error_kinds(predicted, mask)
        panels.append(('truth', overlay_mask(image, mask, TRUTH_COLOUR)))
        panels.append(('errors', overlay_errors(image, kinds)))
        legend = [kind for kind in ERROR_LEGEND if kind != IGNORED or (kinds == IGNORED).any()]
    return _compose(panels, title, panel_size, legend)


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
    canvas = np.empty((sum(row.shape[0] for row in rows), width, 3), np.uint8)
    canvas[:] = PAPER
    top = 0
    for row in rows:
        canvas[top : top + row.shape[0], : row.shape[1]] = _check_image(row, 'a row')
        top += row.shape[0]
    return canvas
