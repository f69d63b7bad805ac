"""Figures for a paper: what is in them, as vectors and as pixels."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

from mmfss.visualization.figures import DPI, figure, write_figure
from mmfss.visualization.visualizer import ShownEpisode

H, W, S = 30, 60, 64
TEXTS = {'ours': {'prior': 'where it looks first'}, 'theirs': {}}


def shown(right: int = 30, name: str = 'cat', shots: int = 1, maps: bool = True) -> ShownEpisode:
    """Truth is columns 10 to 30 of rows 5 to 25, the prediction ends at ``right``."""
    truth, prediction = np.zeros((2, H, W), np.uint8)
    truth[5:25, 10:30], prediction[5:25, 10:right] = 1, 1
    truth[0, 0] = 255
    photo = np.full((S, S, 3), (200, 120, 40), np.uint8)
    mask = np.zeros((S, S), np.uint8)
    mask[20:40, 20:40] = 1
    prior = {'prior': np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)} if maps else {}
    return ShownEpisode(7, name, photo, [photo] * shots, [mask] * shots, prediction, truth, prior)


def rows(count: int = 2, **settings) -> list[dict[str, ShownEpisode]]:
    return [{'ours': shown(30, **settings), 'theirs': shown(50, maps=False)}] * count


@pytest.mark.parametrize(
    'settings, panels',
    [(dict(), 4), (dict(maps=True), 5), (dict(errors=True), 4)],
)
def test_pdf_has_photos_as_images_and_the_rest_as_vectors(settings, panels, tmp_path):
    write_figure(figure(rows(), texts=TEXTS, **settings), tmp_path / 'a.pdf')
    content = (tmp_path / 'a.pdf').read_bytes()
    images = len(re.findall(rb'/Subtype /Image', content))
    assert content.startswith(b'%PDF') and images == 2 * panels
    assert b'/Type0' in content and b'/Type3' not in content  # letters, not their outlines
    write_figure(figure(rows(), texts=TEXTS, **settings), tmp_path / 'b.pdf')
    assert (tmp_path / 'b.pdf').read_bytes() == content  # no date in it


def test_texts_and_masks_of_a_figure_in_svg(tmp_path):
    write_figure(figure(rows(1), maps=True, texts=TEXTS), tmp_path / 'a.svg')
    text = (tmp_path / 'a.svg').read_text()
    for said in ('7: cat', 'IoU 100.0 %', 'IoU 50.0 %', 'ours', 'theirs', 'query, truth', 'support',
                 'prior (ours): where it looks first', 'prediction'):  # fmt: skip
        assert f'>{said}<' in text, said
    # outlines of support, truth (three times), two predictions, in the colours of the legend
    lines = re.findall(r'fill: none; stroke: (#\w+)', text)
    assert sorted(map(lines.count, ('#2864ff', '#14c83c', '#ff3c28'))) == [1, 2, 3]
    assert lines.count('#14c83c') == 3


def test_pixels_of_a_png(tmp_path):
    write_figure(figure(rows(1), width=1.0), tmp_path / 'a.png')
    picture = cv2.imread(str(tmp_path / 'a.png'))[..., ::-1].astype(int)
    # the panel of the second method, 200 px wide: 1 px of the label is 10/3 of them
    left = round((0.25 + 3 * 1.04) * DPI)
    top = round(0.32 * DPI)

    def at(y, x):
        return picture[top + round((y + 0.5) * DPI / W), left + round((x + 0.5) * DPI / W)]

    photo, red = np.array([200, 120, 40]), np.array([255, 60, 40])
    np.testing.assert_allclose(at(15, 55), photo, atol=2)
    np.testing.assert_allclose(at(15, 40), 0.55 * photo + 0.45 * red, atol=3)
    assert picture.shape[1] == pytest.approx((2 * 0.25 + 4 * 1.04) * DPI, abs=1)


def test_more_supports_and_no_truth():
    from dataclasses import replace

    drawn = figure([{'a': replace(shown(shots=3), truth=None)}])
    titles = [axes.get_title() for axes in drawn.axes]
    assert titles == ['support 1', 'support 2', 'support 3', 'query', 'a']
    assert not any('IoU' in text.get_text() for axes in drawn.axes for text in axes.texts)


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match='at least one episode, and all of the same methods'):
        figure([])
    with pytest.raises(ValueError, match='at least one episode, and all of the same methods'):
        figure([{'a': shown()}, {'b': shown()}])
    with pytest.raises(ValueError, match=r'width of a panel must be 0.4 to 4.0 inches, got 9'):
        figure(rows(), width=9)
    with pytest.raises(ValueError, match=r'a figure must end in .png, .pdf, .svg, got .*a.eps'):
        write_figure(figure(rows()), tmp_path / 'a.eps')
    assert not list(tmp_path.iterdir())
