"""Lines of text in pictures, in any script: OpenCV writes ASCII alone."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

INK, PAPER = (235, 235, 235), (24, 24, 28)
_DEFAULT = Path(matplotlib.get_data_path()) / 'fonts/ttf/DejaVuSans.ttf'  # Pillow's own has ASCII


def caption(text: str, width: int, size: int = 16) -> np.ndarray:
    """A line of text, cut with an ellipsis where it is too long.

    Characters come from DejaVu Sans, which matplotlib brings, or where it lacks some from the
    installed font that has most of them; those that none has are shown by their code: <U+732B>.

    Args:
        text: one line.
        width: of the result, pixels.
        size: of the letters, pixels.

    Returns:
        uint8 (size + 8, width, 3); light on dark, grey.
    """
    file, missing = _font_for(frozenset(text))
    shown = ''.join(f'<U+{ord(c):04X}>' if c in missing else c for c in text)
    font = ImageFont.truetype(file, size)
    room = width - 12
    if font.getlength(shown) > room:
        while shown and font.getlength(shown + '\u2026') > room:
            shown = shown[:-1]
        shown += '\u2026'
    picture = Image.new('RGB', (width, size + 8), PAPER)
    ImageDraw.Draw(picture).text((6, 4 + size / 2), shown, INK, font, anchor='lm')
    return np.array(picture)


@lru_cache(maxsize=256)
def _font_for(characters: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The font file that has most of the characters, and which ones it lacks."""
    best = str(_DEFAULT), _lacks(str(_DEFAULT), characters)
    listed = font_manager.fontManager.ttflist  # a font of last resort has frames for everything
    installed = sorted({e.fname for e in listed if 'resort' not in e.name.lower()})
    for file in installed if best[1] else ():
        lacks = _lacks(file, characters)
        if len(lacks) < len(best[1]):
            best = file, lacks
    return best


@lru_cache(maxsize=4096)
def _codes(file: str) -> frozenset[int]:
    try:
        ImageFont.truetype(file, 16)
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):  # removed since, or damaged
        return frozenset()


def _lacks(file: str, characters: frozenset[str]) -> frozenset[str]:
    codes = _codes(file)
    return frozenset(c for c in characters if ord(c) not in codes)
