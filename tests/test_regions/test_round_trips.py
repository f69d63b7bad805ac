"""Every form of a region gives back its mask, pixel by pixel."""

from __future__ import annotations

import io
from base64 import b64decode

import cv2
import numpy as np
import pytest
from PIL import Image
from region_cases import CASES, drawn, some

from mmfss import regions

coder = pytest.importorskip('pycocotools.mask')


def test_outlines():
    for mask in some():
        found = regions.outlines_of(mask)
        number, _ = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
        assert len(found) == number - 1
        background = np.pad(~mask, 1, constant_values=True).view(np.uint8)
        outside = cv2.connectedComponents(background, connectivity=4)[0] - 2
        assert sum(len(outline) - 1 for outline in found) == outside
        np.testing.assert_array_equal(regions.filled(found, *mask.shape), mask)


def test_an_outline_runs_along_the_borders_of_pixels():
    (outer, hole), (lone,) = regions.outlines_of(drawn('####./#..#./####./...../....#'))
    assert {*map(tuple, outer)} == {(0, 0), (4, 0), (4, 3), (0, 3)}
    assert {*map(tuple, hole)} == {(1, 1), (3, 1), (3, 2), (1, 2)}
    assert {*map(tuple, lone)} == {(4, 4), (5, 4), (5, 5), (4, 5)}
    assert len(regions.joined((outer, hole))) == 4 + 4 + 2


def test_outlines_may_be_simplified():
    disc = np.hypot(*np.mgrid[-40:41, -40:41]) < 35
    exact, plain = (regions.outlines_of(disc, tolerance) for tolerance in (0, 1))
    assert len(plain[0][0]) < 0.25 * len(exact[0][0])
    found = regions.filled(plain, *disc.shape)
    assert (found & disc).sum() > 0.97 * (found | disc).sum()
    for mask in CASES.values():  # a part never vanishes
        assert len(regions.outlines_of(mask, 50)) == len(regions.outlines_of(mask))
    for wrong in (-1, float('nan'), float('inf')):
        with pytest.raises(ValueError, match='tolerance of outlines must be 0 or more pixels'):
            regions.outlines_of(disc, wrong)


def test_codes_of_coco():
    for mask in some():
        height, width = mask.shape
        want = coder.encode(np.asfortranarray(mask.astype(np.uint8)))['counts'].decode()
        code = regions.mask_code(mask)
        assert code == dict(size=[height, width], counts=want)
        plain = regions.mask_code(mask, text=False)
        flat = mask.ravel(order='F')
        assert sum(plain['counts']) == flat.size and sum(plain['counts'][1::2]) == flat.sum()
        for form in (code, plain):
            found = regions.decoded(regions.code_of(form, *mask.shape), *mask.shape)
            np.testing.assert_array_equal(found, mask)
        if mask.any():
            part, left, top = regions.cropped(mask)
            assert regions.region_code(part, left, top, *mask.shape) == code


def test_a_run_goes_on_in_the_next_column():
    code = regions.region_code(np.ones((5, 3), bool), 1, 0, 5, 6)
    uncompressed = coder.frPyObjects(dict(size=[5, 6], counts=[5, 15, 10]), 5, 6)
    assert code['counts'] == uncompressed['counts'].decode()  # one run, not three


def test_brush_labels():
    for mask in (*some(), np.ones((300, 400), bool), np.zeros((300, 400), bool)):
        code = regions.brush_code(mask)
        np.testing.assert_array_equal(regions.brush_mask(code, *mask.shape), mask)


def test_a_brush_label_bit_by_bit():
    """1 x 3 pixels, the last two of the region: runs of 4 values 0 and of 8 values 255."""
    bits = f'{12:032b}' + f'{7:05b}' + ''.join(f'{size - 1:04b}' for size in (3, 4, 8, 16))
    bits += '1' + '00' + f'{3:03b}' + f'{0:08b}'
    bits += '1' + '00' + f'{7:03b}' + f'{255:08b}'
    bits += '0' * (-len(bits) % 8)
    code = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert regions.brush_code(np.array([[False, True, True]])) == code
    # values one by one, as the page of Label Studio writes what does not repeat
    values = (0, 0, 0, 127, 1, 2, 3, 128)
    bits = f'{8:032b}' + f'{7:05b}' + ''.join(f'{size - 1:04b}' for size in (3, 4, 8, 16))
    bits += '0' + '01' + f'{7:04b}' + ''.join(f'{value:08b}' for value in values)
    bits += '0' * (-len(bits) % 8)
    code = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert regions.brush_mask(code, 1, 2).tolist() == [[False, True]]


