"""Shapes-5i: the same pixels everywhere, enough images for every fold, safe writing."""

from __future__ import annotations

import hashlib
import json
import runpy
import sys
from collections import Counter

import cv2
import numpy as np
import pytest

from mmfss.datasets import shapes
from mmfss.datasets.folds import get_split
from mmfss.datasets.shapes import (
    SHAPES_CLASSES,
    SHAPES_MIN_AREA,
    ShapesSpec,
    fold_counts,
    is_complete,
    render_sample,
    write_shapes,
)
from mmfss.datasets.shapes_drawing import FORMS, TEXTURES, Placement, form_area, rasterise
from mmfss.datasets.shapes_scenes import CLASS_NAMES, class_texture, layout_scene, scene_classes

IDENTITY = Placement((0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
SMALL = ShapesSpec(train=6, val=4, image_size=32)


def files_of(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()
    }


def test_pixels_are_those_of_version_1():
    """Recorded with numpy 1.26.4 and 2.4.6, OpenCV 4.9 and 5.0, with and without AVX."""
    digest = hashlib.sha256()
    for split in ('train', 'val'):
        for index in range(4):
            for array in render_sample(0, split, index, 64):
                digest.update(array.tobytes())
    assert digest.hexdigest() == '3073a1f85a1deef8a5bc92e45cc54a8ac3153bf99e01ffd0ead6fd05d4e30d5a'


def test_picture_depends_on_seed_split_and_index_alone():
    image, label = render_sample(3, 'val', 7, 32)
    np.random.seed(0)
    render_sample(3, 'val', 6, 32)
    again = render_sample(3, 'val', 7, 32)
    assert image.dtype == label.dtype == np.uint8
    assert image.shape == (32, 32, 3) and label.shape == (32, 32)
    assert np.array_equal(image, again[0]) and np.array_equal(label, again[1])
    for other in ((4, 'val', 7), (3, 'train', 7), (3, 'val', 8)):
        assert not np.array_equal(image, render_sample(*other, 32)[0])


def test_layout_does_not_depend_on_the_image_size():
    for index in range(6):
        small, large = (render_sample(0, 'train', index, size)[1] for size in (64, 192))
        centres = large[1::3, 1::3]
        sure = (small != 255) & (centres != 255)
        assert sure.mean() > 0.9
        assert (small[sure] == centres[sure]).mean() > 0.995


def test_classes_follow_the_forms_and_share_textures_with_another_fold():
    assert len(set(SHAPES_CLASSES)) == 20 and CLASS_NAMES == SHAPES_CLASSES
    users = {name: [] for name in TEXTURES}
    for class_id in range(1, 21):
        users[class_texture(class_id)].append((class_id - 1) // 5)
    assert len(users) == 10
    for name, folds in users.items():
        assert len(folds) == 2 and folds[0] != folds[1], name


@pytest.mark.parametrize(
    'name, area',
    [
        ('cross', 2 * 0.6 * 1.9 - 0.36),
        ('triangle', 0.75 * 3**0.5),
        ('ell', 0.55 * 1.37 + 1.45 * 0.53),
        ('ring', np.pi * (0.95**2 - 0.52**2)),
        ('horseshoe', np.pi * (0.85**2 - 0.42**2) / 2 + 2 * 0.43 * 1.05),
    ],
)
def test_rasterised_area_is_the_forms(name, area):
    assert form_area(name) == pytest.approx(area, rel=0.015)


def test_filling_agrees_with_a_plain_loop():
    placement = Placement((0.5, 0.45), (0.3, -0.12, 0.1, 0.35), (0.2, -0.1))
    step = 1 / 40
    found = rasterise(FORMS['key'], placement, step / 2, step / 2, (40, 40), step)
    for row in range(40):
        for column in range(40):
            u, v = placement.inverse(np.array((column + 0.5) * step), np.array((row + 0.5) * step))
            inside = False
            for add, loop in FORMS['key']:
                odd = False
                for (xa, ya), (xb, yb) in zip(loop, np.roll(loop, -1, axis=0)):
                    if (ya > v) != (yb > v) and u < xa + (v - ya) / (yb - ya) * (xb - xa):
                        odd = not odd
                inside = (inside or odd) if add else (inside and not odd)
            assert found[row, column] == inside, (row, column)
    assert 100 < found.sum() < 400


def test_inverse_undoes_forward():
    placement = Placement((0.4, 0.6), (0.2, 0.05, -0.1, 0.3), (0.2, -0.15))
    points = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    there = placement.forward(points)
    back = np.stack(placement.inverse(there[:, 0], there[:, 1]), axis=1)
    assert np.abs(back - points).max() < 1e-12


@pytest.mark.parametrize('name', TEXTURES)
def test_texture_is_two_tones_of_balanced_shares(name):
    u, v = np.meshgrid(np.linspace(-8, 8, 400), np.linspace(-8, 8, 400))
    tone = TEXTURES[name](u, v) * 1.0
    assert set(np.unique(tone)) <= {0.0, 0.5, 1.0}
    assert 0.25 < tone.mean() < 0.75


def test_every_class_is_the_main_one_of_equally_many_images():
    mains = Counter(scene_classes(0, 'train', i)[0] for i in range(420))
    assert mains == Counter(dict.fromkeys(range(1, 21), 21))


def test_a_label_shows_the_classes_that_were_meant_at_a_useful_size():
    areas = np.stack(
        [np.bincount(render_sample(0, 'val', i)[1].ravel(), minlength=256) for i in range(100)]
    )
    assert not areas[:, 21:255].any()
    for index, area in enumerate(areas):
        shown = tuple(np.flatnonzero(area[1:21]) + 1)
        assert shown == tuple(sorted(scene_classes(0, 'val', index))), index
        assert 1 <= len(layout_scene(0, 'val', index)) <= 5
    classes = areas[:, 1:21]
    shares = classes[classes > 0] / 128**2
    assert (classes[classes > 0] >= SHAPES_MIN_AREA).all()
    assert 0.08 < np.median(shares) < 0.13
    assert np.percentile(shares, 5) > 0.045 and np.percentile(shares, 95) < 0.25
    assert 0 < (areas[:, 255] / 128**2).mean() < 0.02


def test_meant_classes_leave_enough_for_every_fold():
    """The default 420 + 200: what the episodic dataset will find (labels are as meant, above)."""
    meant = {
        split: [scene_classes(0, split, i) for i in range(count)]
        for split, count in (('train', 420), ('val', 200))
    }
    uses = {
        split: Counter(c for classes in lists for c in classes) for split, lists in meant.items()
    }
    assert (min(uses['train'].values()), max(uses['train'].values())) == (35, 43)
    assert (min(uses['val'].values()), max(uses['val'].values())) == (14, 21)
    kept, tested, least = [], [], []
    for fold in range(4):
        novel = set(get_split('shapes-5i', fold).novel)
        free = [classes for classes in meant['train'] if not novel & set(classes)]
        kept.append(len(free))
        least.append(min(Counter(c for classes in free for c in classes).values()))
        tested.append(sum(bool(novel & set(classes)) for classes in meant['val']))
    assert kept == [252, 257, 253, 242]
    assert least == [23, 25, 24, 25]
    assert tested == [82, 81, 73, 84]


def test_colour_does_not_name_the_class():
    """Mean colours of objects have one distribution: no class is off by more than chance."""
    of_class = {class_id: [] for class_id in range(1, 21)}
    for index in range(300):
        for thing in layout_scene(0, 'train', index):
            if thing.class_id:
                of_class[thing.class_id].append(thing.colours.mean(axis=0))
    means = np.array([np.mean(colours, axis=0) for colours in of_class.values()])
    assert min(len(colours) for colours in of_class.values()) >= 20
    assert np.abs(means - 127.5).max() < 45  # 52 / sqrt(20) = 12 is one standard error


def test_writes_the_layout_of_voc(tmp_path):
    out = tmp_path / 'deep' / 'shapes'
    assert write_shapes(out, SMALL) is True
    assert (
        out / 'ImageSets/Segmentation/val.txt'
    ).read_text() == 'val_00000\nval_00001\nval_00002\nval_00003\n'
    image, label = render_sample(0, 'train', 5, 32)
    assert np.array_equal(cv2.imread(str(out / 'JPEGImages/train_00005.png')), image)
    written = cv2.imread(str(out / 'SegmentationClassAug/train_00005.png'), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(written, label)
    manifest = json.loads((out / 'shapes5i.json').read_text())
    assert manifest == dict(
        name='Shapes-5i',
        version=1,
        seed=0,
        train=6,
        val=4,
        image_size=32,
        min_area=128,
        classes=list(SHAPES_CLASSES),
    )
    assert len(files_of(out)) == 2 * 10 + 2 + 1


def test_complete_directory_is_left_alone(tmp_path):
    write_shapes(tmp_path, SMALL)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
    assert write_shapes(tmp_path, SMALL) is False
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}


def test_interrupted_generation_is_done_again(tmp_path, monkeypatch):
    write_shapes(tmp_path / 'whole', SMALL)
    real, calls = shapes.render_sample, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(shapes, 'render_sample', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / 'cut', SMALL)
    assert not is_complete(tmp_path / 'cut', SMALL)
    monkeypatch.undo()
    (tmp_path / 'cut/JPEGImages/.train_00003.png.123').write_bytes(b'half')
    assert write_shapes(tmp_path / 'cut', SMALL) is True
    assert files_of(tmp_path / 'cut') == files_of(tmp_path / 'whole')


@pytest.mark.parametrize('lost', ['JPEGImages/val_00001.png', 'shapes5i.json'])
def test_lost_file_is_made_again(tmp_path, lost):
    write_shapes(tmp_path, SMALL)
    before = files_of(tmp_path)
    (tmp_path / lost).rename(tmp_path / 'shapes5i.partial')  # as if interrupted
    assert not is_complete(tmp_path, SMALL)
    write_shapes(tmp_path, SMALL)
    assert files_of(tmp_path) == before


def test_another_spec_replaces_what_was_there(tmp_path):
    write_shapes(tmp_path / 'a', ShapesSpec(train=8, val=5, image_size=32, seed=1))
    assert write_shapes(tmp_path / 'a', SMALL) is True
    write_shapes(tmp_path / 'b', SMALL)
    assert files_of(tmp_path / 'a') == files_of(tmp_path / 'b')


@pytest.mark.parametrize('file', ['JPEGImages/2007_000027.jpg', 'val2014/1.jpg', 'notes.txt'])
def test_foreign_directory_is_not_touched(tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b'not ours')
    with pytest.raises(ValueError, match=r'not empty and holds no generated.*choose an empty'):
        write_shapes(tmp_path, SMALL)
    assert list(files_of(tmp_path)) == [file]


def test_empty_directory_is_used(tmp_path):
    (tmp_path / 'new').mkdir()
    assert write_shapes(tmp_path / 'new', SMALL) is True


def test_file_in_place_of_the_directory(tmp_path):
    (tmp_path / 'x').write_text('')
    with pytest.raises(ValueError, match='x is a file; Shapes-5i needs a directory'):
        write_shapes(tmp_path / 'x', SMALL)


@pytest.mark.parametrize(
    'bad, message',
    [
        (dict(seed=-1), 'seed of Shapes-5i must be an integer from 0 to .*, got -1'),
        (dict(train=0), 'train of Shapes-5i must be an integer from 1 to 99999, got 0'),
        (dict(val=2.0), 'val of Shapes-5i must be an integer .* got 2.0'),
        (dict(image_size=16), 'image_size of Shapes-5i must be an integer from 32 to 1024, got 16'),
    ],
)
def test_values_out_of_range_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        ShapesSpec(**bad)


def test_unknown_split():
    with pytest.raises(ValueError, match=r"one of \('train', 'val'\), got 'test'"):
        render_sample(0, 'test', 0)


def test_fold_counts_by_hand(tmp_path):
    labels, lists = tmp_path / 'SegmentationClassAug', tmp_path / 'ImageSets/Segmentation'
    labels.mkdir()
    lists.mkdir(parents=True)
    contents = {'a': {1: 128}, 'b': {1: 127, 7: 300}, 'c': {7: 200}, 'd': {20: 500}}
    for name, classes in contents.items():
        label = np.zeros(128 * 128, np.uint8)
        start = 0
        for class_id, area in classes.items():
            label[start : start + area] = class_id
            start += area
        cv2.imwrite(str(labels / f'{name}.png'), label.reshape(128, 128))
    (lists / 'train.txt').write_text('a\nb\nc\nd\n')
    counts = fold_counts(tmp_path, 'train', (1, 2))
    assert (counts.without, counts.qualifying) == (2, 1)
    assert (counts.fewest_base, counts.fewest_novel) == (0, 0)
    (labels / 'c.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'c\.png is missing or broken; delete'):
        fold_counts(tmp_path, 'train', (1, 2))


def run_tool(monkeypatch, repo_root, *arguments):
    script = str(repo_root / 'tools/prepare.py')
    monkeypatch.setattr(sys, 'argv', [script, 'shapes', *arguments])
    runpy.run_path(script, run_name='__main__')


def test_command_line(tmp_path, repo_root, monkeypatch, capsys):
    arguments = [str(tmp_path / 'out'), '--train', '24', '--val', '12', '--seed', '5']
    run_tool(monkeypatch, repo_root, *arguments)
    said = capsys.readouterr().out
    assert f'Shapes-5i (seed 5, 128 px): {tmp_path / "out"} made in' in said
    assert '24 training and 12 test images' in said
    novel = get_split('shapes-5i', 2).novel
    train, test = (fold_counts(tmp_path / 'out', split, novel) for split in ('train', 'val'))
    assert 0 < train.without < 24 and 0 < test.qualifying < 12
    assert (
        f'fold 2: {train.without} training images without its novel classes, '
        f'{test.qualifying} test images with one of them'
    ) in said
    run_tool(monkeypatch, repo_root, *arguments)
    assert 'complete already, left as it was' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='error: val of Shapes-5i must be an integer from 1'):
        run_tool(monkeypatch, repo_root, *arguments, '--val', '0')
