"""Masks painted from COCO's instances, against plain loops."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmfss.datasets.class_names import COCO_CLASSES
from mmfss.datasets.segmentation import CocoFewShot

TOOL = Path(__file__).resolve().parents[2] / 'tools/dataset_converters/coco_masks.py'
IDS = [i + i // 10 for i in range(1, 81)]  # with gaps, as the official ones
SIZE = (9, 12)
needs_coco = pytest.mark.skipif(
    importlib.util.find_spec('pycocotools') is None,
    reason='pycocotools is not installed: pip install -r requirements/tools.txt',
)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    return runpy.run_path(str(TOOL), run_name='__main__')


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


def write_coco(root, change=None):
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
    for split in ('train2014', 'val2014'):
        (root / split).mkdir()
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(content))
        for i in things:
            Image.new('RGB', SIZE[::-1]).save(root / split / f'im{i}.jpg')
    return root


@needs_coco
def test_masks_equal_plain_loops(tmp_path, monkeypatch, capsys):
    root = write_coco(tmp_path / 'coco')
    run(monkeypatch, root, '--workers', 2)
    out = capsys.readouterr().out
    for split in ('train2014', 'val2014'):
        assert f'{split}: 4 masks painted, 0 complete already, 1 images not in' in out
        for i, things in instances().items():
            with Image.open(root / f'annotations/{split}/im{i}.png') as mask:
                assert mask.mode == 'L'
                np.testing.assert_array_equal(np.asarray(mask), by_loops(things), err_msg=f'{i}')
        assert len(CocoFewShot(split, str(root))) == 4
        assert len(list((root / f'annotations/{split}').iterdir())) == 4  # nothing half-written


@needs_coco
def test_complete_masks_are_left_and_others_made_anew(tmp_path, monkeypatch, capsys):
    root = write_coco(tmp_path / 'coco')
    run(monkeypatch, root, '--splits', 'val2014')
    masks = {f.name: f for f in (root / 'annotations/val2014').iterdir()}
    before = {name: file.read_bytes() for name, file in masks.items()}
    masks['im1.png'].write_bytes(before['im1.png'][:45])
    masks['im3.png'].unlink()
    Image.new('L', (5, 5)).save(masks['im4.png'])
    time = masks['im2.png'].stat().st_mtime_ns
    run(monkeypatch, root, '--splits', 'val2014')
    assert 'val2014: 3 masks painted, 1 complete already' in capsys.readouterr().out
    assert {name: file.read_bytes() for name, file in masks.items()} == before
    assert masks['im2.png'].stat().st_mtime_ns == time


@needs_coco
@pytest.mark.parametrize(
    'change, message',
    [
        (lambda c: c['categories'].pop(), r'must have the 80 categories of COCO 2014.*got 79'),
        (lambda c: c.pop('images'), r"train2014\.json is no file of COCO instances.*download"),
        (
            lambda c: c['annotations'][3]['segmentation'].update(size=[12, 9]),
            r'annotation 4 is \[12, 9\] pixels \(height, width\), its image \[9, 12\]; download',
        ),
        (
            lambda c: [i.update(file_name='no.jpg') for i in c['images']],
            r'none of the 5 images of train2014 is in .*train2014; unpack train2014\.zip',
        ),
    ],
)
def test_wrong_annotations(tmp_path, monkeypatch, change, message):
    root = write_coco(tmp_path / 'coco', change)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, root)
    assert re.search(f'^error: .*{message}', str(stop.value))


@needs_coco
def test_missing_annotations(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r'annotations not found: .*instances_train2014\.json; do'):
        run(monkeypatch, tmp_path)


def test_missing_pycocotools(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name == 'pycocotools' else find(name)
    )
    with pytest.raises(SystemExit, match='pycocotools is not installed; pip install -r requirem'):
        run(monkeypatch, tmp_path)


@needs_coco
def test_real_annotations(tmp_path, monkeypatch, shared_dir):
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
    run(monkeypatch, root, '--splits', 'val2014')
    coco = COCO(str(file))
    label_of = {category: i for i, category in enumerate(sorted(coco.getCatIds()), 1)}
    values = set()
    for image in images:
        with Image.open(root / 'annotations/val2014' / f'{Path(image["file_name"]).stem}.png') as f:
            mask = np.asarray(f)
        allowed = np.zeros((256, *mask.shape), bool)
        for annotation in coco.loadAnns(coco.getAnnIds(image['id'])):
            value = 255 if annotation['iscrowd'] else label_of[annotation['category_id']]
            allowed[value] |= coco.annToMask(annotation).astype(bool)
        allowed[0] = ~allowed[1:].any(axis=0)
        assert np.take_along_axis(allowed, mask[None].astype(int), 0).all()
        values |= set(np.unique(mask).tolist())
    assert {0, 255} < values
