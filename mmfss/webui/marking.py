"""From clicks and brush strokes to prompts and masks, and how they look on the image.

The page shows a preview of the image, :data:`LEAST_SIDE` to :data:`PREVIEW_SIDE` pixels long;
prompts and masks are those of the whole image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from mmfss.apis.prompts import Prompt
from mmfss.visualization.overlays import overlay_labels

PREVIEW_SIDE = 800
LEAST_SIDE = 640
"""Smaller images are enlarged for marking."""
OUTLINE_PART = 300
"""Part of the longer side that the outline of a mask is wide, on previews and thumbnails."""
Kind = Literal['corner', 'object', 'rest']
_BLUE, _GREEN, _RED, _WHITE = (255, 144, 30), (60, 200, 60), (50, 50, 235), (255, 255, 255)  # BGR
_COLOURS = {'corner': _BLUE, 'object': _GREEN, 'rest': _RED}


@dataclass(frozen=True)
class Click:
    """A click in the whole image: a corner of the box, a point on the object or one beside it."""

    kind: Kind
    x: int
    y: int


def preview(image: np.ndarray, side: int = PREVIEW_SIDE, least: int = 1) -> np.ndarray:
    """The image (H, W, 3) with its long side at most ``side``, at least ``least`` pixels,
    proportions kept."""
    height, width = image.shape[:2]
    scale = min(max(1.0, least / max(height, width)), side / max(height, width))
    if scale == 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=smooth)


def resize_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A bool mask brought to (height, width), nearest neighbour."""
    if mask.shape == shape:
        return mask
    small = mask.astype(np.uint8)
    return cv2.resize(small, shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def to_whole(
    x: float, y: float, preview_shape: tuple[int, int], shape: tuple[int, int]
) -> tuple[int, int]:
    """A pixel (x, y) of the preview as one of the whole image; shapes are (height, width)."""
    found = []
    for value, of_preview, of_whole in zip((x, y), preview_shape[::-1], shape[::-1]):
        scaled = int((value + 0.5) * of_whole / of_preview)
        found.append(min(max(scaled, 0), of_whole - 1))
    return found[0], found[1]


def add_click(clicks: Sequence[Click], click: Click) -> tuple[Click, ...]:
    """The clicks with one more; a third corner begins a new box."""
    corners = [one for one in clicks if one.kind == 'corner']
    kept = tuple(clicks)
    if click.kind == 'corner' and len(corners) == 2:
        kept = tuple(one for one in clicks if one.kind != 'corner')
    return (*kept, click)


def as_prompt(clicks: Sequence[Click]) -> Prompt | None:
    """What the clicks say, or None while there is no box and no point on the object.

    Raises:
        ValueError: The two corners leave a box without width or height.
    """
    corners = [click for click in clicks if click.kind == 'corner']
    points = [click for click in clicks if click.kind != 'corner']
    box = None
    if len(corners) == 2:
        xs, ys = sorted(c.x for c in corners), sorted(c.y for c in corners)
        if xs[0] == xs[1] or ys[0] == ys[1]:
            raise ValueError(
                'the two corners are on one line; click two opposite corners of the box'
            )
        box = (xs[0], ys[0], xs[1] + 1, ys[1] + 1)  # its end is behind the last pixel
    if box is None and not any(point.kind == 'object' for point in points):
        return None
    return Prompt(
        box=box,
        points=tuple((point.x, point.y) for point in points),
        labels=tuple(int(point.kind == 'object') for point in points),
    )


def brush_mask(editor: Mapping[str, Any] | None, shape: tuple[int, int]) -> np.ndarray:
    """What was painted: bool (H, W) at ``shape``.

    Args:
        editor: of the page's editor: ``layers`` are uint8 (h, w, 4), opaque where painted.
        shape: (height, width) of the image.

    Raises:
        ValueError: Nothing was painted.
    """
    painted = _painted(editor)
    if painted is None:
        raise ValueError('nothing is painted yet; paint over the object with the brush')
    return resize_mask(painted, shape)


def is_painted(editor: Mapping[str, Any] | None) -> bool:
    """Whether anything was painted in the page's editor."""
    return _painted(editor) is not None


def _painted(editor: Mapping[str, Any] | None) -> np.ndarray | None:
    """bool (h, w) at the size of the preview; None where there is nothing."""
    painted = None
    for layer in (editor or {}).get('layers') or ():
        alpha = np.asarray(layer)[..., -1] > 127
        painted = alpha if painted is None else painted | resize_mask(alpha, painted.shape)
    return None if painted is None or not painted.any() else painted


def draw_marks(
    image: np.ndarray,
    clicks: Sequence[Click],
    shape: tuple[int, int],
    mask: np.ndarray | None,
) -> np.ndarray:
    """The preview with clicks, box and proposed mask.

    Args:
        image: uint8 (h, w, 3) BGR, the preview.
        clicks: in pixels of the whole image.
        shape: (height, width) of the whole image.
        mask: bool (H, W), the proposal.
    """
    out = image.copy()
    if mask is not None:
        small = resize_mask(mask, image.shape[:2])
        rim = cv2.dilate(small.astype(np.uint8), np.ones((7, 7), np.uint8)) > small
        out = overlay_labels(image, small, (_WHITE, _BLUE), outline_part=OUTLINE_PART)
        out[rim] = _WHITE  # blue alone is hard to see on the sky
    scale = np.array(image.shape[1::-1]) / np.array(shape[::-1])
    places = [tuple(int(v) for v in np.array([c.x, c.y]) * scale) for c in clicks]
    radius = max(3, round(max(out.shape[:2]) / 110))
    corners = [place for place, click in zip(places, clicks) if click.kind == 'corner']
    if len(corners) == 2:
        cv2.rectangle(out, corners[0], corners[1], _WHITE, 4)
        cv2.rectangle(out, corners[0], corners[1], _BLUE, 2)
    for place, click in zip(places, clicks):
        cv2.circle(out, place, radius + 2, _WHITE, -1, cv2.LINE_AA)
        cv2.circle(out, place, radius, _COLOURS[click.kind], -1, cv2.LINE_AA)
    return out


def mask_to_png(mask: np.ndarray) -> bytes:
    """A bool mask (H, W) in some kilobytes."""
    done, data = cv2.imencode('.png', mask.astype(np.uint8))
    if not done:
        raise ValueError('the mask cannot be kept')
    return data.tobytes()


def png_to_mask(data: bytes) -> np.ndarray:
    """The bool mask (H, W) of :func:`mask_to_png`."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError('the mask that was kept is damaged; mark the photo again')
    return np.asarray(image > 0)
