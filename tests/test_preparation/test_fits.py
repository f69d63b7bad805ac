"""Annotations that do not fit their image or themselves: single ones are named, systematic ones
are diagnosed and refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from coco_cases import SHAPE, coco_folder, counts, rectangle, write
from prepared_checks import fails, prepare, read

from mmfss.datasets.account import Account
from mmfss.datasets.preparation.fits import AREA, BEYOND, EMPTY, OTHER_FORM

pytest.importorskip('pycocotools')
LARGE = (240, 320)


def each(content, change) -> None:
    """Change all annotations: ``change(annotation, height, width)``."""
    for image, annotation in zip(content['images'], content['annotations']):
        change(annotation, image['height'], image['width'])


def scaled(numbers, x, y):
    return [number * (y if i % 2 else x) for i, number in enumerate(numbers)]


def outlines(annotation, x, y):
    annotation['segmentation'] = [scaled(part, x, y) for part in annotation['segmentation']]


def twice_boxes(a, h, w):
    a['bbox'] = scaled(a['bbox'], 2, 2)


def twice_outlines(a, h, w):
    outlines(a, 2, 2)


def half_outlines(a, h, w):
    outlines(a, 0.5, 0.5)


def all_twice(a, h, w):
    outlines(a, 2, 2)
    a['bbox'] = scaled(a['bbox'], 2, 2)


def exchanged(a, h, w):
    a['segmentation'] = [
        [v for x, y in zip(p[::2], p[1::2]) for v in (y, x)] for p in a['segmentation']
    ]


def from_below(a, h, w):
    a['segmentation'] = [
        [v for x, y in zip(p[::2], p[1::2]) for v in (x, h - y)] for p in a['segmentation']
    ]


def along_rows(a, h, w):
    mask = np.zeros((h, w), bool)
    x, y, right, bottom = (
        int(v) for v in (*a['bbox'][:2], a['bbox'][0] + a['bbox'][2], a['bbox'][1] + a['bbox'][3])
    )
    mask[y:bottom, x:right] = True
    a['segmentation'] = dict(size=[h, w], counts=counts(mask.T))


def transposed(a, h, w):
    along_rows(a, h, w)
    a['segmentation']['size'] = [w, h]


def percent(a, h, w):
    outlines(a, 100 / w, 100 / h)
    a['bbox'] = scaled(a['bbox'], 100 / w, 100 / h)


def percent_of_the_left(a, h, w):
    outlines(a, 45 / w, 100 / h)
    a['bbox'] = scaled(a['bbox'], 45 / w, 100 / h)


def relative(a, h, w):
    outlines(a, 1 / w, 1 / h)
    a['bbox'] = scaled(a['bbox'], 1 / w, 1 / h)


def slightly(a, h, w):
    a['bbox'] = scaled(a['bbox'], 1.12, 1.12)


def four_areas(a, h, w):
    a.update(bbox=None, area=4 * a['area'])


def corner_boxes(a, h, w):
    x, y, width, height = a['bbox']
    a.update(bbox=[x, y, x + width, y + height], segmentation=[])


@pytest.mark.parametrize(
    'change, shape, said',
    [
        (twice_boxes, SHAPE, 'the boxes are 2 times the outlines, so one of both is of images of'),
        (half_outlines, LARGE, 'the boxes are 2 times the outlines'),
        (
            twice_outlines,
            SHAPE,
            'outlines reach more than 2 pixels beyond their image: the boxes are',
        ),
        (all_twice, SHAPE, 'they end at up to x = 170 and y = 110 in an image of 90 x 60 pixels'),
        (exchanged, LARGE, 'x and y are exchanged in outlines or boxes'),
        (from_below, LARGE, 'y is counted from the lower edge'),
        (along_rows, SHAPE, 'their run-length codes run along the rows, as if transposed'),
        (along_rows, (80, 80), 'their run-length codes run along the rows, as if transposed'),
        (transposed, SHAPE, '4 run-length codes have height and width exchanged: they are transp'),
        (percent, LARGE, 'they are in percent of the sides; --units percent reads them so'),
        (percent_of_the_left, LARGE, 'they are in percent of the sides'),
        (
            relative,
            SHAPE,
            'they are in parts of the sides (0 to 1); --units relative reads them so',
        ),
        (four_areas, SHAPE, '4 of 4 areas are 4 times those of the outlines'),
        (slightly, LARGE, 'the boxes are 1.1 times the outlines'),
        (percent, (120, 120), '4 of 4 areas are 1.4 times those of the outlines'),
        (corner_boxes, SHAPE, 'as boxes of x1, y1, x2, y2 they would fit'),
    ],
)
def test_what_is_wrong_with_all_is_said_in_a_sentence(tmp_path, change, shape, said):
    src = tmp_path / 'src'
    content, _ = coco_folder(src, shape=shape)
    each(content, change)
    write(src, content)
    message = fails('folder', src, tmp_path / 'out')
    assert said in message and len(message) < 700
    assert re.search('outlines end at|areas are|annotation 0 in 0.png', message)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('change, unit', [(percent, 'percent'), (relative, 'relative')])
def test_units_are_read_where_they_are_said(tmp_path, capsys, change, unit):
    content, masks = coco_folder(tmp_path / 'src', shape=LARGE)
    each(content, change)
    write(tmp_path / 'src', content)
    said = prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out', '--units', unit)
    assert 'left out' not in said
    for image, mask in masks.items():
        np.testing.assert_array_equal(read(tmp_path / 'out/masks' / image), mask)


@pytest.mark.parametrize(
    'change, said', [(percent, 'percent of the sides'), (relative, 'parts of the sides (0 to 1)')]
)
def test_units_of_some_images_alone_are_named(tmp_path, capsys, change, said):
    """6 of 8 images, of boxes and areas that agree or are not there."""
    content, masks = coco_folder(tmp_path / 'src', shape=(480, 640), number=8)
    for image, annotation in list(zip(content['images'], content['annotations']))[:6]:
        change(annotation, image['height'], image['width'])
    for annotation in content['annotations']:
        del annotation['bbox'], annotation['area']
    write(tmp_path / 'src', content)
    message = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert 'all outlines of 6 of 8 images end at x =' in message and said in message
    assert 'export those of 0.png, 1.png, 2.png, 3.png, 4.png and 1 more again' in message
    prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out', '--units', 'pixels')


def test_objects_in_a_corner_may_be_in_pixels(tmp_path, capsys):
    """100 of 110 pixels are no corner; and a person may say so."""
    _, masks = coco_folder(tmp_path / 'small', shape=(100, 110))
    assert 'left out' not in prepare(capsys, 'folder', tmp_path / 'small', tmp_path / 'a')
    content, masks = coco_folder(tmp_path / 'large', shape=LARGE)
    each(content, percent)
    each(content, lambda a, h, w: a.pop('area'))
    write(tmp_path / 'large', content)
    prepare(capsys, 'folder', tmp_path / 'large', tmp_path / 'b', '--units', 'pixels')
    mask = read(tmp_path / 'b/masks/0.png')
    assert mask.any() and not mask[100:].any() and not mask[:, 100:].any()


def test_single_misfits_are_named_and_read_on(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'out'
    content, masks = coco_folder(src, number=12)
    rows = content['annotations']
    x, y, width, height = rows[0]['bbox']
    rows[0]['segmentation'] = [[x, y, x + width, y, x + width, y + 99, x, y + 99]]
    rows[1]['segmentation'] = [[200, 200, 220, 200, 220, 220]]
    small = [[40, 10, 70, 10, 70, 40, 40, 40]]
    rows[2].update(segmentation=small, bbox=[40, 10, 70, 40], area=900)
    rows[3]['area'] = 1e6
    rows[4]['bbox'] = [0, 0, 5, 5]
    rows[5]['segmentation'] = [[5, 5, 5, 5, 5, 5]]
    rows[6].update(bbox=[0, 0, 1, 1], area=1.0)
    rows[7].update(segmentation=small, bbox=[40 / 90, 10 / 60, 30 / 90, 30 / 60], area=900)
    rows[8].update(segmentation=small, bbox=[55, 25, 30, 30], area=900)
    rows[9]['area'] = rows[9]['bbox'][2] * rows[9]['bbox'][3]
    write(src, content)
    said = prepare(capsys, 'folder', src, out)
    found = [(reason.text, row.what, row.file) for reason, row in Account.read(out)]
    assert (BEYOND.text, f'annotation 0 ({y + 99 - 60:.0f} pixels)', '0.png') in found
    assert (BEYOND.text, 'annotation 1 (160 pixels)', '1.png') in found
    assert (EMPTY.text, 'annotation 1', '1.png') in found
    assert (AREA.text, f'annotation 3 (1e+06, drawn {masks["3.png"].sum()})', '3.png') in found
    assert (EMPTY.text, 'annotation 5', '5.png') in found
    forms = [what for text, what, _ in found if text == OTHER_FORM.text]
    assert forms == [
        'annotation 2 (x1, y1, x2, y2)',
        'annotation 8 (centre, width, height)',
    ]
    assert 'bbox is not around the outline' in said and 'annotation 4 in 4.png' in said
    assert not {'6.png', '7.png', '9.png', '10.png', '11.png'} & {file for *_, file in found}
    assert 'mug 10' in said
    cut = masks['0.png'].copy()
    cut[int(y) :, int(x) : int(x + width)] = 1
    np.testing.assert_array_equal(read(out / 'masks/0.png'), cut)


def test_two_pixels_beyond_are_rounding(tmp_path, capsys):
    content, _ = coco_folder(tmp_path / 'src')
    for annotation in content['annotations']:
        annotation['segmentation'] = [[-2, 20, 92, 20, 92, 62, -2, 62]]
        annotation.update(bbox=[-2, 20, 94, 42], area=94 * 42)
    write(tmp_path / 'src', content)
    assert 'left out' not in prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')


def test_objects_that_borders_of_tiles_cut_are_cut_and_named(tmp_path, capsys):
    """They reach beyond all sides, in all of these photos."""
    content, masks = coco_folder(tmp_path / 'src')
    for number, annotation in enumerate(content['annotations']):
        x, y = [(-20, 10), (60, 10), (30, -20), (30, 40)][number]
        outline = [x, y, x + 50, y, x + 50, y + 40, x, y + 40]
        annotation.update(segmentation=[outline], bbox=[x, y, 50, 40], area=2000)
        mask = masks[f'{number}.png']
        mask[:] = 0
        mask[max(y, 0) : y + 40, max(x, 0) : x + 50] = 1
    write(tmp_path / 'src', content)
    prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    for image, mask in masks.items():
        np.testing.assert_array_equal(read(tmp_path / 'out/masks' / image), mask)
    assert [row.what for row in Account.read(tmp_path / 'out').rows[BEYOND]] == [
        'annotation 0 (20 pixels)',
        'annotation 1 (20 pixels)',
        'annotation 2 (20 pixels)',
        'annotation 3 (20 pixels)',
    ]


def test_boxes_that_are_loose_for_no_reason_are_not_refused(tmp_path, capsys):
    """A detector's boxes beside outlines of something better."""
    content, masks = coco_folder(tmp_path / 'src', number=6, shape=LARGE)
    random = np.random.default_rng(0)
    for annotation in content['annotations']:
        x, y, width, height = annotation['bbox']
        left, top, right, bottom = random.uniform(5, 25, 4)
        annotation['bbox'] = [x - left, y - top, width + left + right, height + top + bottom]
    write(tmp_path / 'src', content)
    assert 'left out' not in prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    for image, mask in masks.items():
        np.testing.assert_array_equal(read(tmp_path / 'out/masks' / image), mask)


