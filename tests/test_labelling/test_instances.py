"""``mmfss label --instances``: objects apart, their run-length codes, scores and counts."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F

from mmfss.commands.label import label
from mmfss.commands.prepare import main as prepare
from mmfss.datasets.classes import label_palette
from mmfss.datasets.io import read_mask, save_png
from mmfss.labelling.annotations import objects_of, regions_of

coco_mask = pytest.importorskip('pycocotools.mask')
BOTH = np.ones((3, 3))  # eight neighbours


def _labels(seed, size=(60, 80), classes=3):
    """Blobs of several classes, to the border."""
    rng = np.random.default_rng(seed)
    fields = rng.normal(size=(classes + 1, *size))
    smooth = [scipy.ndimage.gaussian_filter(field, 3) for field in fields]
    return np.argmax(smooth, 0).astype(np.uint8)


def _decoded(annotation):
    code = dict(annotation['segmentation'])
    code['counts'] = code['counts'].encode()
    return coco_mask.decode(code).astype(bool)


@pytest.mark.parametrize('seed', range(4))
def test_connected_parts(seed):
    labels = _labels(seed)
    found = objects_of(labels, 4)  # of the fourth there is nothing
    by_class = {}
    for one in found:
        mask = _decoded(one)
        assert one['area'] == mask.sum()
        assert one['bbox'] == [int(v) for v in coco_mask.toBbox(coco_mask.encode(
            np.asfortranarray(mask.astype(np.uint8))))]  # fmt: skip
        assert scipy.ndimage.label(mask, BOTH)[1] == 1
        assert 'score' not in one
        by_class.setdefault(one['category_id'], []).append(mask)
    assert sorted(by_class) == [1, 2, 3]
    for number, masks in by_class.items():
        region = labels == number
        assert len(masks) == scipy.ndimage.label(region, BOTH)[1] > 1
        assert np.array_equal(np.sum(masks, 0), region)  # disjoint, and all of it
        firsts = [int(np.flatnonzero(mask.ravel())[0]) for mask in masks]
        assert firsts == sorted(firsts)
    regions = regions_of(labels, 4)
    assert [one['category_id'] for one in regions] == [1, 2, 3]
    assert [one['area'] for one in regions] == [(labels == i).sum() for i in (1, 2, 3)]


def test_corners_connect():
    labels = np.zeros((6, 6), np.uint8)
    labels[0, 0] = labels[1, 1] = labels[5, 5] = 1
    assert [(one['bbox'], one['area']) for one in objects_of(labels, 1)] == [
        ([0, 0, 2, 2], 2),
        ([5, 5, 1, 1], 1),
    ]


def test_scores_are_means_over_the_object():
    labels = _labels(5)
    sure = np.random.default_rng(1).integers(0, 256, labels.shape, dtype=np.uint8)
    prediction = SimpleNamespace(sureness=lambda: sure, parts=())
    for one in objects_of(labels, 3, prediction):
        assert abs(one['score'] - sure[_decoded(one)].mean() / 255) < 1e-6


def test_masks_of_the_method_keep_touching_objects_apart():
    """Two halves of one region, which meet in the middle; a third class has no masks."""
    labels = np.zeros((40, 80), np.uint8)
    labels[5:35, 10:70] = 1
    labels[0:3, 0:3] = labels[0:3, 77:] = 2
    x = torch.linspace(-1, 1, 20).expand(10, 20)
    masks = torch.stack([-x * 5 + 0.5, x * 5 + 0.5, torch.full((10, 20), -9.0)]).numpy()
    sure = np.full(labels.shape, 204, np.uint8)
    found = objects_of(labels, 2, SimpleNamespace(sureness=lambda: sure, parts=(masks, None)))
    assert [one['category_id'] for one in found] == [1, 1, 2, 2]
    assert [one['score'] for one in found] == [0.8] * 4
    left, right = _decoded(found[0]), _decoded(found[1])
    full = [F.interpolate(torch.from_numpy(m)[None, None], labels.shape, mode='bilinear')[0, 0]
            for m in masks]  # fmt: skip
    assert np.array_equal(left, (labels == 1) & (full[0] >= full[1]).numpy())
    assert np.array_equal(left | right, labels == 1) and not (left & right).any()
    assert (found[0]['bbox'], found[1]['bbox']) == ([10, 5, 30, 30], [40, 5, 30, 30])


def test_no_masks_at_all_are_connected_parts():
    labels = _labels(6, classes=1)
    none = SimpleNamespace(
        sureness=lambda: np.zeros(labels.shape, np.uint8), parts=(np.zeros((0, 4, 4), np.float32),)
    )
    assert [one['bbox'] for one in objects_of(labels, 1, none)] == [
        one['bbox'] for one in objects_of(labels, 1)
    ]


# ----------------------------------------------------------------------------- the command
def _content(out):
    return json.loads((out / 'annotations.json').read_text())


def test_the_command(case, tmp_path, files_of, capsys):
    out = tmp_path / 'out'
    assert label(case.arguments(out, '--instances')) == 0
    said = capsys.readouterr().out
    content, whole = _content(out), _content(case.reference)
    counts = {one['id']: 0 for one in content['categories']}
    for one in content['annotations']:
        counts[one['category_id']] += 1
        assert one['iscrowd'] == 0 and 0 <= one['score'] <= 1
    assert [one['id'] for one in content['annotations']] == list(range(1, sum(counts.values()) + 1))
    assert f'annotations.json: disc {counts[1]}, slab {counts[2]}' in said
    assert sum(counts.values()) > len(whole['annotations'])
    # all else is as without
    found, want = files_of(out), files_of(case.reference)
    for files in (found, want):
        del files['annotations.json'], files['run.json']
    assert found == want
    inferencer = case.inferencer()
    images = {one['id']: one['file_name'] for one in content['images']}
    for number, name in list(images.items())[:3]:
        made = inferencer(case.images / name)
        own = [one for one in content['annotations'] if one['image_id'] == number]
        for place, one in enumerate(inferencer.classes, 1):
            masks = [_decoded(a) for a in own if a['category_id'] == place]
            assert np.array_equal(
                np.any([np.zeros(made.labels.shape, bool), *masks], 0), made.mask(one)
            )
            for a in (a for a in own if a['category_id'] == place):
                assert a['score'] <= made.scores[place - 1] + 0.003
    assert label(case.arguments(out)) == 2
    assert 'instances was true, now null' in capsys.readouterr().err


def test_what_a_person_corrects_is_taken_apart_again(case, tmp_path):
    out = tmp_path / 'out'
    assert label(case.arguments(out, '--instances', '--tiles', '64')) == 0
    path = out / 'ann_dir' / '01.png'
    values = np.zeros_like(read_mask(path))
    values[2:8, 2:8] = values[20:30, 20:30] = 1
    save_png(path, values, label_palette(2))
    assert label(case.arguments(out, '--instances', '--tiles', '64')) == 0
    content = _content(out)
    number = next(i['id'] for i in content['images'] if i['file_name'] == '01.jpg')
    own = [a for a in content['annotations'] if a['image_id'] == number]
    assert [(a['category_id'], a['area']) for a in own] == [(1, 36), (1, 100)]
    assert own[0]['score'] == own[1]['score']  # of the class: nobody has measured these
    rows = (out / 'scores.csv').read_text().splitlines()
    row = next(row for row in rows if row.startswith('01.jpg,')).split(',')
    assert float(row[4]) == round(136 / values.size, 6)


def test_prepare_reads_what_label_writes(case, tmp_path, capsys):
    out, src = tmp_path / 'out', tmp_path / 'src'
    assert label(case.arguments(out, '--instances')) == 0
    src.mkdir()
    shutil.copytree(case.images, src / 'images')
    shutil.copy(out / 'annotations.json', src)
    prepare(['folder', str(src), str(tmp_path / 'made'), '--min-area', '1'])
    capsys.readouterr()
    seen = 0
    for path in sorted((out / 'ann_dir').rglob('*.png')):
        made = tmp_path / 'made' / 'masks' / path.relative_to(out / 'ann_dir')
        if made.exists():  # pictures that show nothing have none
            assert np.array_equal(read_mask(made), read_mask(path))
            seen += 1
        else:
            assert not read_mask(path).any()
    assert seen >= 5
