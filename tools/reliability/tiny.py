"""A model and a benchmark so small that a run takes a second."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmseg.registry import MODELS

import mmfss  # noqa: F401  registers all
from mmfss.configs import CONFIGS
from mmfss.datasets.shapes import ShapesSpec, write_shapes

_CONFIG = '''
_base_ = '{configs}/_base_/default_runtime.py'
fold = '{{{{$FOLD:0}}}}'
model = dict(
    type='FSSAM',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    sam2=dict(
        arch=dict(
            base='sam2_small',
            image_encoder=dict(
                trunk=dict(embed_dim=8, stages=[1, 1, 2, 1], global_att_blocks=[3]),
                neck=dict(backbone_channel_list=[64, 32, 16, 8])),
            memory_attention=dict(num_layers=1)),
        image_size=64, checkpoint=None),
    prior_encoder=dict(
        type='DINOv2', arch=dict(embed_dim=16, depth=1, num_heads=2), image_size=56,
        checkpoint=None),
    prompt_generator=dict(type='PseudoPromptGenerator'),
    memory_refinement=dict(type='IterativeMemoryRefinement'),
    memory_attention=dict(type='SupportCalibratedMemoryAttention'))
load = [dict(type='LoadImage'), dict(type='LoadLabel'), dict(type='BinarizeLabel')]
episodes = dict(
    type='EpisodicDataset', benchmark='shapes-5i', fold=fold, shots=1, min_area=32,
    scarce_classes='drop', query_pipeline=load, support_pipeline=load)
images = dict(type='ShapesDataset', data_root='{data}')
crop = [dict(type='RandomCropKeepObject', crop_size=64)]
train_dataloader = dict(
    batch_size=1, num_workers=0, drop_last=True,
    sampler=dict(type='EpisodeSampler', episodes_per_epoch=2),
    dataset=dict(episodes, split='base', num_episodes=1000, query_pipeline=load + crop,
        support_pipeline=load + crop,
        dataset=dict(ann_file='ImageSets/Segmentation/train.txt', **images)))
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(episodes, split='novel', num_episodes=2,
        dataset=dict(ann_file='ImageSets/Segmentation/val.txt', **images)))
val_dataloader = test_dataloader
val_evaluator = test_evaluator = dict(type='FewShotIoUMetric', absent_classes='exclude')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
param_scheduler = [dict(type='PolyLR', power=0.9, end=4, by_epoch=True)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=2)
val_cfg = test_cfg = dict()
randomness = dict(seed=0)
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=1, save_best='mIoU', rule='greater'))
custom_hooks = []
'''


def write_tiny(root: Path) -> tuple[Path, Path]:
    """Write a config and random weights of its model, and the images of its benchmark.

    Args:
        root: folder for them.

    Returns:
        Config and weights.
    """
    data = root / 'data'
    write_shapes(data, ShapesSpec(train=40, val=24, image_size=64))
    config, weights = root / 'tiny.py', root / 'tiny.pth'
    config.write_text(_CONFIG.format(configs=CONFIGS.as_posix(), data=data.as_posix()))
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), weights)
    return config, weights
