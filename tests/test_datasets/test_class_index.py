from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from mmfss.datasets import class_index
from mmfss.datasets.class_index import build_class_index, label_counts


@pytest.fixture
def masks(tmp_path):
    (tmp_path / 'masks').mkdir()
    rng = np.random.default_rng(0)
    paths = {}
    for i in range(12):
        labels = rng.choice(np.array([0, 1, 2, 5, 255], np.uint8), size=(9, 4 + i))
        paths[f'im{i}'] = tmp_path / f'masks/im{i}.png'
        Image.fromarray(labels).save(paths[f'im{i}'])
    return paths


def by_loop(path):
    areas = {}
    for value in np.asarray(Image.open(path)).ravel().tolist():
        if value not in (0, 255):
            areas[value] = areas.get(value, 0) + 1
    return areas


@pytest.mark.parametrize(
    'mask',
    [
        np.zeros((3, 4)),
        np.full((1, 1), 255),
        np.arange(256).reshape(16, 16),
        np.random.default_rng(0).integers(0, 256, (50, 30)),
        np.zeros((0, 4)),
        np.repeat(np.arange(4), 25).reshape(10, 10).T,
    ],
)
def test_label_counts_equal_bincount(mask):
    mask = mask.astype(np.uint8)
    expected = np.bincount(mask.ravel(), minlength=256)
    assert label_counts(mask) == {i: int(n) for i, n in enumerate(expected) if n}


@pytest.mark.parametrize('workers', [1, 3])
def test_areas_by_loop(masks, workers):
    index = build_class_index(masks, 5, num_workers=workers)
    assert index.areas == {image: by_loop(path) for image, path in masks.items()}
    assert list(index.areas) == list(masks)
    for c in (1, 3):
        assert index.images(c, 9) == tuple(i for i in masks if index.areas[i].get(c, 0) >= 9)
    assert index.classes('im3', 7) == tuple(
        c for c in range(1, 6) if index.areas['im3'].get(c, 0) >= 7
    )


def test_voc_masks_have_the_true_areas(shared_dir):
    truth = shared_dir / 'parity/voc_class_area.json'
    folder = shared_dir / 'data/VOCdevkit/VOC2012/SegmentationClassAug'
    masks = {path.stem: path for path in sorted(folder.glob('*.png'))}
    expected = {
        image: {int(c): n for c, n in areas.items()}
        for image, areas in json.loads(truth.read_text()).items()
        if image in masks
    }
    assert len(expected) == 64
    assert build_class_index(masks, 20).areas == expected


def test_values_outside_the_table(masks):
    with pytest.raises(
        ValueError,
        match=r'masks/im\d+\.png has values outside its class table: '
        r'\[5\]; allowed are 0 \(background\), 1\.\.4 and 255',
    ):
        build_class_index(masks, 4)


def test_missing_and_broken_masks_are_named(masks):
    masks['im4'].write_bytes(masks['im4'].read_bytes()[:-25])
    with pytest.raises(ValueError, match=r'im4\.png'):
        build_class_index(masks, 5)
    masks['im4'].unlink()
    for cache in (None, masks['im0'].parent / 'cache.json'):
        with pytest.raises(FileNotFoundError, match=r'mask file not found: .*im4\.png'):
            build_class_index(masks, 5, cache)


def count_reads(monkeypatch):
    reads, original = [], class_index.read_mask
    monkeypatch.setattr(class_index, 'read_mask', lambda path: reads.append(path) or original(path))
    return reads


def test_fresh_cache_is_used(masks, tmp_path, monkeypatch):
    cache = tmp_path / 'deep/er/cache.json'
    built = build_class_index(masks, 5, cache)
    reads = count_reads(monkeypatch)
    assert build_class_index(masks, 5, cache) == built
    assert not reads
    assert os.listdir(cache.parent) == ['cache.json']  # no temporary file left


def change_size(masks):
    Image.fromarray(np.ones((30, 30), np.uint8)).save(masks['im2'])


def touch(masks):
    os.utime(masks['im2'], ns=(1, 1))


def leave_out(masks):
    del masks['im2']


def reorder(masks):
    masks['im2'] = masks.pop('im2')


