"""Generated folds."""

from __future__ import annotations

import os

import cv2
import pytest
from benchmarks.pictures import FoldSpec, episodes_of, pipelines, write_fold


def test_photos(tmp_path):
    spec = FoldSpec(images=12, width=80, height=60, per_class=6)
    folder = write_fold(tmp_path, spec)
    image = cv2.imread(str(folder / 'JPEGImages/val_00000.jpg'))
    label = cv2.imread(str(folder / 'SegmentationClassAug/val_00001.png'), cv2.IMREAD_UNCHANGED)
    assert image.shape == (60, 80, 3) and set(label.ravel().tolist()) == {0, 2, 255}
    stamp = os.stat(folder / 'JPEGImages/val_00000.jpg').st_mtime_ns
    assert write_fold(tmp_path, spec) == folder
    assert os.stat(folder / 'JPEGImages/val_00000.jpg').st_mtime_ns == stamp  # not made again
    dataset = episodes_of(tmp_path, spec, 64, 5, 33)
    assert dataset.num_images == 12
    drawn = [dataset.episode(i) for i in range(33)]
    assert [e.query for e in drawn[:12]] == [f'val_{i:05d}' for i in range(12)]  # the list's order
    assert {e.class_id for e in drawn} == {1, 2}  # 6 photos of each
    assert tuple(dataset[0]['inputs']['support'].shape) == (5, 3, 64, 64)
    assert tuple(dataset[0]['data_samples'].gt_sem_seg.shape) == (60, 80)


def test_training_photos_are_of_base_classes(tmp_path):
    spec = FoldSpec(images=6, width=80, height=60, per_class=2)
    dataset = episodes_of(tmp_path, spec, 64, 1, 4, training=True)
    assert dataset.role == 'base' and {dataset.episode(i).class_id for i in range(4)} <= {6, 7, 8}
    assert tuple(dataset[0]['inputs']['query'].shape) == (3, 64, 64)


def test_shapes(tmp_path):
    spec = FoldSpec(images=8, kind='shapes', width=64, height=64, per_class=2)
    dataset = episodes_of(tmp_path, spec, 64, 1, 5)
    assert dataset.split.benchmark == 'shapes-5i' and 2 <= dataset.num_images <= 8
    assert tuple(dataset[0]['data_samples'].gt_sem_seg.shape) == (64, 64)


def test_pipelines_are_those_of_the_config_at_another_side():
    query, support = pipelines(128)
    assert dict(type='Resize', scale=(128, 128)) == query[1] == support[3]
    crop = pipelines(256, training=True)[0]
    assert [s for s in crop if s['type'] == 'RandomCropKeepObject'][0]['crop_size'] == 256


def test_bad_specs():
    with pytest.raises(ValueError, match=r"--pictures must be one of \['photos', 'shapes'\]"):
        FoldSpec(kind='paintings')
    with pytest.raises(ValueError, match='--images must be >= 6, .* got 5'):
        FoldSpec(images=5)
