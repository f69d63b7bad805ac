"""Pictures of episodes: supports, query, pseudo masks, prediction and truth in one row.

Pure functions on numpy arrays. Shapes: H, W of an image; P the side of a panel. Images are RGB.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

MAX_SUPPORTS = 5
GAP = 4
TITLE_HEIGHT = 20
CAPTION_HEIGHT = 16
PAPER = (24, 24, 28)
INK = (235, 235, 235)
SUPPORT_COLOUR = (40, 100, 255)
PREDICTION_COLOUR = (255, 60, 40)
TRUTH_COLOUR = (20, 200, 60)
IGNORE_COLOUR = (255, 225, 0)
_OPACITY = 0.55


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


def overlay_mask(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Tint an image where the mask is 1, turn it dull elsewhere, and yellow where it is 255.

    Args:
        image: uint8 (H, W, 3) RGB.
        mask: (h, w) of 0, 1, 255; brought to (H, W) by nearest neighbour.
        colour: RGB, 0..255.

    Returns:
        uint8 (H, W, 3).
    """
    size = (image.shape[1], image.shape[0])
    mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    out = 0.3 * image.astype(np.float32) + 0.45 * grey
    inside = mask == 1
    out[inside] = (1 - _OPACITY) * image[inside] + _OPACITY * np.array(colour, np.float32)
    out[mask == 255] = IGNORE_COLOUR
    return np.rint(out).astype(np.uint8)


def overlay_heat(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend a map in 0..1, (h, w), from blue (0) to red (1) over a grey copy of an image.

    Returns:
        uint8 (H, W, 3), the image's size.
    """
    size = (image.shape[1], image.shape[0])
    heat = cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    levels = np.rint(255 * np.clip(heat, 0, 1)).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1].astype(np.float32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    return np.rint(0.55 * colours + 0.45 * grey).astype(np.uint8)


def _fit(image: np.ndarray, panel: int, shape: tuple[int, int]) -> np.ndarray:
    """Resize so that an image of proportions ``shape`` (H, W) has its longer side at ``panel``."""
    scale = panel / max(shape)
    height, width = (max(1, round(side * scale)) for side in shape)
    shrinks = height < image.shape[0] or width < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=how)


def _write_text(canvas: np.ndarray, text: str, left: int, base: int, room: int) -> None:
    """Text from a baseline on, shortened with dots until it fits the room."""
    scale, shown = 0.4, text.encode('ascii', 'replace').decode()
    while cv2.getTextSize(shown, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] > room:
        if len(shown) <= 3:
            return
        shown = shown.rstrip('.')[:-1] + '..'
    cv2.putText(canvas, shown, (left, base), cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)


def _compose(panels: Sequence[tuple[str, np.ndarray]], title: str, panel: int) -> np.ndarray:
    top = TITLE_HEIGHT + CAPTION_HEIGHT
    width = len(panels) * (panel + GAP) + GAP
    row = np.empty((top + panel + GAP, width, 3), np.uint8)
    row[:] = PAPER
    _write_text(row, title, GAP + 2, TITLE_HEIGHT - 6, width - 2 * GAP)
    for k, (caption, picture) in enumerate(panels):
        left = GAP + k * (panel + GAP)
        _write_text(row, caption, left + 2, top - 5, panel - 4)
        y, x = top + (panel - picture.shape[0]) // 2, left + (panel - picture.shape[1]) // 2
        row[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return row


def _check_pseudo(pseudo_masks: np.ndarray) -> np.ndarray:
    pseudo = np.asarray(pseudo_masks)
    if pseudo.ndim != 3 or pseudo.shape[0] != 2 or 0 in pseudo.shape:
        raise ValueError(f'pseudo masks must be an array (2, S, S): fg, ae; got {pseudo.shape}')
    if not np.isfinite(pseudo).all():
        raise ValueError('pseudo masks must be finite, within 0..1; got NaN or infinity')
    return pseudo


def _support_panels(
    supports: Sequence[np.ndarray], masks: Sequence[np.ndarray], panel: int
) -> list[tuple[str, np.ndarray]]:
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
        panels.append((f'support {k + 1} of {len(supports)}', picture))
    return panels


def draw_episode(
    query: np.ndarray,
    supports: Sequence[np.ndarray],
    support_masks: Sequence[np.ndarray],
    prediction: np.ndarray,
    truth: np.ndarray | None = None,
    pseudo_masks: np.ndarray | None = None,
    title: str = '',
    panel_size: int = 160,
) -> np.ndarray:
    """One row: supports with masks, query, both pseudo masks, prediction, truth.

    Args:
        query: uint8 (H, W, 3) RGB, as the model saw it.
        supports: K such images; the first ``MAX_SUPPORTS`` are drawn.
        support_masks: K masks (h, w) of 0, 1, 255.
        prediction: (h, w) of 0, 1, of any size: its proportions are those of the query's panels.
        truth: (h, w) of 0, 1, 255 (shown yellow), or None to leave the panel out.
        pseudo_masks: (2, S, S), fg and ae in 0..1, or None to leave both panels out.
        title: written above the row, e.g. the class.
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
    if pseudo_masks is not None:
        fg, ae = _check_pseudo(pseudo_masks)
        panels += [
            ('pseudo mask fg', overlay_heat(image, fg)),
            ('pseudo mask ae', overlay_heat(image, ae)),
        ]
    panels.append(('prediction', overlay_mask(image, predicted, PREDICTION_COLOUR)))
    if truth is not None:
        mask = _check_mask(truth, 'truth', (0, 1, 255))
        panels.append(('truth', overlay_mask(image, mask, TRUTH_COLOUR)))
    return _compose(panels, title, panel_size)


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
