"""Text on pictures, in any alphabet: OpenCV's own fonts know ASCII alone, and class names are in
every language.

Letters come from DejaVu Sans (Latin, Greek, Cyrillic, Arabic, ...), which every matplotlib brings
along; mmengine needs matplotlib. Where it lacks some, from the installed font that has most of
them; those that none has are told by their code: <U+732B>.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

FONT_SIZE = 12
INK = (235, 235, 235)
_DOTS = '…'


@lru_cache(maxsize=64)
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@lru_cache(maxsize=1024)
def _codes(file: str) -> frozenset[int]:
    """Characters that a font has."""
    try:
        _font(file, FONT_SIZE)
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):  # removed since, or damaged
        return frozenset()


@lru_cache(maxsize=256)
def _font_for(characters: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The font file that has most of the characters, and which ones it lacks."""

    def lacking(file: str) -> frozenset[str]:
        return frozenset(c for c in characters if ord(c) not in _codes(file))

    file = str(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf')
    best = file, lacking(file)
    if best[1]:  # a font of last resort has frames for everything
        known = font_manager.fontManager.ttflist
        installed = sorted({e.fname for e in known if 'resort' not in e.name.lower()})
        best = min([best, *((f, lacking(f)) for f in installed)], key=lambda found: len(found[1]))
    return best


def _readable(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text with codes for what no font has, and its font."""
    file, missing = _font_for(frozenset(text))
    shown = ''.join(f'<U+{ord(c):04X}>' if c in missing else c for c in text)
    return shown, _font(file, size)


def text_width(text: str, size: int = FONT_SIZE) -> int:
    """Width of a line of text in pixels."""
    shown, font = _readable(text, size)
    return int(np.ceil(font.getlength(shown)))


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
    shown, font = _readable(shown, size)
    picture = Image.fromarray(canvas)
    ImageDraw.Draw(picture).text((left, base), shown, fill=colour, font=font, anchor='ls')
    canvas[:] = np.asarray(picture)
