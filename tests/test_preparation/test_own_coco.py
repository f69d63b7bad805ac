"""COCO files as tools and home-made converters write them: what is read, named, refused."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from coco_cases import box, coco_folder, counts, rectangle, same, write
from own_folders import corners
from prepared_checks import fails, picture, prepare, save

from mmfss.datasets.account import FILE, Account
from mmfss.datasets.folds import get_benchmark
from mmfss.datasets.preparation import own_coco
from mmfss.datasets.preparation.instances import decode, run_lengths
from mmfss.datasets.preparation.own_coco import (
    BOX,
    CROWD_IGNORED,
    CROWD_OBJECT,
    FLAT,
    NO_BOX,
    NOTHING,
    PART,
    SAME_NAME,
    TWICE,
    read_own_coco,
)

pytest.importorskip('pycocotools')


def changed(tmp_path, change, **options):
    """A folder whose content was changed, and its masks."""
    content, masks = coco_folder(tmp_path / 'src', **options)
    change(content)
    write(tmp_path / 'src', content)
    return tmp_path / 'src', masks


def every(**values):
    """Change all annotations; a function is called with each."""

    def change(content):
        for annotation in content['annotations']:
            annotation.update({k: v(annotation) if callable(v) else v for k, v in values.items()})

    return change


def without(key, part='annotations'):
    return lambda content: [entry.pop(key) for entry in content[part]]


def noted(out):
    """``{reason: how often}`` of the CSV."""
    return {reason.text: len(rows) for reason, rows in Account.read(out).rows.items()}


@pytest.mark.parametrize(
    'change',
    [
        without('id'),
        every(id=0),
        every(id=lambda a: f'a{a["id"]}'),
        every(image_id=lambda a: str(a['image_id'])),
        every(image_id=lambda a: float(a['image_id'])),
        every(category_id='1'),
        every(iscrowd='0'),
        every(iscrowd=False),
        every(iscrowd=None),
        without('iscrowd'),
        without('bbox'),
        without('area'),
        every(bbox=None, area=None),
        every(bbox=[], area=0),
        every(bbox=[0, 0, 0, 0]),
        every(segmentation=lambda a: [np.reshape(a['segmentation'][0], (-1, 2)).tolist()]),
        every(segmentation=lambda a: np.reshape(a['segmentation'][0], (-1, 2)).tolist()),
        without('width', 'images'),
        lambda c: [i.update(width=None, height='') for i in c['images']],
        lambda c: [i.update(width=str(i['width']), height=f'{i["height"]}.0') for i in c['images']],
        lambda c: c['categories'].insert(0, dict(id=0, name='mug', supercategory='none')),
        lambda c: c['categories'].append(dict(id=1, name='mug')),
        lambda c: c['categories'].append(dict(id=9)),
        lambda c: c.update(info=None, licenses=[]),
    ],
)
def test_forms_that_can_be_read_in_one_way_only(tmp_path, capsys, change):
    src, masks = changed(tmp_path, change)
    said = prepare(capsys, 'folder', src, tmp_path / 'out')
    same(tmp_path / 'out', masks)
    assert get_benchmark(str(tmp_path / 'out')).classes == ('mug',)
    assert 'left out' not in said and not (tmp_path / 'out' / FILE).exists()


def one_flat(content):
    for annotation in content['annotations']:
        annotation['segmentation'] = annotation['segmentation'][0]


def two_categories(content):
    content['categories'].append(dict(id=2, name='mug'))
    content['annotations'][1]['category_id'] = 2


def listed_twice(content):
    content['images'].append(dict(content['images'][0], id=99))
    content['annotations'].append(dict(content['annotations'][0], id=99, image_id=99))


@pytest.mark.parametrize(
    'change, reason, number',
    [
        (one_flat, FLAT, 4),
        (two_categories, SAME_NAME, 1),
        (listed_twice, TWICE, 1),
        (every(segmentation=lambda a: [*a['segmentation'], [1, 1, 2, 2]]), PART, 4),
        (every(bbox=[1, 2, 3, 4, 5]), NO_BOX, 4),
        (every(bbox='here'), NO_BOX, 4),
        (every(bbox=[1, 2, 3, None]), NO_BOX, 4),
        (every(iscrowd=1), CROWD_OBJECT, 4),
        (every(iscrowd='1'), CROWD_OBJECT, 4),
        (every(iscrowd=True), CROWD_OBJECT, 4),
    ],
)
def test_what_is_read_otherwise_than_written_is_said(tmp_path, capsys, change, reason, number):
    src, masks = changed(tmp_path, change)
    said = prepare(capsys, 'folder', src, tmp_path / 'out')
    same(tmp_path / 'out', masks)
    assert noted(tmp_path / 'out') == {reason.text: number}
    assert f'{number}  {reason.text}' in said and f'each in {tmp_path / "out" / FILE}' in said


def test_boxes_alone_are_unknown_and_no_background(tmp_path, capsys):
    src = tmp_path / 'src'
    content, masks = coco_folder(src)
    more = []
    for image, annotation in zip(content['images'], content['annotations']):
        alone = dict(annotation, id=100 + annotation['id'], bbox=[60, 2, 20, 10], area=200)
        shape = [[], None, [[60, 2, 80, 12]], {}][annotation['id']]
        more.append(dict(alone, segmentation=shape))
        masks[image['file_name']][2:12, 60:80] = 255
    more.append(dict(more[0], id=200, bbox=[0, 0, 0, 0]))
    content['annotations'] += more
    write(src, content)
    said = prepare(capsys, 'folder', src, tmp_path / 'out')
    same(tmp_path / 'out', masks)
    assert noted(tmp_path / 'out') == {BOX.text: 4, NOTHING.text: 1}
    assert (
        '4  box without an outline: its pixels are unknown (255)  mug 4    annotation 100' in said
    )


@pytest.mark.parametrize('shape', ['missing', None, [], [[10, 10, 40, 40]], [10, 10, 40, 40]])
def test_a_file_of_boxes_is_refused_with_the_reason(tmp_path, shape):
    change = without('segmentation') if shape == 'missing' else every(segmentation=shape)
    src, _ = changed(tmp_path, change)
    said = fails('folder', src, tmp_path / 'out')
    assert 'no class has two images with at least 256 pixels of it' in said
    assert '4 x box without an outline: its pixels are unknown (255) (mug 4): annotation 0' in said
    assert 'takes boxes as prompts' in said and '--min-area' not in said
    assert noted(tmp_path / 'out') == {BOX.text: 4}


def test_small_objects_are_named_beside_the_option(tmp_path):
    src, _ = changed(tmp_path, lambda content: None)
    said = fails('folder', src, tmp_path / 'out', '--min-area', '5000')
    assert '4 x fewer pixels of a class in an image than --min-area: not counted (mug 4)' in said
    assert '2025 pixels in 0.png' in said and '-> lower it' in said


def mixed_crowds(content):
    """A mug is drawn by polygon in two photos, by mask (and so a crowd) in the others."""
    for image, annotation in list(zip(content['images'], content['annotations']))[2:]:
        mask = rectangle(annotation['id'])
        shape = [image['height'], image['width']]
        annotation.update(iscrowd=1, segmentation=dict(size=shape, counts=counts(mask)))


def test_objects_drawn_as_masks_are_objects(tmp_path, capsys):
    src, masks = changed(tmp_path, mixed_crowds)
    said = prepare(capsys, 'folder', src, tmp_path / 'out')
    same(tmp_path / 'out', masks)
    assert '2  iscrowd 1: read as an object, as CVAT, datumaro and supervision write' in said
    prepare(capsys, 'folder', src, tmp_path / 'b', '--crowd', 'ignored')
    unknown = {name: masks[name] * (255 if name in ('2.png', '3.png') else 1) for name in masks}
    same(tmp_path / 'b', unknown)
    assert noted(tmp_path / 'b') == {CROWD_IGNORED.text: 2}


def test_a_class_of_crowds_alone_cannot_be_ignored(tmp_path):
    src, _ = changed(tmp_path, every(iscrowd=1))
    said = fails('folder', src, tmp_path / 'out', '--crowd', 'ignored')
    assert 'all annotations of mug (4) have iscrowd 1, and --crowd ignored leaves none' in said
    assert not (tmp_path / 'out').exists()


def own_category(content):
    for number, annotation in enumerate(content['annotations']):
        annotation['category_id'] = None if number == 2 else 1


def other_content(content):
    content['images'].append(dict(content['images'][0], id=99))
    other = copy.deepcopy(content['annotations'][1])
    content['annotations'].append(dict(other, id=99, image_id=99))


@pytest.mark.parametrize(
    'change, said',
    [
        (own_category, '1 annotations whose category_id is not among its 1 categories: annot'),
        (every(image_id=77), '4 annotations whose image_id is not among its 4 images: annotation'),
        (other_content, 'file names of images more than once, with different annotations: 0.png'),
        (lambda c: c['images'][0].pop('file_name'), '1 images without file_name: image ids [0]'),
        (lambda c: c['images'][0].pop('id'), '1 images without id: 0.png'),
        (lambda c: c['images'][0].update(height='tall'), "height of image 0.png must be a number"),
        (lambda c: c['categories'][0].pop('name'), 'needs an id and a name'),
        (every(iscrowd='maybe'), "annotation 0 of 0.png: iscrowd must be 0 or 1, got 'maybe'"),
        (every(segmentation='here'), 'segmentation of annotation 0 is wrong'),
        (every(segmentation=[['a'] * 6]), 'segmentation of annotation 0 is wrong'),
        (every(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), 'a polygon must be a list of finite numbers'),
        (every(segmentation=[[1, 2, 3, 4, 5, float('nan')]]), 'must be a list of finite numbers'),
        (every(segmentation=[[0, 0, 2e5, 0, 2e5, 2e5]]), 'a polygon reaches to 200000 with'),
        (lambda c: c.pop('annotations'), 'COCO format: it has no list annotations of objects'),
        (lambda c: c.update(images={}), 'COCO format: it has no list images of objects'),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_ids(tmp_path, change, said):
    src, _ = changed(tmp_path, change)
    with pytest.raises(ValueError) as refused:
        found = read_own_coco(src / 'annotations.json')
        for image_id, rows in found.annotations.items():
            for row in rows:
                decode(row, found.images[image_id]['height'], found.images[image_id]['width'])
    assert said in str(refused.value)


@pytest.mark.parametrize('data', [b'', b'{"images": [', b'\xff\xfe', b'null', b'[]'])
def test_files_of_something_else(tmp_path, data):
    (tmp_path / 'a.json').write_bytes(data)
    with pytest.raises(ValueError, match='is cut off or no JSON|is no file of instances in COCO'):
        read_own_coco(tmp_path / 'a.json')
    with pytest.raises(FileNotFoundError, match='annotations not found'):
        read_own_coco(tmp_path / 'b.json')


def compressed(mask: np.ndarray) -> str:
    """A plain loop for the text of a run-length code, as COCO's tools write it."""
    runs, text = counts(mask), ''
    for i, run in enumerate(runs):
        left = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            digit = left & 31
            left >>= 5
            more = left != (-1 if digit & 16 else 0)
            text += chr(48 + (digit | 32 * more))
    return text


