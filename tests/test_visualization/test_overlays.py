"""Colours of masks, maps and errors, pixel by pixel."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from mmfss.visualization.overlays import (
    ERROR_LEGEND,
    EXTRA,
    HIT,
    IGNORE_COLOUR,
    IGNORED,
    MISSED,
    NOTHING,
    class_colours,
    contrasting,
    error_kinds,
    luminance,
    overlay_errors,
    overlay_heat,
    overlay_labels,
    overlay_mask,
)

GREY = np.full((32, 32, 3), 100, np.uint8)
# Machado, Oliveira and Fernandes (2009), severity 1: what is left of linear RGB
VISION = {
    'normal': np.eye(3),
    'protanopia': np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    'deuteranopia': np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    'tritanopia': np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def test_overlay_mask_by_hand():
    """A 5 x 5 mask in a 9 x 7 image: tinted core, bare colour on its rim, dull outside."""
    image = np.full((9, 7, 3), (20, 40, 60), np.uint8)
    mask = np.zeros((9, 7), np.uint8)
    mask[2:7, 1:6], mask[8] = 1, 255
    out = overlay_mask(image, mask, (100, 0, 0))
    grey = int(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[0, 0])
    kinds = dict(
        dull=[round(0.3 * v + 0.45 * grey) for v in (20, 40, 60)],
        core=[64, 18, 27],
        rim=[100, 0, 0],
        ignored=list(IGNORE_COLOUR),
    )
    count = {name: int((out == colour).all(axis=2).sum()) for name, colour in kinds.items()}
    assert count == dict(dull=63 - 25 - 7, core=9, rim=16, ignored=7)
    assert out[4, 3].tolist() == kinds['core'] and out[2, 3].tolist() == kinds['rim']


def test_border_of_the_image_is_no_rim():
    out = overlay_mask(GREY, np.ones((32, 32), np.uint8), (0, 0, 0))
    assert (out == 45).all()


def test_overlay_heat_is_monotonic_from_blue_to_red():
    heat = np.linspace(0, 1, 32)[None].repeat(32, axis=0)
    out = overlay_heat(GREY, heat).astype(int)
    balance = out[16, :, 0] - out[16, :, 2]
    assert balance[0] < -60 and balance[-1] > 60
    assert (np.diff(balance[4:-4]) >= 0).all()


def test_error_kinds_against_a_loop():
    random = np.random.default_rng(0)
    prediction = random.integers(0, 2, (19, 23)).astype(np.uint8)
    truth = random.choice(np.array([0, 1, 255], np.uint8), (19, 23))
    kinds = error_kinds(prediction, truth)
    table = {
        (0, 0): NOTHING,
        (1, 1): HIT,
        (1, 0): EXTRA,
        (0, 1): MISSED,
        (0, 255): IGNORED,
        (1, 255): IGNORED,
    }
    for p, t, kind in zip(prediction.ravel(), truth.ravel(), kinds.ravel()):
        assert kind == table[int(p), int(t)]
    assert len(np.unique(kinds)) == 5


def test_errors_need_one_size():
    with pytest.raises(ValueError, match=r'must have one size.*got \(4, 4\) and \(4, 5\); resize'):
        error_kinds(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8))


def test_colours_of_errors():
    kinds = np.arange(5, dtype=np.uint8)[None]
    out = overlay_errors(np.full((1, 5, 3), 100, np.uint8), kinds)[0].tolist()
    assert out[NOTHING] == [40, 40, 40] and out[IGNORED] == list(IGNORE_COLOUR)
    for kind in (HIT, EXTRA, MISSED):
        assert out[kind] == [round(0.8 * v + 20) for v in ERROR_LEGEND[kind][1]]


def test_large_errors_shrink_to_the_nearest():
    kinds = np.repeat(np.array([HIT, EXTRA], np.uint8), 64)[None].repeat(128, axis=0)
    out = overlay_errors(GREY, kinds)
    colours, counts = np.unique(out.reshape(-1, 3), axis=0, return_counts=True)
    assert len(colours) == 2 and counts.tolist() == [512, 512]


def lab(colour: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """CIE Lab of an sRGB colour as somebody sees it."""
    c = colour / 255
    seen = matrix @ np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    seen = np.clip(seen, 0, 1)
    srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(srgb.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_RGB2LAB)[0, 0]


@pytest.mark.parametrize('vision', VISION)
def test_errors_differ_for_everybody(vision):
    """At least 20 units of Lab (2 is just noticeable) on dark and bright images alike."""
    kinds = np.arange(5, dtype=np.uint8)[None]
    seen = []
    for grey in (20, 128, 235):
        out = overlay_errors(np.full((1, 5, 3), grey, np.uint8), kinds)[0].astype(float)
        seen += [(kind, lab(colour, VISION[vision])) for kind, colour in enumerate(out)]
    apart = [np.linalg.norm(a - b) for (i, a), (j, b) in combinations(seen, 2) if i != j]
    assert min(apart) > 20


def test_labels_are_tinted_and_outlined_by_a_plain_loop():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    labels = np.zeros((30, 40), np.uint8)
    labels[4:14, 5:20], labels[10:28, 15:38] = 1, 3
    colours = ((9, 9, 9), (200, 0, 0), (0, 200, 0), (0, 0, 200))
    before = image.copy()
    out = overlay_labels(image, labels, colours, 0.25)
    for y in range(30):
        for x in range(40):
            label = int(labels[y, x])
            around = labels[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            if label == 0:
                wanted = image[y, x]
            elif (around == label).all() and 0 < y < 29 and 0 < x < 39:
                wanted = np.rint(0.75 * image[y, x] + 0.25 * np.array(colours[label]))
            else:
                continue  # outlines, below
            assert np.abs(out[y, x] - wanted.astype(float)).max() <= 1
    assert out[4, 5].tolist() == [200, 0, 0] and out[27, 37].tolist() == [0, 0, 200]
    assert np.array_equal(image, before)


@pytest.mark.parametrize(('width', 'bare', 'first', 'last'), [
    (1, 180, (30, 40), (60, 100)), (2, 536, (29, 39), (61, 101)), (3, 888, (28, 38), (62, 102)),
])  # fmt: skip
def test_width_of_outlines(width, bare, first, last):
    """A rectangle of 31 x 61 pixels: how many of the bare colour, and from where to where."""
    image = np.full((100, 300, 3), 100, np.uint8)
    mask = np.zeros(image.shape[:2], bool)
    mask[30:61, 40:101] = True
    colour = (10, 20, 200)
    part = 300 // width
    both = (
        overlay_labels(image, mask, ((0, 0, 0), colour), outline_part=part),
        overlay_mask(image, mask.astype(np.uint8), colour, outline_width=width),
    )
    for out in both:
        here = np.argwhere((out == colour).all(axis=2))
        assert len(here) == bare and (*here.min(0), *here.max(0)) == (*first, *last)
    assert both[0][45, 70].tolist() == [55, 60, 150] and both[0][0, 0].tolist() == [100] * 3


def test_colours_of_classes_differ_and_show_on_every_photo():
    colours = class_colours(254)
    assert len(colours) == len(set(colours)) == 255 and colours[:13] == class_colours(12)
    lab = cv2.cvtColor(np.array([colours], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    apart = np.linalg.norm(lab[1:13, None] - lab[None, 1:13], axis=2) + 999 * np.eye(12)
    assert apart.min() > 25
    # fur, skin, wood, leaves, stone, shadow; PASCAL's first, (128, 0, 0), is 15 from brown fur
    photo = [
        (92, 25, 20),
        (205, 150, 120),
        (130, 85, 50),
        (70, 100, 40),
        (128, 128, 120),
        (25,) * 3,
    ]
    photos = cv2.cvtColor(np.array([photo], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    away = np.linalg.norm(lab[1:9, None] - photos[None], axis=2)
    assert away.min() > 50
    for colour in colours[1:]:  # the line or its halo stands out, whatever is below
        bright, halo = (luminance(c) + 0.05 for c in (colour, contrasting(colour)))
        assert max(bright, halo) / min(bright, halo) > 4.5


def test_no_label_and_thin_images():
    for shape in ((1, 7, 3), (7, 1, 3), (1, 1, 3)):
        image = np.full(shape, 9, np.uint8)
        nothing = np.zeros(shape[:2], np.uint8)
        assert np.array_equal(overlay_labels(image, nothing, ((1, 1, 1),)), image)
        assert (overlay_labels(image, nothing + 1, ((0, 0, 0), (5, 6, 7))) == (5, 6, 7)).all()