@pytest.mark.parametrize(
    'change, said',
    [
        (lambda code: code[:-2], 'is cut off'),
        (lambda code: code[:3], 'is cut off'),
        (lambda code: [], 'is cut off'),
        (lambda code: [0, 0, 0, 8, *code[4:]], 'is of 2 pixels, its image is of 4 x 3'),
        (lambda code: [*code[:4], code[4] | 0x80, *code[5:]], 'values of 24 bits, allowed are 8'),
        (lambda code: [300, *code], 'must be a list of bytes'),
        (lambda code: 'AAAA', 'must be a list of bytes'),
        (lambda code: None, 'must be a list of bytes'),
        (lambda code: 10**11, 'must be a list of bytes'),
    ],
)
def test_brush_labels_that_are_none(change, said):
    code = regions.brush_code(drawn('.##./####/#..#'))
    with pytest.raises(ValueError, match=said):
        regions.brush_mask(change(code), 3, 4)


def test_masks_of_cvat():
    for mask in some():
        if not mask.any():
            continue
        attributes = regions.cvat_attributes(mask)
        np.testing.assert_array_equal(regions.cvat_mask(attributes, *mask.shape), mask)
        points = regions.cvat_points(mask)
        np.testing.assert_array_equal(regions.cvat_points_mask(points, *mask.shape), mask)
    mask = drawn('...../.#.#./..##.')
    assert regions.cvat_attributes(mask) == dict(
        rle='0, 1, 1, 1, 1, 2', left='1', top='1', width='3', height='2'
    )
    assert regions.cvat_points(mask) == [0, 1, 1, 1, 1, 2, 1, 1, 3, 2]
    with pytest.raises(ValueError, match='its runs sum to 7 of 6 pixels'):
        regions.cvat_points_mask([7, 1, 1, 3, 2], *mask.shape)
    with pytest.raises(ValueError, match='a mask of 1 runs in a box of 0 x 2 pixels'):
        regions.cvat_mask(dict(rle='0', left='1', top='1', width='0', height='2'), *mask.shape)
    with pytest.raises(ValueError, match='runs and a box of four numbers, got 3'):
        regions.cvat_points_mask([1, 2, 3], *mask.shape)


def test_mask_shapes_of_labelme():
    for mask in some():
        if mask.any():
            shape = regions.labelme_shape(mask)
            np.testing.assert_array_equal(regions.labelme_mask(shape, *mask.shape), mask)
    shape = regions.labelme_shape(drawn('...../.#.#./..##.'))
    assert (shape['shape_type'], shape['points']) == ('mask', [[1, 1], [3, 2]])
    assert Image.open(io.BytesIO(b64decode(shape['mask']))).size == (3, 2)
    with pytest.raises(ValueError, match='its mask is no base 64'):
        regions.labelme_mask(dict(shape, mask='%%%'), 3, 5)
    for half in ('', shape['mask'][:16], shape['mask'][:60]):
        with pytest.raises(ValueError, match='its mask is no image'):
            regions.labelme_mask(dict(shape, mask=half), 3, 5)


def test_parts_that_reach_beyond_the_image():
    """Cut off at its borders."""
    part = np.random.default_rng(0).random((6, 8)) < 0.5
    height, width = 40, 48
    for left, top in ((3, 4), (-2, -1), (46, 37), (-3, 38), (60, 3), (-9, 3), (5, 90)):
        whole = np.zeros((height + 120, width + 120), bool)
        whole[10 + top : 16 + top, 10 + left : 18 + left] = part
        found = regions.placed(part, left, top, height, width)
        np.testing.assert_array_equal(found, whole[10 : 10 + height, 10 : 10 + width])
    with pytest.raises(ValueError, match='marks no pixel'):
        regions.cropped(np.zeros((3, 3), bool))


def test_rectangles_and_ellipses():
    assert regions.rectangle((0, 0), (4, 2)) == [0, 0, 4, 0, 4, 2, 0, 2]
    assert regions.rectangle((4, 2), (0, 0)) == [0, 0, 4, 0, 4, 2, 0, 2]
    turned = np.reshape(regions.rectangle((0, 0), (4, 2), 90), (-1, 2))
    np.testing.assert_allclose(turned, [(3, -1), (3, 3), (1, 3), (1, -1)], atol=1e-9)
    about = np.reshape(regions.rectangle((0, 0), (4, 2), 90, (0, 0)), (-1, 2))
    np.testing.assert_allclose(about, [(0, 0), (0, 4), (-2, 4), (-2, 0)], atol=1e-9)
    for radius in (0.3, 3, 40, 900):
        points = np.reshape(regions.ellipse((5, 7), (radius, radius)), (-1, 2))
        middles = (points + np.roll(points, 1, 0)) / 2  # of its sides: the farthest off
        off = radius - np.hypot(*(middles - (5, 7)).T)
        assert off.min() >= 0 and off.max() <= 0.25 + 1e-9
    for radius in (2e6, 1e15, 1e300, np.inf, np.nan):  # the second would take 10 GB
        with pytest.raises(ValueError, match='reaches too far'):
            regions.ellipse((5, 7), (3, radius))