@pytest.mark.parametrize('change', [change_size, touch, leave_out, reorder])
def test_stale_cache_is_rebuilt(masks, tmp_path, monkeypatch, change):
    cache = tmp_path / 'cache.json'
    build_class_index(masks, 5, cache)
    change(masks)
    reads = count_reads(monkeypatch)
    index = build_class_index(masks, 5, cache)
    assert len(reads) == len(masks)
    assert index.areas == {image: by_loop(path) for image, path in masks.items()}
    assert list(index.areas) == list(masks)
    reads.clear()
    assert build_class_index(masks, 5, cache) == index and not reads


def test_another_mask_of_equal_size_and_time_is_counted(masks, tmp_path):
    sizes = set()
    for value in (1, 2):
        time.sleep(0.02)  # a step of the file system's clock
        Image.fromarray(np.full((9, 6), value, np.uint8)).save(masks['im2'], compress_level=0)
        os.utime(masks['im2'], ns=(5, 5))
        sizes.add(masks['im2'].stat().st_size)
        assert build_class_index(masks, 5, tmp_path / 'cache.json').areas['im2'] == {value: 54}
    assert len(sizes) == 1


@pytest.mark.parametrize('content', ['', '{"format": 1', '[]', '{}', '\xff', 'cut'])
def test_damaged_cache_is_rebuilt(masks, tmp_path, content):
    cache = tmp_path / 'cache.json'
    expected = build_class_index(masks, 5, cache)
    whole = cache.read_text()
    cache.write_bytes(
        whole[: len(whole) // 2].encode() if content == 'cut' else content.encode('latin-1')
    )
    assert build_class_index(masks, 5, cache) == expected
    assert cache.read_text() == whole


def test_no_flipped_bit_of_a_cache_changes_a_count(masks, tmp_path):
    cache = tmp_path / 'cache.json'
    expected = build_class_index(masks, 5, cache)
    whole, rng = cache.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60):
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(7))
        cache.write_bytes(data)
        assert build_class_index(masks, 5, cache) == expected


def test_unwritable_folder_is_a_warning(masks, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.warns(UserWarning, match='could not be stored in .*writable class_index_file'):
        index = build_class_index(masks, 5, tmp_path / 'file/cache.json')
    assert len(index) == 12


def test_failed_write_leaves_the_old_cache(masks, tmp_path, monkeypatch):
    cache = tmp_path / 'cache.json'
    build_class_index(masks, 5, cache)
    old = cache.read_text()
    touch(masks)

    def fail(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(class_index.os, 'replace', fail)
    with pytest.warns(UserWarning, match='No space left'):
        build_class_index(masks, 5, cache)
    assert cache.read_text() == old
    assert not [name for name in os.listdir(tmp_path) if name.startswith('.cache')]


def test_folder_that_cannot_be_written_to_falls_back(masks, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')  # stands for a read-only folder, also for root
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    place = tmp_path / 'file/index.json'
    fallback = class_index.user_cache_file(place)
    assert tmp_path / 'cache' in fallback.parents and fallback.name == 'index.json'
    built = build_class_index(masks, 5, place, fallback_file=fallback)
    reads = count_reads(monkeypatch)
    assert build_class_index(masks, 5, place, fallback_file=fallback) == built and not reads
    assert class_index.user_cache_file(tmp_path / 'other/index.json') != fallback


def test_many_masks_are_counted_in_processes(masks, monkeypatch):
    """As in this process, in the order of the list; an error of a process names its file."""
    many = {f'{image}_{i}': path for i in range(20) for image, path in masks.items()}
    monkeypatch.setattr(class_index, '_MANY', 100)
    monkeypatch.setattr(class_index, '_CHUNK', 7)
    index = build_class_index(many, 5)
    expected = {image: by_loop(path) for image, path in masks.items()}
    assert index.areas == {image: expected[image.rsplit('_', 1)[0]] for image in many}
    assert list(index.areas) == list(many)
    masks['im4'].write_bytes(masks['im4'].read_bytes()[:-25])
    with pytest.raises(ValueError, match=r'cannot read mask file .*im4\.png'):
        build_class_index(many, 5)


def test_a_killed_process_is_an_error(masks, monkeypatch):
    monkeypatch.setattr(class_index, 'read_mask', lambda *args: os._exit(9))
    with pytest.raises(OSError, match='a process that reads masks was killed'):
        build_class_index(masks, 5, num_workers=2)