def test_compressed_codes_are_decoded_before_a_library_sees_them():
    random = np.random.default_rng(0)
    for number in range(60):
        height, width = random.integers(1, 60, 2)
        mask = random.random((height, width)) < random.random()
        if number % 3 == 0:
            mask = np.kron(mask[:5, :5], np.ones((30, 40), bool)) > 0
        height, width = (int(side) for side in mask.shape)
        text = compressed(mask)
        assert run_lengths(text).tolist() == run_lengths(text.encode()).tolist() == counts(mask)
        row = dict(id=3, segmentation=dict(size=[height, width], counts=text))
        np.testing.assert_array_equal(decode(row, height, width), mask)
        with pytest.raises(ValueError, match=r'annotation 3 is wrong: its counts must sum to'):
            longer = dict(size=[height + 1, width], counts=text)
            decode(dict(row, segmentation=longer), height + 1, width)


@pytest.mark.parametrize(
    'text, said',
    [
        ('', 'must be a list of integers, or a text'),
        ('garbage%%%', 'cut off or have characters outside'),
        (None, 'must be a list of integers, or a text'),
        ([1.5, 2], 'its counts must be integers'),
        ([2, 1], 'its counts must sum to 4 pixels'),
    ],
)
def test_codes_that_are_none(text, said):
    with pytest.raises(ValueError, match=said):
        decode(dict(id=1, segmentation=dict(size=[2, 2], counts=text)), 2, 2)


