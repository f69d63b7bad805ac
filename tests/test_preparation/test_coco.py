"""Masks painted from COCO's instances, against plain loops."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prepared_checks import fails, files, prepare

from mmfss.datasets.classes import COCO_CLASSES
from mmfss.datasets.segmentation import CocoFewShot

IDS = [i + i // 10 for i in range(1, 81)]  # with gaps, as the official ones
SIZE = (9, 12)
needs_coco = pytest.mark.skipif(
    importlib.util.find_spec('pycocotools') is None,
    reason='pycocotools is not installed: pip install -r requirements/common.txt',
)


def runs_of(area):
    """Uncompressed run lengths, down the columns, beginning with those of 0."""
    counts, value = [0], False
    for x in range(area.shape[1]):
        for y in range(area.shape[0]):
            if bool(area[y, x]) != value:
                counts, value = [*counts, 0], not value
            counts[-1] += 1
    return dict(size=list(area.shape), counts=counts)


def rectangle(top, left, bottom, right):
    area = np.zeros(SIZE, bool)
    area[top:bottom, left:right] = True
    return area


def polygon(top, left, bottom, right):
    return [left, top, right, top, right, bottom, left, bottom]


def instances():
    """Image id -> list of (label, crowd, rectangles, segmentation)."""
    nested = [(1, 2, 4, 6), (0, 0, 9, 8), (2, 3, 3, 5)]  # neither largest nor smallest first
    found = {1: [(i + 1, 0, [r], [polygon(*r)]) for i, r in enumerate(nested)]}
    crowd, inside = (0, 0, 9, 3), (0, 0, 9, 12)  # what lies on a crowd is seen, larger or not
    found[2] = [(80, 0, [inside], runs_of(rectangle(*inside)))]
    found[3] = [
        (7, 1, [crowd], runs_of(rectangle(*crowd))),
        (11, 0, [(3, 1, 6, 2), (7, 8, 9, 12)], [polygon(3, 1, 6, 2), polygon(7, 8, 9, 12)]),
        (12, 0, [], [[1, 1, 3, 3]]),  # a line
    ]
    found[4] = []
    return found


def by_loops(things):
    """The label of a pixel: of the smallest instance there, else 255 in a crowd, else 0."""
    mask = np.zeros(SIZE, np.uint8)
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            best = None
            for label, crowd, parts, _ in things:
                size = sum((b - t) * (r - left) for t, left, b, r in parts)
                if any(t <= y < b and left <= x < r for t, left, b, r in parts):
                    rank = (crowd, size)
                    if best is None or rank < best[0]:
                        best = (rank, 255 if crowd else label)
            mask[y, x] = best[1] if best else 0
    return mask


def write_coco(root, change=None, year='2014'):
    """Both splits, with the same 4 images; a fifth is in the annotations alone."""
    things = instances()
    numbers = iter(range(1, 100))
    content = dict(
        categories=[dict(id=i, name=n) for i, n in reversed(list(zip(IDS, COCO_CLASSES)))],
        images=[
            dict(id=i, file_name=f'im{i}.jpg', height=SIZE[0], width=SIZE[1]) for i in range(1, 6)
        ],
        annotations=[
            dict(
                id=next(numbers),
                image_id=image,
                category_id=IDS[label - 1],
                iscrowd=crowd,
                segmentation=segmentation,
            )
            for image, found in things.items()
            for label, crowd, _, segmentation in found
        ],
    )
    if change is not None:
        change(content)
    (root / 'annotations').mkdir(parents=True)
    for split in (f'train{year}', f'val{year}'):
        (root / split).mkdir()
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(content))
        for i in things:
            Image.new('RGB', SIZE[::-1]).save(root / split / f'im{i}.jpg')
    return root


@needs_coco
@pytest.mark.parametrize('year', ['2014', '2017'])
def test_masks_equal_plain_loops(tmp_path, capsys, year):
    root = write_coco(tmp_path / 'coco', year=year)
    out = prepare(capsys, 'coco', root, '--year', year)
    for split in (f'train{year}', f'val{year}'):
        folder = root / 'annotations' / split
        assert f'{split}: 4 masks in {folder}: 4 made, 0 complete already' in out
        for i, things in instances().items():
            with Image.open(folder / f'im{i}.png') as mask:
                assert mask.mode == 'L'
                np.testing.assert_array_equal(np.asarray(mask), by_loops(things), err_msg=f'{i}')
        assert len(CocoFewShot(split, str(root))) == 4
        assert len(list(folder.iterdir())) == 4  # nothing half-written
    assert out.count(f'1 of the 5 images in instances_train{year}.json are not in') == 1
    assert out.count('1 annotations cover no pixel') == 2  # the line, in both splits
    assert out.count('  fold ') == 4 and '0 training images, 0 test images' in out


@needs_coco
def test_complete_masks_are_left_and_others_made_anew(tmp_path, capsys):
    root = write_coco(tmp_path / 'coco')
    prepare(capsys, 'coco', root, '--splits', 'val')
    folder = root / 'annotations/val2014'
    before = files(folder)
    (folder / 'im1.png').write_bytes(before['im1.png'][1][:45])
    (folder / 'im3.png').unlink()
    Image.new('L', (5, 5)).save(folder / 'im4.png')
    (folder / '.im2.png.x1.part').write_bytes(b'half')
    out = prepare(capsys, 'coco', root, '--splits', 'val')
    assert 'val2014: 4 masks in' in out and '3 made, 1 complete already' in out
    after = files(folder)
    assert {name: file[1] for name, file in after.items()} == {n: f[1] for n, f in before.items()}
    assert after['im2.png'] == before['im2.png']


@needs_coco
def test_changed_annotations_are_painted_again(tmp_path, capsys):
    root = write_coco(tmp_path / 'coco')
    prepare(capsys, 'coco', root, '--splits', 'val')
    file = root / 'annotations/instances_val2014.json'
    content = json.loads(file.read_text())
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] != 2]
    file.write_text(json.dumps(content))
    assert '4 made, 0 complete already' in prepare(capsys, 'coco', root, '--splits', 'val')
    with Image.open(root / 'annotations/val2014/im2.png') as mask:
        assert not np.asarray(mask).any()


@needs_coco
def test_masks_of_others_are_not_taken_for_ours(tmp_path, capsys):
    root = write_coco(tmp_path / 'coco')
    folder = root / 'annotations/train2014'
    folder.mkdir()
    Image.new('L', SIZE[::-1], 3).save(folder / 'im1.png')
    said = fails('coco', root)
    assert f'{folder} has files that this command did not paint; move them away, or' in said
    assert len(list(folder.iterdir())) == 1
    assert '4 made' in prepare(capsys, 'coco', root, '--splits', 'train', '--overwrite')


def _polygon(number):
    return lambda c: c['annotations'][0].update(segmentation=[[0, 0, 4, 0, 4, number]])


@needs_coco
@pytest.mark.parametrize(
    'change, message',
    [
        (lambda c: c['categories'].pop(40), r'must have the 80 categories of COCO, .*got 79'),
        (lambda c: c.pop('images'), r"train2014\.json is cut off or no file .*'images'.*unpack"),
        (
            lambda c: c['annotations'][3]['segmentation'].update(size=[12, 9]),
            r'annotation 4 is wrong: it is of \[12, 9\] pixels \(height, width\), its image is of '
            r'\[9, 12\]; download',
        ),
        (
            lambda c: c['annotations'][3]['segmentation'].update(counts=[7]),
            'annotation 4 is wrong: its counts must sum to 108 pixels',
        ),
        (_polygon(float('nan')), 'annotation 1 is wrong: a polygon must be a list of finite'),
        (
            lambda c: c['annotations'][0].update(segmentation=[[0, 0, 4, 0, 4]]),
            'annotation 1 is wrong: a polygon must be a list of finite numbers x, y',
        ),
        (
            lambda c: c['annotations'][0].update(segmentation=None),
            'segmentation of annotation 1 is wrong',
        ),
        (
            lambda c: [i.update(file_name=f'no{i["id"]}.jpg') for i in c['images']],
            r'none of the 5 images of train2014 is in .*train2014 \(the first is no1\.jpg\); '
            r'unpack train2014\.zip',
        ),
        (
            lambda c: c['images'][1].update(file_name='im1.jpg'),
            r"1 file names of images more than once: \['im1\.jpg'\]; each must occur once",
        ),
        (
            lambda c: c['images'][1].update(id=1),
            r'1 image ids more than once: \[1\]; each must occur once',
        ),
        (
            lambda c: c['annotations'][1].update(image_id=77),
            r'1 annotations whose image_id is not among its 5 images: annotations \[2\]; unpack',
        ),
        (
            lambda c: c['annotations'][1].update(category_id=10),
            r'1 annotations whose category_id is not among its 80 categories: annotations \[2\]',
        ),
        (
            lambda c: c['images'][2].update(width=20),
            r'im3\.jpg is 12 x 9 pixels \(width x height\), its annotations are for 20 x 9; downl',
        ),
    ],
)
def test_wrong_annotations(tmp_path, change, message):
    root = write_coco(tmp_path / 'coco', change)
    assert re.search(f'^error: (.|\n)*{message}', fails('coco', root))


@needs_coco
def test_cut_off_annotations(tmp_path):
    root = write_coco(tmp_path / 'coco')
    file = root / 'annotations/instances_train2014.json'
    file.write_bytes(file.read_bytes()[:-100])
    assert 'train2014.json is cut off or no file of instances in COCO format' in fails('coco', root)


@needs_coco
def test_images_that_no_annotation_file_lists_are_named(tmp_path, capsys):
    root = write_coco(tmp_path / 'coco')
    Image.new('RGB', (4, 4)).save(root / 'val2014/new.jpg')
    said = prepare(capsys, 'coco', root)
    assert '1 images in' in said and 'have no mask: new.jpg; take them away' in said


@needs_coco
def test_missing_annotations(tmp_path):
    said = fails('coco', tmp_path)
    assert re.search(r'annotations not found: .*instances_train2014\.json; unpack', said)
    write_coco(tmp_path / 'coco', year='2017')
    said = fails('coco', tmp_path / 'coco')
    assert 'the annotations of 2017 are there: add --year 2017' in said


def test_missing_pycocotools(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name == 'pycocotools' else find(name)
    )
    assert 'pycocotools is not installed; pip install pycocotools' in fails('coco', tmp_path)


@needs_coco
def test_real_annotations(tmp_path, capsys, shared_dir):
    """A pixel is 0 where no instance is, and else of an instance (or crowd) that covers it."""
    from pycocotools.coco import COCO

    source, root = shared_dir / 'data/coco', tmp_path / 'coco'
    if not source.is_dir():
        pytest.skip(f'no photos at {source}')
    file = source / 'annotations/instances_val2014.json'
    content = json.loads(file.read_text())
    crowded = {a['image_id'] for a in content['annotations'] if a['iscrowd']}
    images = sorted(content['images'], key=lambda i: i['id'] not in crowded)[:6]
    (root / 'val2014').mkdir(parents=True)
    (root / 'annotations').mkdir()
    (root / 'annotations' / file.name).write_bytes(file.read_bytes())
    for image in images:
        (root / 'val2014' / image['file_name']).symlink_to(source / 'val2014' / image['file_name'])
    said = prepare(capsys, 'coco', root, '--splits', 'val')
    assert '34 of the 40 images in instances_val2014.json are not in' in said
    coco_api = COCO(str(file))
    label_of = {category: i for i, category in enumerate(sorted(coco_api.getCatIds()), 1)}
    values = set()
    for image in images:
        with Image.open(root / 'annotations/val2014' / f'{Path(image["file_name"]).stem}.png') as f:
            mask = np.asarray(f)
        allowed = np.zeros((256, *mask.shape), bool)
        for annotation in coco_api.loadAnns(coco_api.getAnnIds(image['id'])):
            value = 255 if annotation['iscrowd'] else label_of[annotation['category_id']]
            allowed[value] |= coco_api.annToMask(annotation).astype(bool)
        allowed[0] = ~allowed[1:].any(axis=0)
        assert np.take_along_axis(allowed, mask[None].astype(int), 0).all()
        values |= set(np.unique(mask).tolist())
    assert {0, 255} < values
