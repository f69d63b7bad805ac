"""Clicks and brush strokes."""

from base64 import b64encode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mmfss.webui import marking
from mmfss.webui.marking import Click


def test_previews_keep_proportions_and_bounds():
    image = np.zeros((500, 2000, 3), np.uint8)
    assert marking.preview(image, 800).shape == (200, 800, 3)
    assert marking.preview(image[:50, :100], 800).shape == (50, 100, 3)
    assert marking.preview(image[:1], 800).shape == (1, 800, 3)


def test_places_of_the_preview_are_found_in_the_image():
    assert marking.to_whole(0, 0, (320, 640), (50, 100)) == (0, 0)
    assert marking.to_whole(639.9, 319.9, (320, 640), (50, 100)) == (99, 49)
    assert marking.to_whole(640, 320, (320, 640), (50, 100)) == (99, 49)  # the rim
    assert marking.to_whole(100.5, 50.5, (200, 800), (500, 2000)) == (251, 126)


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


def test_paint_is_what_is_opaque():
    layer = np.zeros((4, 6, 4), np.uint8)
    layer[1, 2:5, 3] = 255
    layer[3, 0, 3] = 100  # a soft edge
    encoded = BytesIO()
    Image.fromarray(layer).save(encoded, 'PNG')
    url = f'data:image/png;base64,{b64encode(encoded.getvalue()).decode()}'
    mask = marking.painted_mask(url, (4, 6))
    assert mask.dtype == bool and np.argwhere(mask).tolist() == [[1, 2], [1, 3], [1, 4]]
    jpeg = BytesIO()
    Image.fromarray(layer[..., :3]).save(jpeg, 'JPEG')
    for text in (
        '', 'data:image/png;base64,', url[:100], url.replace('png', 'gif', 1),
        f'data:image/png;base64,{b64encode(jpeg.getvalue()).decode()}', url + 'A' * 9_000_000,
    ):  # fmt: skip
        with pytest.raises(ValueError, match='did not arrive whole; paint it again'):
            marking.painted_mask(text, (4, 6))
    with pytest.raises(ValueError, match='did not arrive whole'):
        marking.painted_mask(url, (6, 4))


def test_only_what_was_painted_changes():
    rng = np.random.default_rng(0)
    whole = rng.random((40, 60)) > 0.5
    before = marking.resize_mask(whole, (20, 30))
    np.testing.assert_array_equal(marking.repainted(whole, before, before), whole)
    drawn = before.copy()
    drawn[2:5, 3:9] = ~drawn[2:5, 3:9]
    after = marking.repainted(whole, before, drawn)
    for y in range(40):
        for x in range(60):
            inside = 1 <= y // 2 < 6 and 2 <= x // 2 < 10  # and one pixel around
            assert after[y, x] == (drawn[y // 2, x // 2] if inside else whole[y, x])