def test_what_label_writes_prepare_reads(tmp_path, capsys):
    """Compressed codes of several classes, those of some in few photos."""
    src = tmp_path / 'src'
    content, masks = coco_folder(src, number=6, orientation=6)
    for image, annotation in zip(content['images'], content['annotations']):
        mask = masks[image['file_name']].astype(bool)
        size = [int(side) for side in mask.shape]
        annotation.update(segmentation=dict(size=size, counts=compressed(mask)), bbox=box(mask))
    (src / 'labels').mkdir()
    (src / 'labels/annotations.json').write_text(json.dumps(content))
    (src / 'annotations.json').unlink()
    options = ['--annotations', src / 'labels/annotations.json', '--images', src / 'images']
    prepare(capsys, 'folder', src, tmp_path / 'out', *options)
    same(tmp_path / 'out', masks)


def test_rows_have_names_and_numbers_of_their_own(tmp_path):
    src, _ = changed(tmp_path, every(id=lambda a: 5 if a['id'] < 2 else a['id']))
    found = read_own_coco(src / 'annotations.json')
    rows = [row for rows in found.annotations.values() for row in rows]
    assert [row['name'] for row in rows] == [
        'annotation 5 (number 1)',
        'annotation 5 (number 2)',
        'annotation 2',
        'annotation 3',
    ]
    assert [row['id'] for row in rows] == [1, 2, 3, 4]
    assert set(own_coco.CROWDS) == {'object', 'ignored'}


