"""A network of mmseg trains on what the command wrote, with mmseg's own parts alone."""

from __future__ import annotations

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import DATASETS

from mmfss.datasets.io import read_image, read_mask
from mmfss.labelling.tables import _write_dataset

CONFIG = '''
_base_ = ['{dataset}']
default_scope = 'mmseg'
work_dir = '{work_dir}'
crop = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=(48, 48)), dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')]
parts = [dict(part, pipeline=crop) for part in _base_.labelled_dataset.datasets]
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='ConcatDataset', datasets=parts))
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[60.0] * 3, bgr_to_rgb=True,
        size=(48, 48), pad_val=0, seg_pad_val=255),
    backbone=dict(
        type='ResNetV1c', depth=18, num_stages=2, out_indices=(0, 1), strides=(1, 1),
        dilations=(1, 1), base_channels=8, stem_channels=8, norm_cfg=dict(type='BN')),
    decode_head=dict(
        type='FCNHead', in_channels=16, in_index=1, channels=8, num_convs=1, dropout_ratio=0.0,
        num_classes={num_classes}, norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))
train_cfg = dict(type='IterBasedTrainLoop', max_iters={iters})
default_hooks = dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None)
randomness = dict(seed=0)
'''


def test_the_dataset_is_that_of_the_images(case, predictions):
    cfg = Config.fromfile(case.reference / 'dataset.py')
    cfg.labelled_dataset['_scope_'] = 'mmseg'
    dataset = DATASETS.build(cfg.labelled_dataset)
    assert dataset.metainfo['classes'] == ('background', 'disc', 'slab')
    assert len(dataset) == 9 and len(dataset.datasets) == 3  # .JPG, .jpg, .png
    seen = set()
    for i in range(9):
        packed = dataset[i]
        name = packed['data_samples'].img_path.removeprefix(f'{case.images}/')
        image = read_image(case.images / name, exif_orientation=True)
        assert packed['inputs'].shape == (3, *image.shape[:2])
        truth = packed['data_samples'].gt_sem_seg.data.numpy()[0]
        np.testing.assert_array_equal(truth, predictions[name].labels)
        seen.add(name)
    assert seen == set(predictions)


def test_an_fcn_learns_the_labels(case, tmp_path):
    out = case.reference
    present = {int(v) for path in out.glob('ann_dir/**/*.png') for v in np.unique(read_mask(path))}
    assert len(present) >= 2  # something to learn
    config = tmp_path / 'fcn.py'
    paths = dict(dataset=out / 'dataset.py', work_dir=tmp_path / 'work')
    config.write_text(CONFIG.format(**paths, num_classes=3, iters=40))
    runner = Runner.from_cfg(Config.fromfile(config))
    model = runner.train()
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == 40 and np.isfinite(losses).all()
    assert np.mean(losses[-8:]) < 0.95 * np.mean(losses[:4])
    one = runner.train_dataloader.dataset[0]
    with torch.no_grad():
        data = dict(inputs=[one['inputs']], data_samples=[one['data_samples']])
        result = model.eval().test_step(data)[0].pred_sem_seg.data
    assert result.shape[0] == 1 and set(result.unique().tolist()) <= {0, 1, 2}


ODD = [
    '{{ fileDirname }}',
    '{{_base_.x}}',
    '{{$HOME:a}}',
    '$TEXT',
    "it's",
    'a"b',
    'a\\nb',
    '_delete_',
]


def test_names_that_could_be_code_or_placeholders_come_through_unchanged(tmp_path):
    images = tmp_path / '{{ fileBasename }}'
    (tmp_path / 'out').mkdir()
    _write_dataset(tmp_path / 'out', images, ['{{ fileExtname }}.png', "b'.JPG"], tuple(ODD), None)
    cfg = Config.fromfile(tmp_path / 'out/dataset.py')
    parts = cfg.labelled_dataset.datasets
    assert [tuple(part.metainfo['classes']) for part in parts] == [('background', *ODD)] * 2
    assert {part.data_prefix.img_path for part in parts} == {str(images)}
    listed = ''.join(path.read_text() for path in sorted((tmp_path / 'out/lists').iterdir()))
    assert listed == "b'\n{{ fileExtname }}\n"
