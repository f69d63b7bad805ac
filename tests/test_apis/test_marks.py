"""What a person marks: checked, read from files, turned into SAM 2's points."""

from __future__ import annotations

import numpy as np
import pytest

from mmfss.apis.marks import Prompt, read_prompt, sample_strokes

HEIGHT, WIDTH = 48, 96


def test_tokens():
    """Box corners, points, strokes; x by the width, y by the height."""
    prompt = Prompt((0, 0, 96, 48), ((48, 12),), (0,), (((24, 24), (24, 24)),))
    points, labels = prompt.tokens(WIDTH, HEIGHT, 64)
    assert points.tolist() == [[0, 0], [64, 64], [32, 16], [16, 32]]
    assert labels.tolist() == [2, 3, 0, 1]
    assert points.dtype == np.float32 and labels.dtype == np.int32


def test_points_of_a_stroke():
    """As long as the image: 16 points in the middles of 16 equal parts; half of it: 1 + 7."""
    line = np.array([[0.0, 5.0], [32.0, 5.0]])
    (whole,) = sample_strokes([line], 32)
    np.testing.assert_allclose(whole[:, 0], np.arange(16) * 2 + 1)
    assert set(whole[:, 1]) == {5.0}
    assert len(sample_strokes([line], 64)[0]) == 1 + 7
    assert sample_strokes([np.array([[3.0, 4.0]])], 64)[0].tolist() == [[3, 4]]


@pytest.mark.parametrize('strokes', [1, 2, 5, 16])
def test_every_stroke_counts_and_sixteen_is_the_most(strokes):
    rng = np.random.default_rng(strokes)
    lines = [rng.uniform(0, 500, (6, 2)) for _ in range(strokes - 1)] + [np.array([[1.0, 1.0]])]
    counts = [len(line) for line in sample_strokes(lines, 100)]
    assert min(counts) == 1 and sum(counts) <= 16


BAD = [
    (Prompt(), 'nothing tells where the object is: give a box, a point of label 1'),
    (Prompt(points=((1, 1),), labels=(0,)), 'nothing tells where the object is'),
    (Prompt(box=(10, 10, 10, 20)), r'x1 < x2 and y1 < y2 within the image of 96 x 48 .*got \(10'),
    (Prompt(box=(20, 10, 10, 20)), 'draw it from the upper left to the lower right'),
    (Prompt(box=(10, 10, 97, 20)), 'within the image of 96 x 48 pixels'),
    (Prompt(box=(-1, 10, 9, 20)), 'within the image of 96 x 48 pixels'),
    (Prompt(box=(1, float('nan'), 9, 20)), 'the box must be .* of finite numbers'),
    (Prompt(box=(1, 2, 3)), 'the box must be .* of finite numbers, got'),
    (Prompt(points=((96, 5),), labels=(1,)), r'point \(96, 5\) lies outside the image of 96 x 48'),
    (Prompt(points=((5, -1),), labels=(1,)), r'point \(5, -1\) lies outside'),
    (Prompt(points=((5, float('inf')),), labels=(1,)), 'a point must be .* of finite numbers'),
    (Prompt(points=(('a', 1),), labels=(1,)), 'a point must be .* of finite numbers'),
    (Prompt(points=((5, 5),), labels=(2,)), r'labels of points must be 1 .* or 0 .*, got 2'),
    (Prompt(points=((5, 5),), labels=()), 'each point needs a label.*got 1 points and 0 labels'),
    (Prompt(points=((5, 5),) * 65, labels=(1,) * 65), 'a prompt may have 64 points, got 65'),
    (Prompt(scribbles=(((5, 5),),) * 17), 'a prompt may have 16 strokes of a scribble, got 17'),
    (Prompt(scribbles=((),)), 'a stroke of the scribbles has no point'),
    (Prompt(scribbles=(((5, 5), (5, 48)),)), r'point \(5, 48\) lies outside'),
]


@pytest.mark.parametrize(('prompt', 'message'), BAD)
def test_bad_prompts(prompt, message):
    with pytest.raises(ValueError, match=message):
        prompt.check(WIDTH, HEIGHT)


def test_prompt_file(tmp_path):
    file = tmp_path / 'x.json'
    file.write_text(
        '{"box": [1, 2, 30, 40], "points": [[5, 6, 1], [7, 8, 0]], "scribbles": [[[1, 2], [3, 4]]]}'
    )
    wanted = Prompt((1, 2, 30, 40), ((5, 6), (7, 8)), (1, 0), (((1, 2), (3, 4)),))
    assert read_prompt(file) == wanted
    file.write_text('{"points": [[5.5, 6, 1]]}', encoding='utf-8-sig')
    assert read_prompt(file) == Prompt(points=((5.5, 6),), labels=(1,))
    with pytest.raises(FileNotFoundError, match='prompt file .*none.json not found'):
        read_prompt(tmp_path / 'none.json')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"box": [1, 2', 'is no prompt'),
        ('[1, 2]', 'is no prompt'),
        ('{"boxes": []}', r"unknown entries \['boxes'\]"),
        ('{"box": [1, 2, 3]}', r'the box must be \[x1, y1, x2, y2\] of finite numbers'),
        ('{"box": [1, 2, 3, NaN]}', 'of finite numbers'),
        ('{"points": [[1, 2]]}', r'a point must be \[x, y, label\]'),
        ('{"points": [[1, 2, 0.5]]}', r'labels of points must be 1 .*, got 0\.5'),
        ('{"points": 5}', 'is no prompt'),
        ('{"scribbles": [[1, 2]]}', r'a point must be \[x, y\]'),
        ('{"box": "left"}', 'the box must be'),
    ],
)
def test_bad_prompt_files(tmp_path, text, message):
    file = tmp_path / 'x.json'
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_prompt(file)
    assert str(file) in str(caught.value)