def test_names_that_are_alike_are_refused(tmp_path):
    src, _ = changed(tmp_path, two_categories)
    content = json.loads((src / 'annotations.json').read_text())
    content['categories'][1]['name'] = 'Mug '
    write(src, content)
    said = fails('folder', src, tmp_path / 'out')
    assert "'mug' and 'Mug ' differ by case or spaces alone; give them one name" in said


def test_background_is_no_class(tmp_path):
    src, _ = changed(tmp_path, lambda content: content['categories'][0].update(name='Background'))
    said = fails('folder', src, tmp_path / 'out')
    assert "'Background' cannot be a class: it is value 0" in said


def test_masks_beside_annotations_are_named(tmp_path, capsys):
    src, masks = changed(tmp_path, lambda content: None)
    save(src / 'masks/0.png', next(iter(masks.values())))
    said = prepare(capsys, 'folder', src, tmp_path / 'out')
    assert '1 masks left out: annotations count' in said and '0.png' in said


def test_a_run_length_code_in_a_list_is_one(tmp_path, capsys):
    content, masks = coco_folder(tmp_path / 'src')
    for annotation, mask in zip(content['annotations'], masks.values()):
        code = dict(size=list(mask.shape), counts=counts(mask > 0))
        annotation.update(segmentation=[code], bbox=box(mask))
    write(tmp_path / 'src', content)
    prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    same(tmp_path / 'out', masks)


def test_images_that_were_converted_after_annotation(tmp_path):
    src = tmp_path / 'src'
    content, _ = coco_folder(src)
    for image in content['images']:
        image['file_name'] = image['file_name'].rpartition('.')[0] + '.heic'
    write(src, content)
    said = fails('folder', src, tmp_path / 'out')
    assert 'they are there with another ending: change it in file_name' in said
    assert '--images' not in said


def test_photos_without_annotations_are_background(tmp_path, capsys):
    content, masks = coco_folder(tmp_path / 'src')
    picture(tmp_path / 'src/images/empty.png', (60, 90))
    content['images'].append(dict(id=50, file_name='empty.png', height=60, width=90))
    write(tmp_path / 'src', content)
    said = prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    same(tmp_path / 'out', masks | {'empty.png': np.zeros((60, 90), np.uint8)})
    assert '1 images show no class' in said and corners(masks['0.png'])
