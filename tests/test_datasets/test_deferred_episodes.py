"""Episodes whose images are deferred are the same as those that are read."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from episode_cases import SUPPORT, TEST, TRAIN, build, config
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS
from PIL import Image
from tiny_runs import write_shapes
from torch.utils.data import DataLoader

from mmfss.datasets.deferred import deferred_pipeline, image_steps
from mmfss.datasets.episode_loading import compose
from mmfss.datasets.io import image_shape, read_image
from mmfss.features.images import DeferredBatch, DeferredImage, DeferredImages
from mmfss.methods.data_preprocessor import EpisodeDataPreprocessor

LOAD, LABEL = dict(type='LoadImage'), [dict(type='LoadLabel'), dict(type='BinarizeLabel')]
RATIO = [
    LOAD,
    *LABEL,
    dict(type='Resize', scale=(40, 36), keep_ratio=True),
    dict(type='Pad', size=(48, 48)),
]


def assert_same(one, other):
    """All but the pixels field by field; then those."""
    a, b = one['data_samples'], other['data_samples']
    assert a.all_keys() == b.all_keys() and a.metainfo == b.metainfo
    assert [type(v) for v in a.metainfo.values()] == [type(v) for v in b.metainfo.values()]
    assert torch.equal(a.gt_sem_seg.data, b.gt_sem_seg.data)
    inputs, deferred = one['inputs'], other['inputs']
    assert list(inputs) == list(deferred)
    assert torch.equal(inputs['support_mask'], deferred['support_mask'])
    assert isinstance(deferred['query'], DeferredImages) and isinstance(
        deferred['support'], DeferredImages
    )
    assert torch.equal(inputs['query'], deferred['query'][0].read())
    assert torch.equal(inputs['support'], torch.stack([f.read() for f in deferred['support']]))
    assert [f.path for f in deferred['support']] == list(a.support_paths)


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(shots=3),
        dict(label_size=20),
        dict(query_pipeline=SUPPORT),
        dict(support_pipeline=[LOAD, *LABEL, dict(type='Resize', scale=(32, 24))]),
        dict(query_pipeline=RATIO, support_pipeline=RATIO),
        dict(query_pipeline=[LOAD, dict(type='Resize', scale_factor=1.5), *LABEL]),
        dict(query_pipeline=[dict(LOAD, reduce_to=32), *TEST[1:]]),
    ],
)
def test_same_episodes(big_voc, options):
    whole, deferred = build(big_voc, **options), build(big_voc, defer_images=True, **options)
    assert whole.protocol == deferred.protocol and whole.metainfo == deferred.metainfo
    for i in range(len(whole)):
        assert_same(whole[i], deferred[i])


def test_same_episodes_of_shapes(tmp_path):
    root, load = write_shapes(tmp_path / 'shapes', train=2, val=60), [LOAD, *LABEL]
    cfg = dict(
        type='EpisodicDataset', benchmark='shapes-5i', fold=1, split='novel', shots=2, min_area=32,
        class_index_file=None, scarce_classes='drop', num_episodes=8, query_pipeline=load,
        support_pipeline=load,
        dataset=dict(type='ShapesDataset', data_root=str(root),
                     ann_file='ImageSets/Segmentation/val.txt'),
    )  # fmt: skip
    whole, deferred = (DATASETS.build(dict(cfg, defer_images=d)) for d in (False, True))
    for i in range(8):
        assert_same(whole[i], deferred[i])


def test_query_and_support_of_one_image_have_one_key(big_voc):
    dataset = build(big_voc, shots=3, num_episodes=60, defer_images=True)
    keys, uses = {}, 0
    for i in range(60):
        inputs = dataset[i]['inputs']
        for file in (*inputs['query'], *inputs['support']):
            assert keys.setdefault(file.path, file.key) == file.key
            uses += 1
    assert len(set(keys.values())) == len(keys) < uses == 240


def test_no_image_is_decoded(voc, monkeypatch):
    dataset = build(voc, defer_images=True)
    monkeypatch.setattr('mmfss.datasets.transforms.read_image', lambda *args: pytest.fail('read'))
    for i in range(len(dataset)):
        dataset[i]


def test_workers_and_model_input(big_voc):
    whole, deferred = (build(big_voc, shots=2, defer_images=d) for d in (False, True))
    options = dict(batch_size=5, num_workers=2, persistent_workers=True, collate_fn=pseudo_collate)
    preprocess, loader = EpisodeDataPreprocessor(), DataLoader(deferred, **options)
    for _ in range(2):  # the second epoch comes from the same workers
        number = 0
        for batch in loader:
            items = [whole[number + i] for i in range(len(batch['data_samples']))]
            expected = preprocess(pseudo_collate(items))['inputs']
            got = preprocess(batch)['inputs']
            for key in ('query', 'support'):
                assert isinstance(got[key], DeferredBatch)
                pixels = torch.cat([got[key].pixels(i) for i in range(len(got[key]))])
                assert torch.equal(pixels, expected[key].reshape(-1, 3, 32, 32))
            assert torch.equal(got['support_mask'], expected['support_mask'])
            number += len(items)
        assert number == 24


def test_augmentation_is_refused(voc):
    message = 'RandomResize in query_pipeline may be random'
    with pytest.raises(ValueError, match=f'images cannot be deferred: {message}'):
        build(voc, query_pipeline=TRAIN, defer_images=True, lazy_init=True)
    with pytest.raises(ValueError, match='RandomResize in support_pipeline may be random'):
        build(voc, support_pipeline=TRAIN, defer_images=True, lazy_init=True)


@pytest.mark.parametrize('value', ['no', None, 2])
def test_wrong_switch(voc, value):
    with pytest.raises(
        ValueError, match=rf'defer_images must be one of \[False, True\], got {value!r}'
    ):
        build(voc, defer_images=value, lazy_init=True)


def test_errors_are_those_of_read_images(voc):
    dataset = build(voc, defer_images=True)
    episode = dataset.episode(0)
    image = voc / f'JPEGImages/{episode.query}.jpg'
    label = voc / f'SegmentationClassAug/{episode.query}.png'
    label.write_bytes((voc / 'SegmentationClassAug/im003.png').read_bytes())
    size = Image.open(image).size
    Image.new('P', (size[0] + 1, size[1])).save(label)
    with pytest.raises(ValueError, match=rf'mask {label} is .* its image {image} is'):
        dataset[0]
    image.write_bytes(b'no image')
    with pytest.raises(ValueError, match=rf'cannot read image file {image}: it is truncated'):
        dataset[0]
    image.unlink()
    with pytest.raises(FileNotFoundError, match=rf'image file not found: {image}'):
        dataset[0]


def test_truncated_image_is_named_when_it_is_read(voc):
    dataset = build(voc, defer_images=True)
    image = voc / f'JPEGImages/{dataset.episode(0).query}.jpg'
    image.write_bytes(image.read_bytes()[:-200])
    file = dataset[0]['inputs']['query'][0]
    with pytest.raises(ValueError, match=rf'cannot read image file {image}: it is truncated'):
        file.read()


def test_changed_image_gets_another_key_in_the_next_episode(voc):
    dataset = build(voc, defer_images=True)
    path = voc / f'JPEGImages/{dataset.episode(0).query}.jpg'
    shape = (*image_shape(path), 3)

    def write(value):
        Image.fromarray(np.full(shape, value, np.uint8)).save(path, 'BMP')

    write(1)
    before, first = os.stat(path), dataset[0]['inputs']['query'][0]
    assert (first.read() == 1).all()
    write(2)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.path.getsize(path) == before.st_size
    with pytest.raises(ValueError, match=f'image file {path} was changed while it was in use'):
        first.read()
    second = dataset[0]['inputs']['query'][0]
    assert second.key != first.key and (second.read() == 2).all()


FORMS = {
    'grey.png': lambda rgb: Image.fromarray(rgb[..., 0]),
    'palette.png': lambda rgb: Image.fromarray(rgb).quantize(16),
    '16bit.png': lambda rgb: Image.fromarray(rgb[..., 0].astype(np.uint16) * 256),
    'alpha.png': lambda rgb: Image.fromarray(np.dstack([rgb, rgb[..., 0]])),
    'bits.png': lambda rgb: Image.fromarray(rgb[..., 0] > 127),
    'photo.jpg': Image.fromarray,
    'cmyk.jpg': lambda rgb: Image.fromarray(rgb).convert('CMYK'),
    'photo.webp': Image.fromarray,
    'photo.bmp': Image.fromarray,
    'photo.tif': Image.fromarray,
    'photo.ppm': Image.fromarray,
    'photo.gif': Image.fromarray,
}


@pytest.mark.parametrize('name', FORMS)
@pytest.mark.parametrize('orientation', [None, 1, 3, 6, 8])
@pytest.mark.parametrize('upright', [False, True])
def test_forms_of_images(tmp_path, name, orientation, upright):
    rgb = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    path, options = tmp_path / name, {}
    if orientation is not None and path.suffix in ('.jpg', '.png', '.webp', '.tif'):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = dict(exif=exif)
    FORMS[name](rgb).save(path, **options)
    image = read_image(path, upright)
    assert image_shape(path, upright) == image.shape[:2]
    load = dict(LOAD, exif_orientation=upright)
    for transforms in (
        [load, dict(type='Resize', scale=(512, 512))],
        [
            load,
            dict(type='Resize', scale=(64, 48), keep_ratio=True),
            dict(type='Pad', size=(64, 64)),
        ],
    ):
        whole = compose(transforms)(dict(img_path=str(path), seg_fields=[]))
        left = deferred_pipeline(compose(transforms))(dict(img_path=str(path), seg_fields=[]))
        assert not left['img'].any() and left['img'].shape == whole['img'].shape
        assert {k: v for k, v in left.items() if k != 'img'} == {
            k: v for k, v in whole.items() if k != 'img'
        }
        steps = image_steps(compose(transforms))
        file = DeferredImage(
            str(path), DeferredImage.key_of(str(path), steps), steps, left['img'].shape[:2]
        )
        assert torch.equal(file.read(), torch.from_numpy(whole['img'].transpose(2, 0, 1)))


def test_thin_image_fails_as_ever(voc):
    dataset = build(voc, query_pipeline=RATIO, support_pipeline=RATIO, defer_images=True)
    name = dataset.episode(0).query
    Image.new('RGB', (2000, 1)).save(voc / f'JPEGImages/{name}.jpg')
    Image.new('P', (2000, 1)).save(voc / f'SegmentationClassAug/{name}.png')
    with pytest.raises(ValueError, match='the image is too thin to be resized: 1 x 2000 pixels'):
        dataset[0]


def test_default_is_to_read(voc):
    assert build(voc).defer_images is False and 'defer_images' not in config(voc)
    assert isinstance(build(voc)[0]['inputs']['query'], torch.Tensor)
