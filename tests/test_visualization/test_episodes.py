"""Pictures of episodes: what lies where, and in which colour."""

from __future__ import annotations

import numpy as np
import pytest

from mmfss.visualization.episodes import (
    CAPTION_HEIGHT,
    GAP,
    PAPER,
    TITLE_HEIGHT,
    draw_episode,
    stack_rows,
)
from mmfss.visualization.overlays import (
    EXTRA_COLOUR,
    HIT_COLOUR,
    IGNORE_COLOUR,
    MISSED_COLOUR,
    PREDICTION_COLOUR,
    SUPPORT_COLOUR,
    TRUTH_COLOUR,
)

P = 64
TOP = TITLE_HEIGHT + CAPTION_HEIGHT
GREY = np.full((32, 32, 3), 100, np.uint8)


def half(value: int = 1, size: int = 32) -> np.ndarray:
    """The left half has the value, the right half 0."""
    mask = np.zeros((size, size), np.uint8)
    mask[:, : size // 2] = value
    return mask


def draw(**changes) -> np.ndarray:
    arguments = dict(
        query=GREY,
        supports=[GREY],
        support_masks=[half()],
        prediction=half(),
        truth=half(),
        panel_size=P,
    )
    return draw_episode(**{**arguments, **changes})


def spot(row: np.ndarray, panel: int, x: float, y: float = 0.5) -> tuple[int, ...]:
    """Colour at relative coordinates of the n-th panel."""
    left = GAP + panel * (P + GAP)
    return tuple(int(v) for v in row[TOP + int(y * P), left + int(x * P)])


def tint(colour) -> tuple[int, ...]:
    return tuple(int(np.rint(0.45 * 100 + 0.55 * v)) for v in colour)


def error(colour) -> tuple[int, ...]:
    return tuple(int(np.rint(0.2 * 100 + 0.8 * v)) for v in colour)


def panels(row: np.ndarray) -> int:
    count, rest = divmod(row.shape[1] - GAP, P + GAP)
    assert rest == 0
    return count


def test_panels_in_order_with_their_colours():
    row = draw()
    assert row.dtype == np.uint8 and row.shape == (TOP + P + GAP, 5 * (P + GAP) + GAP, 3)
    assert spot(row, 0, 0.25) == tint(SUPPORT_COLOUR)
    assert spot(row, 1, 0.25) == spot(row, 1, 0.75) == (100, 100, 100)
    assert spot(row, 2, 0.25) == tint(PREDICTION_COLOUR)
    assert spot(row, 3, 0.25) == tint(TRUTH_COLOUR)
    assert spot(row, 4, 0.25) == error(HIT_COLOUR) and spot(row, 4, 0.75) == (40, 40, 40)
    for panel in (0, 2, 3):
        assert spot(row, panel, 0.75) == (75, 75, 75)  # dulled: 0.3 of the colour, 0.45 of grey


@pytest.mark.parametrize(
    'shots, pseudo, refined, truth, count',
    [
        (1, True, True, True, 8),
        (1, True, False, True, 7),
        (1, False, False, True, 5),
        (1, False, False, False, 3),
        (3, True, False, False, 7),
        (5, True, True, True, 12),
        (7, True, True, True, 12),
    ],
)
def test_number_of_panels(shots, pseudo, refined, truth, count):
    row = draw(
        supports=[GREY] * shots,
        support_masks=[half()] * shots,
        maps={
            **({'pseudo fg': np.zeros((8, 8)), 'pseudo ae': np.zeros((8, 8))} if pseudo else {}),
            **({'refined prior': np.zeros((4, 4))} if refined else {}),
        },
        truth=half() if truth else None,
    )
    assert panels(row) == count


def test_heat_from_blue_to_red_fg_ae_refined():
    maps = {'fg': np.zeros((8, 8)), 'ae': np.ones((8, 8)), 'refined': half(size=4).astype(float)}
    row = draw(maps=maps)
    assert spot(row, 4, 0.1) == spot(row, 3, 0.5) and spot(row, 4, 0.9) == spot(row, 2, 0.5)
    cold, hot = spot(row, 2, 0.5), spot(row, 3, 0.5)
    assert cold[2] > 100 and cold[2] > cold[0] + 60
    assert hot[0] > 100 and hot[0] > hot[2] + 60
    assert spot(row, 5, 0.25) == tint(PREDICTION_COLOUR)


def test_maps_are_drawn_in_order_under_their_names():
    cold, hot = np.zeros((3, 5)), np.ones((7, 2))
    row, turned = draw(maps={'one': cold, 'two': hot}), draw(maps={'two': hot, 'one': cold})
    second, third = (slice(GAP + k * (P + GAP), GAP + (k + 1) * (P + GAP)) for k in (2, 3))
    assert np.array_equal(row[:, second], turned[:, third])
    differs = (row != draw(maps={'another': cold, 'two': hot})).any(axis=2)
    assert differs[TITLE_HEIGHT:TOP, second].sum() > 10
    assert differs.sum() == differs[TITLE_HEIGHT:TOP, second].sum()


def test_errors_are_the_last_panel():
    """Quarters: left half predicted, upper half true."""
    truth = half().T.copy()
    row = draw(truth=truth)
    assert spot(row, 4, 0.25, 0.25) == error(HIT_COLOUR)
    assert spot(row, 4, 0.25, 0.75) == error(EXTRA_COLOUR)
    assert spot(row, 4, 0.75, 0.25) == error(MISSED_COLOUR)
    assert spot(row, 4, 0.75, 0.75) == (40, 40, 40)
    assert spot(draw(truth=half(255)), 4, 0.25) == IGNORE_COLOUR


def squares(row: np.ndarray) -> list[tuple[int, ...]]:
    """Colours of the title's band that are no grey, left to right."""
    line = [tuple(int(v) for v in pixel) for pixel in row[TITLE_HEIGHT // 2]]
    return [c for c in dict.fromkeys(line) if max(c) - min(c) > 60]


def test_legend_names_what_may_be_there():
    wide = dict(panel_size=160, title='x' * 400)
    assert squares(draw(**wide)) == [HIT_COLOUR, EXTRA_COLOUR, MISSED_COLOUR]
    assert squares(draw(truth=half(255), **wide))[3:] == [IGNORE_COLOUR]
    assert squares(draw(truth=None, **wide)) == []
    assert squares(draw(panel_size=48)) == []  # no room


def test_ignored_pixels_are_yellow():
    row = draw(truth=half(255), support_masks=[half(255)])
    assert spot(row, 0, 0.25) == spot(row, 3, 0.25) == IGNORE_COLOUR
    assert spot(row, 3, 0.75) == (75, 75, 75)


def test_colours_are_rgb():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    assert spot(draw(query=red), 1, 0.5) == (200, 0, 0)


def test_query_takes_the_proportions_of_the_prediction():
    """A square query of the model's; the label 20 x 40 of a wide original."""
    wide = np.zeros((20, 40), np.uint8)
    wide[:, :20] = 1
    row = draw(prediction=wide, truth=wide)
    for panel in (1, 2, 3, 4):
        assert spot(row, panel, 0.25, 0.2) == PAPER and spot(row, panel, 0.25, 0.8) == PAPER
    assert spot(row, 2, 0.25, 0.3) == spot(row, 2, 0.25, 0.7) == tint(PREDICTION_COLOUR)
    assert spot(row, 0, 0.25, 0.05) == tint(SUPPORT_COLOUR)


def test_sizes_may_differ():
    supports = [np.full((10, 30, 3), 100, np.uint8), np.full((300, 200, 3), 100, np.uint8)]
    masks = [np.ones((10, 30), np.uint8), np.ones((300, 200), np.uint8)]
    row = draw(supports=supports, support_masks=masks, prediction=half(size=301), truth=None)
    assert spot(row, 0, 0.5) == spot(row, 1, 0.5) == tint(SUPPORT_COLOUR)
    assert spot(row, 0, 0.5, 0.1) == PAPER and spot(row, 1, 0.05) == PAPER


def test_text_is_written_and_stays_in_its_band():
    blank, titled = draw(title='', truth=None), draw(title='episode 3: key ' * 40, truth=None)
    differs = (blank != titled).any(axis=2)
    assert differs.sum() > 200
    assert not differs[TITLE_HEIGHT:].any()
    assert (blank[TITLE_HEIGHT:TOP] != PAPER).any(axis=2).sum() > 40
    assert not differs[:, -GAP:].any()


def test_inputs_are_not_changed():
    query, mask = GREY.copy(), half()
    draw(query=query, support_masks=[mask], truth=mask)
    assert np.array_equal(query, GREY) and np.array_equal(mask, half())


def test_stack_fills_narrow_rows():
    short, long = draw(truth=None), draw()
    picture = stack_rows([short, long])
    assert picture.shape == (2 * short.shape[0], long.shape[1], 3)
    assert np.array_equal(picture[: short.shape[0], : short.shape[1]], short)
    assert (picture[: short.shape[0], short.shape[1] :] == PAPER).all()
    assert np.array_equal(picture[short.shape[0] :], long)
    with pytest.raises(ValueError, match='at least one row to stack, got none'):
        stack_rows([])


@pytest.mark.parametrize(
    'bad, message',
    [
        (
            dict(query=GREY.astype(np.float32)),
            r'query must be a uint8 array.*got float32 \(32, 32, 3',
        ),
        (
            dict(query=GREY[..., 0]),
            r'query must be a uint8 array \(H, W, 3\).*got uint8 \(32, 32\)',
        ),
        (dict(supports=[GREY[:, :0]]), r'support 1 must be a uint8 array .*\(32, 0, 3\)'),
        (dict(supports=[], support_masks=[]), 'at least one support; got 0 supports, 0 masks'),
        (dict(supports=[GREY] * 2), 'one mask for each support.*got 2 supports, 1 masks'),
        (dict(support_masks=[half(7)]), r'mask of support 1 may hold only .*got \[7\]; binarise'),
        (dict(prediction=half(255)), r'prediction may hold only \(0, 1\), got \[255\]'),
        (dict(truth=half()[None]), r'truth must be an array \(H, W\), got shape \(1, 32, 32\)'),
        (dict(maps={'fg': np.zeros((0, 8))}), r'map fg must be .*\(h, w\).*got \(0, 8\)'),
        (dict(maps={'fg': np.full((4, 4), np.nan)}), 'map fg must be finite.*got NaN'),
        (
            dict(maps={'refined prior': np.zeros((1, 4, 4))}),
            r'refined prior must be an array \(h, w\).*\(1, 4',
        ),
        (dict(truth=half(size=31)), r'must have one size.*got \(32, 32\) and \(31, 31\); resize'),
        (dict(panel_size=8), 'panel_size must be from 48 to 1024 pixels, got 8'),
    ],
)
def test_bad_input_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        draw(**bad)
