"""From clicks and brush strokes to prompts and masks.

The page shows a preview of the image, at most :data:`PREVIEW_SIDE` pixels long; prompts and masks
are those of the whole image.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from mmfss.apis.prompts import Prompt

PREVIEW_SIDE = 1600
Kind = Literal['corner', 'object', 'rest']
_PNG_URL = 'data:image/png;base64,'
_MAX_URL = 8 * 2**20  # characters; a mask of a preview has some thousand


@dataclass(frozen=True)
class Click:
    """A click in the whole image: a corner of the box, a point on the object or one beside it."""

    kind: Kind
    x: int
    y: int


def preview(image: np.ndarray, side: int = PREVIEW_SIDE) -> np.ndarray:
    """The image (H, W, 3) with its long side at most ``side`` pixels, proportions kept."""
    shape = preview_shape((image.shape[0], image.shape[1]), side)
    if shape == image.shape[:2]:
        return image
    return cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA)


def preview_shape(shape: tuple[int, int], side: int = PREVIEW_SIDE) -> tuple[int, int]:
    """(height, width) of the preview of an image of such a shape."""
    scale = min(1.0, side / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def resize_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A bool mask brought to (height, width), nearest neighbour."""
    if mask.shape == shape:
        return mask
    small = mask.astype(np.uint8)
    return cv2.resize(small, shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def to_whole(
    x: float, y: float, preview_shape: tuple[int, int], shape: tuple[int, int]
) -> tuple[int, int]:
    """The pixel of the whole image at a place (x, y) of the preview, whose first pixel is from 0 to
    1; shapes are (height, width)."""
    found = []
    for value, of_preview, of_whole in zip((x, y), preview_shape[::-1], shape[::-1]):
        scaled = int(value * of_whole / of_preview)
        found.append(min(max(scaled, 0), of_whole - 1))
    return found[0], found[1]


def add_click(clicks: Sequence[Click], click: Click) -> tuple[Click, ...]:
    """The clicks with one more; a third corner begins a new box."""
    corners = [one for one in clicks if one.kind == 'corner']
    kept = tuple(clicks)
    if click.kind == 'corner' and len(corners) == 2:
        kept = tuple(one for one in clicks if one.kind != 'corner')
    return (*kept, click)


def with_box(clicks: Sequence[Click], start: Click, end: Click) -> tuple[Click, ...]:
    """The clicks with a box that was dragged, in the place of the one before."""
    return (*(one for one in clicks if one.kind != 'corner'), start, end)


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
                'the two corners are on one line; drag the box from one corner to the other'
            )
        box = (xs[0], ys[0], xs[1] + 1, ys[1] + 1)  # its end is behind the last pixel
    if box is None and not any(point.kind == 'object' for point in points):
        return None
    return Prompt(
        box=box,
        points=tuple((point.x, point.y) for point in points),
        labels=tuple(int(point.kind == 'object') for point in points),
    )


def painted_mask(url: str, shape: tuple[int, int]) -> np.ndarray:
    """What was painted on a preview: bool (h, w).

    Args:
        url: of the page's canvas: a PNG as data URL, opaque where painted.
        shape: (h, w) of the preview.

    Raises:
        ValueError: It is something else, or of another size.
    """
    try:
        if len(url) > _MAX_URL or not url.startswith(_PNG_URL):
            raise ValueError('no PNG')
        data = base64.b64decode(url[len(_PNG_URL) :], validate=True)
        with Image.open(BytesIO(data), formats=['PNG']) as image:
            if image.size != shape[::-1]:
                raise ValueError('another size')
            return np.asarray(image.convert('RGBA'))[..., 3] > 127
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError('what was painted did not arrive whole; paint it again') from error


def repainted(whole: np.ndarray, before: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """A mask with what was painted and erased on its preview.

    Args:
        whole: bool (H, W).
        before: bool (h, w), ``whole`` as the preview had it.
        painted: bool (h, w).

    Returns:
        bool (H, W), which is ``whole`` to the pixel where nothing was changed.
    """
    # and one pixel of the preview around: a line of the whole mask may fall between its pixels
    here = cv2.dilate((before != painted).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    changed = resize_mask(here, (whole.shape[0], whole.shape[1]))
    new = resize_mask(painted, (whole.shape[0], whole.shape[1]))
    return np.where(changed, new, whole)


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
