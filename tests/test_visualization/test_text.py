"""Text on pictures."""

from __future__ import annotations

import numpy as np

from mmfss.visualization.text import shorten, text_width, write_text


def ink(text: str, room: int = 200) -> np.ndarray:
    canvas = np.zeros((30, 200, 3), np.uint8)
    write_text(canvas, text, 10, 20, room)
    return canvas


def test_every_letter_of_another_alphabet_is_its_own():
    letters = 'aäßжλك'
    pictures = [ink(letter) for letter in letters]
    assert all(picture.any() for picture in pictures)
    for i, one in enumerate(pictures):
        assert all(not np.array_equal(one, other) for other in pictures[:i])


def test_text_stays_in_its_room():
    columns = np.flatnonzero(ink('w' * 100, room=60).any(axis=(0, 2)))
    assert columns.min() >= 10 and 50 <= columns.max() < 70
    assert not ink('w', room=3).any()


def test_shorten_is_the_longest_that_fits():
    text = 'a class of a very long name'
    for room in range(0, text_width(text) + 3, 7):
        shown = shorten(text, room)
        fits = [text[:n].rstrip() + '…' for n in range(1, len(text))]
        fits = [part for part in fits if text_width(part) <= room]
        want = text if text_width(text) <= room else max(fits, key=len, default='')
        assert shown == want
    assert shorten('two\nlines', 200) == 'two lines'
