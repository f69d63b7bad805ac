"""Where tiles are cut."""

from __future__ import annotations

import numpy as np
import pytest

from mmfss.datasets.class_index import class_areas as areas
from mmfss.datasets.preparation.tiles import grid_boxes, sliding_boxes


@pytest.mark.parametrize('height, width', [(668, 256), (256, 256), (700, 513), (300, 1000)])
@pytest.mark.parametrize('stride', [100, 256])
def test_windows_cover_every_pixel(height: int, width: int, stride: int) -> None:
    seen = np.zeros((height, width), int)
    boxes = sliding_boxes((height, width), 256, stride)
    assert len(set(boxes)) == len(boxes)
    for top, bottom, left, right in boxes:
        assert (bottom - top, right - left) == (256, 256)
        seen[top:bottom, left:right] += 1
    assert seen.min() == 1


def test_the_last_window_is_flush_with_the_border() -> None:
    rows = [box[:2] for box in sliding_boxes((668, 256), 256, 256)]
    assert rows == [(0, 256), (256, 512), (412, 668)]


def test_a_small_picture_is_one_window() -> None:
    assert sliding_boxes((90, 300), 256, 256) == [(0, 90, 0, 256), (0, 90, 44, 300)]


def test_a_grid_shares_no_pixel() -> None:
    seen = np.zeros((2448, 2449), int)
    boxes = grid_boxes((2448, 2449), 6)
    assert boxes[0] == (0, 408, 0, 408) and boxes[7] == (408, 816, 408, 816)
    for top, bottom, left, right in boxes:
        seen[top:bottom, left:right] += 1
    assert seen.min() == seen.max() == 1


def test_areas_leave_out_background_and_ignored_pixels() -> None:
    assert areas(np.array([[0, 1, 1], [255, 15, 0]], np.uint8)) == {1: 2, 15: 1}
