"""What the colours of a picture mean, in a strip below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmfss.visualization.text import text_width, write_text

_PAPER, _INK = 250, (20, 20, 20)


def with_legend(
    picture: np.ndarray, entries: Sequence[tuple[str, Sequence[int] | None]]
) -> np.ndarray:
    """The picture with a strip below it: a patch of colour and a text for each entry, wrapped.

    Args:
        picture: uint8 (H, W, 3).
        entries: text and colour, in the picture's order of channels; None for no patch.

    Returns:
        uint8 (H + h, W, 3), a new array; a text that is wider than the picture is shortened.
    """
    width = picture.shape[1]
    size = min(max(width // 50, 12), 28)
    gap, line = size // 2, size + size // 2 + 2
    places: list[tuple[int, int]] = []
    left, row = gap, 0
    for text, _ in entries:
        wide = min(2 * gap + size + text_width(text, size), width)
        if left > gap and left + wide > width:
            left, row = gap, row + 1
        places.append((left, row))
        left += wide + gap
    strip = np.full(((row + 1) * line + gap, width, 3), _PAPER, np.uint8)
    for (text, colour), (left, row) in zip(entries, places):
        top = gap // 2 + row * line + (line - size) // 2
        if colour is not None:
            strip[top : top + size, left : left + size] = colour
            left += size + gap
        write_text(strip, text, left, top + size - size // 8, width - left - gap, _INK, size)
    return np.concatenate([picture, strip])
