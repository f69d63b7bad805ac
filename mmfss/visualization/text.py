"""Text on pictures, in any alphabet that DejaVu Sans has (Latin, Greek, Cyrillic, Arabic, ...).

OpenCV's own fonts know ASCII alone; class names are in every language.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT_SIZE = 12
INK = (235, 235, 235)
_DOTS = '…'


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which every matplotlib brings along; mmengine needs matplotlib."""
    path = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf'
    return ImageFont.truetype(str(path), size)


def text_width(text: str, size: int = FONT_SIZE) -> int:
    """Width of a line of text in pixels."""
    return int(np.ceil(_font(size).getlength(text)))


def shorten(text: str, room: int, size: int = FONT_SIZE) -> str:
    """The text on one line, its end replaced by dots where it is wider than ``room`` pixels.

    Returns:
        An empty string where not even one letter has room.
    """
    text = ' '.join(text.split())
    if text_width(text, size) <= room:
        return text
    low, high = 0, len(text)  # the longest beginning that fits lies in between
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle].rstrip() + _DOTS, size) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + _DOTS if low else ''


def write_text(
    canvas: np.ndarray,
    text: str,
    left: int,
    base: int,
    room: int,
    colour: tuple[int, int, int] = INK,
    size: int = FONT_SIZE,
) -> None:
    """Write one line into a picture, shortened to the room.

    Args:
        canvas: uint8 (H, W, 3), changed in place.
        text: any; line breaks become spaces.
        left, base: where the first letter and the baseline are, pixels.
        room: width in pixels, from ``left`` on.
        colour: in the canvas's own order of channels.
        size: of the letters, pixels.
    """
    shown = shorten(text, min(room, canvas.shape[1] - left), size)
    if not shown:
        return
    picture = Image.fromarray(canvas)
    ImageDraw.Draw(picture).text((left, base), shown, fill=colour, font=_font(size), anchor='ls')
    canvas[:] = np.asarray(picture)
