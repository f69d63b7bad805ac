"""Images that are read when their pixels are asked for, and their keys."""

from __future__ import annotations

import os
import pickle
import time

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmseg.registry import TRANSFORMS
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory

from mmfss.datasets.deferred import image_steps
from mmfss.datasets.episode_loading import compose
from mmfss.features.images import (
    DeferredBatch,
    DeferredImage,
    DeferredImages,
    content_key,
    file_identity,
)

LOAD, LABEL = dict(type='LoadImage'), [dict(type='LoadLabel'), dict(type='BinarizeLabel')]
RESIZE = dict(type='Resize', scale=(32, 32))


def steps_of(*transforms):
    return image_steps(compose(transforms))


def key_of(path, *transforms):
    return DeferredImage.key_of(str(path), steps_of(*(transforms or (LOAD, RESIZE))))


def write(path, seed=0, size=(20, 30)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def image_file(path, *transforms, shape=(32, 32)):
    steps = steps_of(*(transforms or (LOAD, RESIZE)))
    return DeferredImage(str(path), DeferredImage.key_of(str(path), steps), steps, shape)


def test_key_stays_and_is_that_of_the_file_not_of_its_name(tmp_path):
    a, b = write(tmp_path / 'a.png'), write(tmp_path / 'b.png')
    (tmp_path / 'link.png').symlink_to(a)
    (tmp_path / 'folder').symlink_to(tmp_path)
    assert key_of(a) == key_of(a) == key_of(tmp_path / 'link.png')
    assert key_of(a) == key_of(tmp_path / 'folder' / 'a.png')
    assert key_of(a) != key_of(b)  # equal contents, but nobody has looked
    assert len(key_of(a)) == 64


def test_content_changed_with_size_and_mtime_restored(tmp_path):
    path = tmp_path / 'image.bmp'
    write(path, 0)
    before, key = os.stat(path), key_of(path)
    write(path, 1)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert key_of(path) != key


def test_every_rewrite_is_seen_however_fast(tmp_path):
    """ctime counts in steps of milliseconds: rewrites within one step would share it."""
    path, keys = tmp_path / 'image.bmp', []
    for seed in range(20):
        write(path, seed)
        keys.append(key_of(path))
    assert len(set(keys)) == 20


def test_only_new_files_are_waited_for(tmp_path):
    path = write(tmp_path / 'a.png')
    file_identity(path)
    start = time.perf_counter()
    for _ in range(100):
        file_identity(path)
    assert time.perf_counter() - start < 0.5


def test_touched_renamed_and_link_to_another(tmp_path):
    path = write(tmp_path / 'a.png')
    key = key_of(path)
    os.utime(path)
    touched = key_of(path)
    path.rename(tmp_path / 'b.png')
    renamed = key_of(tmp_path / 'b.png')
    link = tmp_path / 'link.png'
    link.symlink_to(tmp_path / 'b.png')
    first = key_of(link)
    link.unlink()
    link.symlink_to(write(tmp_path / 'c.png'))
    assert first == renamed and len({key, touched, renamed, key_of(link)}) == 4


def test_label_transforms_do_not_count_and_image_transforms_do(tmp_path):
    path = write(tmp_path / 'a.png')
    query = key_of(path, LOAD, RESIZE, *LABEL)
    assert key_of(path, LOAD, *LABEL, RESIZE) == query == key_of(path, LOAD, RESIZE)
    others = [
        key_of(path, LOAD),
        key_of(path, LOAD, dict(RESIZE, scale=(32, 31))),
        key_of(path, LOAD, dict(RESIZE, interpolation='nearest')),
        key_of(path, LOAD, dict(RESIZE, keep_ratio=True)),
        key_of(path, dict(LOAD, exif_orientation=True), RESIZE),
        key_of(path, dict(LOAD, reduce_to=64), RESIZE),
        key_of(path, LOAD, RESIZE, dict(type='Pad', size=(40, 40))),
        key_of(path, LOAD, dict(type='Pad', size=(40, 40)), RESIZE),
    ]
    assert len({query, *others}) == 9


def test_versions_count(tmp_path, monkeypatch):
    path = write(tmp_path / 'a.png')
    key = key_of(path)
    monkeypatch.setattr('PIL.__version__', '0.0')
    assert key_of(path) != key


def test_reads_what_the_pipeline_gives(tmp_path):
    path = write(tmp_path / 'a.png')
    expected = compose([LOAD, RESIZE])(dict(img_path=str(path)))['img']
    read = image_file(path).read()
    assert read.dtype == torch.uint8
    np.testing.assert_array_equal(read, expected.transpose(2, 0, 1))


def test_file_that_changes_before_it_is_read(tmp_path):
    path = write(tmp_path / 'a.png')
    file = image_file(path)
    write(path, 1)
    with pytest.raises(ValueError, match=rf'image file {path} was changed while it was in use'):
        file.read()


def test_file_that_goes_away(tmp_path):
    file = image_file(write(tmp_path / 'a.png'))
    (tmp_path / 'a.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'image file not found: .*a\.png'):
        file.read()
    with pytest.raises(FileNotFoundError, match=r'image file not found: .*a\.png'):
        DeferredImage.key_of(file.path, file.steps)


def test_truncated_file(tmp_path):
    path = tmp_path / 'a.jpg'
    write(path, size=(200, 200))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r'cannot read image file .*a\.jpg: it is truncated'):
        image_file(path).read()


def test_other_size_than_was_said(tmp_path):
    file = image_file(write(tmp_path / 'a.png'), shape=(32, 30))
    message = r'gave torch\.uint8 \(3, 32, 32\) for .*a\.png, expected torch\.uint8 \(3, 32, 30\)'
    with pytest.raises(ValueError, match=message):
        file.read()


class Darker:
    deterministic = True

    def __init__(self, by=2):
        self.by = by

    def __call__(self, results):
        results['img'] = results['img'] // self.by
        return results


class NeedsLabel(Darker):
    def __call__(self, results):
        results['img'] = results['img'] * results['gt_seg_map']


class GivesNone(Darker):
    def __call__(self, results):
        return None


def test_transforms_of_users(tmp_path):
    path = write(tmp_path / 'a.png')
    keys = {key_of(path, LOAD, Darker(by), RESIZE) for by in (2, 3, np.int64(3), [1, (2, {3: 4})])}
    assert len(keys) == 3
    plain, dark = image_file(path, LOAD), image_file(path, LOAD, Darker())
    plain, dark = (DeferredImage(f.path, f.key, f.steps, (20, 30)) for f in (plain, dark))
    assert torch.equal(dark.read(), plain.read() // 2)
    with pytest.raises(ValueError, match=r"NeedsLabel failed on .*a\.png: KeyError: 'gt_seg_map'"):
        image_file(path, LOAD, NeedsLabel()).read()
    with pytest.raises(ValueError, match=r'GivesNone gave None for .*a\.png; images are never'):
        image_file(path, LOAD, GivesNone()).read()


@pytest.mark.parametrize(
    'transforms, message',
    [
        ([], r'must begin with LoadImage, got no transform; put LoadImage first'),
        ([RESIZE], r'must begin with LoadImage, got Resize'),
        ([LOAD, RESIZE, LOAD], r'LoadImage in the pipeline reads the image again'),
        ([LOAD, dict(type='RandomFlip', prob=0.5)],
         r'RandomFlip in the pipeline may be random or look at image and label.*Take RandomFlip '
         r'out, or set defer_images=False'),
        ([LOAD, *LABEL, dict(type='RandomCropKeepObject', crop_size=8)],
         r'RandomCropKeepObject in the pipeline may be random .*Allowed are BinarizeLabel, '
         r'LoadImage, LoadLabel, Pad, Resize, and a class with an attribute deterministic = True'),
        ([LOAD, lambda results: results], r'function in the pipeline may be random'),
        ([LOAD, Darker(object())], r'Darker in the pipeline holds a object'),
    ],
)  # fmt: skip
def test_what_cannot_be_deferred(transforms, message):
    with pytest.raises(ValueError, match=f'images cannot be deferred: .*{message}'):
        steps_of(*transforms)


def test_class_without_a_file():
    made = type('Made', (Darker,), dict(__module__='nowhere'))
    with pytest.raises(ValueError, match='Made in the pipeline is defined in no file'):
        steps_of(LOAD, made())


def test_deferred_batch(tmp_path):
    files = [image_file(write(tmp_path / f'{i}.png', i)) for i in range(3)]
    images, bgr = DeferredBatch(files), DeferredBatch(files, bgr_to_rgb=False)
    assert len(images) == 3 and len({*images.keys, *bgr.keys, *(f.key for f in files)}) == 9
    for i, file in enumerate(files):
        pixels = images.pixels(i)
        assert pixels.dtype == torch.float32 and pixels.shape == (1, 3, 32, 32)
        assert torch.equal(pixels[0], file.read().flip(0).float())
        assert torch.equal(bgr.pixels(i)[0], file.read().float())


def test_image_files_pass_through_collate_pickle_and_pinning(tmp_path):
    files = DeferredImages(tuple(image_file(write(tmp_path / f'{i}.png', i)) for i in range(2)))
    batch = pseudo_collate([dict(inputs=dict(support=files))] * 3)
    assert batch['inputs']['support'] == [files] * 3
    assert pin_memory(batch) == batch
    copy = pickle.loads(pickle.dumps(files))
    assert [f.key for f in copy] == [f.key for f in files] and len(copy) == 2
    assert torch.equal(copy[1].read(), files[1].read())


def test_content_key():
    g = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 6, 6), generator=g).float()
    changed = image.clone()
    changed[2, 5, 5] += 1
    alike = [image.clone(), image.transpose(1, 2).contiguous().transpose(1, 2)]
    assert {content_key(x) for x in alike} == {content_key(image)}
    other = [changed, image.double(), image.half(), image.reshape(3, 4, 9), image[:2], image.byte()]
    assert len({content_key(x) for x in [image, *other]}) == 7
    assert content_key(image.bfloat16()) != content_key(image.half())


def test_registered():
    assert TRANSFORMS.get('Resize') is type(compose([RESIZE]).transforms[0])
