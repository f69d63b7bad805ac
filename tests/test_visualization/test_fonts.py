"""Letters that DejaVu Sans does not have."""

from __future__ import annotations

import numpy as np

from mmfss.visualization.text import text_width, write_text


def ink(text: str) -> np.ndarray:
    canvas = np.zeros((30, 300, 3), np.uint8)
    write_text(canvas, text, 10, 20, 280)
    return canvas


def test_what_no_font_has_is_told_by_its_code():
    """A private character, which no font draws, beside one that all have."""
    np.testing.assert_array_equal(ink('a\U0010abcd'), ink('a<U+10ABCD>'))
    assert text_width('\U0010abcd') == text_width('<U+10ABCD>')


def test_a_cat_in_chinese_is_no_empty_frame():
    """Drawn by an installed font, or told by its code."""
    assert not np.array_equal(ink('猫'), ink('狗'))
