"""Clicks and brush strokes."""

import numpy as np
import pytest

from mmfss.webui import marking
from mmfss.webui.marking import Click


def test_previews_keep_proportions_and_bounds():
    image = np.zeros((500, 2000, 3), np.uint8)
    assert marking.preview(image, 800).shape == (200, 800, 3)
    assert marking.preview(image[:50, :100], 800, least=640).shape == (320, 640, 3)
    assert marking.preview(image[:50, :700], 800, least=640).shape == (50, 700, 3)
    assert marking.preview(image[:1], 800).shape == (1, 800, 3)


def test_pixels_of_the_preview_are_found_in_the_image():
    assert marking.to_whole(0, 0, (320, 640), (50, 100)) == (0, 0)
    assert marking.to_whole(639, 319, (320, 640), (50, 100)) == (99, 49)
    assert marking.to_whole(640, 400, (320, 640), (50, 100)) == (99, 49)  # a click on the rim
    assert marking.to_whole(100, 50, (200, 800), (500, 2000)) == (251, 126)


def test_a_third_corner_begins_a_new_box_and_points_stay():
    clicks: tuple[Click, ...] = ()
    for kind, x in (('corner', 1), ('object', 2), ('corner', 3), ('corner', 4)):
        clicks = marking.add_click(clicks, Click(kind, x, x))
    assert [(c.kind, c.x) for c in clicks] == [('object', 2), ('corner', 4)]


def test_clicks_become_a_prompt_when_they_say_enough():
    corner, other = Click('corner', 40, 5), Click('corner', 10, 25)
    on, off = Click('object', 12, 8), Click('rest', 30, 20)
    assert marking.as_prompt([]) is None
    assert marking.as_prompt([corner, off]) is None
    prompt = marking.as_prompt([corner, other, on, off])
    assert prompt.box == (10, 5, 41, 26)
    assert prompt.points == ((12, 8), (30, 20))
    assert prompt.labels == (1, 0)
    assert marking.as_prompt([on]).box is None
    with pytest.raises(ValueError, match='the two corners are on one line'):
        marking.as_prompt([corner, Click('corner', 40, 60)])


def test_paint_becomes_a_mask_of_the_images_size():
    layer = np.zeros((4, 6, 4), np.uint8)
    layer[1, 2:5, 3] = 255
    layer[3, 0, 3] = 100  # a soft edge
    mask = marking.brush_mask({'layers': [layer]}, (8, 12))
    assert mask.dtype == bool and mask.shape == (8, 12)
    assert np.argwhere(mask).min(0).tolist() == [2, 4]
    assert np.argwhere(mask).max(0).tolist() == [3, 9]
    assert mask.sum() == 12


@pytest.mark.parametrize('editor', [None, {}, {'layers': []}, {'layers': [np.zeros((2, 2, 4))]}])
def test_no_paint_is_said(editor):
    with pytest.raises(ValueError, match='nothing is painted yet; paint over the object'):
        marking.brush_mask(editor, (8, 12))


def test_marks_are_drawn_where_they_are():
    image = np.full((100, 200, 3), 100, np.uint8)
    mask = np.zeros((50, 100), bool)
    mask[10:20, 30:60] = True
    out = marking.draw_marks(image, [Click('object', 80, 40)], (50, 100), mask)
    assert out[30, 80].tolist() == [178, 122, 65]  # half blue
    assert out[80, 160].tolist() == [60, 200, 60]  # the point, twice as far
    assert (out[60, :40] == 100).all() and (image == 100).all()