def test_boxes_of_the_whole_image_stand_for_none(tmp_path, capsys):
    content, masks = coco_folder(tmp_path / 'src', shape=LARGE)
    for annotation in content['annotations']:
        mask = np.zeros(LARGE, bool)
        mask[20:60, 30:90] = True
        outline = [30, 20, 90, 20, 90, 60, 30, 60]
        annotation.update(segmentation=[outline], bbox=[0, 0, 320, 240], area=2400)
    write(tmp_path / 'src', content)
    prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out', '--units', 'pixels')
    assert Account.read(tmp_path / 'out').count(OTHER_FORM) == 4


def test_a_box_is_compared_with_what_is_drawn_not_with_its_hull(tmp_path, capsys):
    """Two parts, far from each other, are one object."""
    content, _ = coco_folder(tmp_path / 'src')
    for annotation in content['annotations']:
        one, other = [2, 2, 30, 2, 30, 30, 2, 30], [70, 40, 88, 40, 88, 58, 70, 58]
        annotation.update(segmentation=[one, other], bbox=[2, 2, 86, 56], area=28 * 28 + 18 * 18)
    write(tmp_path / 'src', content)
    assert 'left out' not in prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')


def test_shapes_of_the_cases():
    """A rectangle of the cases is none of its own turns, or the tests above would show nothing."""
    mask = rectangle(1)
    assert not np.array_equal(mask, mask[::-1]) and mask.shape == SHAPE
