"""Configs of small episodic datasets, shared by tests."""

from __future__ import annotations

from mmseg.registry import DATASETS

LIST = 'ImageSets/Segmentation/train.txt'
TRAIN = [
    dict(type='LoadImage'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
    dict(type='RandomResize', scale=(40, 40), ratio_range=(0.9, 1.1), keep_ratio=True),
    dict(type='RandomRotate', prob=0.5, degree=10, pad_val=[104, 116, 124]),
    dict(type='RandomBlur'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCropKeepObject', crop_size=32),
]
TEST = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
]
SUPPORT = [
    dict(type='LoadImage'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
    dict(type='Resize', scale=(32, 32)),
]


def config(root, split='novel', **options):
    cfg = dict(
        type='EpisodicDataset',
        benchmark='pascal-5i',
        fold=0,
        split=split,
        shots=1,
        dataset=dict(type='PascalVOCFewShot', data_root=str(root), ann_file=LIST),
        query_pipeline=TEST,
        support_pipeline=SUPPORT,
        num_episodes=24,
        seed=5,
        min_area=20,
        class_index_file=None,
    )
    if split == 'base':
        cfg.update(query_pipeline=TRAIN, support_pipeline=TRAIN)
    return {**cfg, **options}


def build(root, split='novel', **options):
    return DATASETS.build(config(root, split, **options))


def digest(item):
    sample = item['data_samples']
    arrays = [item['inputs'][k] for k in ('query', 'support', 'support_mask')]
    return (
        sample.episode,
        sample.class_id,
        sample.img_path,
        tuple(sample.support_paths),
        *(a.numpy().tobytes() for a in (*arrays, sample.gt_sem_seg.data)),
    )
