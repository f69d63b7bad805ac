"""A benchmark and a model so small that a whole run takes seconds, for tests of runs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2

from mmfss.datasets.shapes import render_sample

REPO = Path(__file__).resolve().parents[1]
#: a SAM 2 with the channels of the real one after the neck, as small as sam2 lets it be
TINY_SAM2 = dict(
    base='sam2_small',
    image_encoder=dict(
        trunk=dict(embed_dim=8, stages=[1, 1, 2, 1], global_att_blocks=[3]),
        neck=dict(backbone_channel_list=[64, 32, 16, 8]),
    ),
    memory_attention=dict(num_layers=1),
)
TINY_DINO = dict(embed_dim=16, depth=1, num_heads=2)

CONFIG = '''
_base_ = '{repo}/configs/_base_/default_runtime.py'
fold = '{{{{$FOLD:0}}}}'
model = dict(
    type='FSSAM',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    sam2=dict(arch={sam2}, image_size=64, checkpoint=None),
    prior_encoder=dict(type='DINOv2', arch={dino}, image_size=56, checkpoint=None),
    prompt_generator=dict(type='PseudoPromptGenerator'),
    memory_refinement=dict(type='IterativeMemoryRefinement'),
    memory_attention=dict(type='SupportCalibratedMemoryAttention'))
load = [dict(type='LoadImage'), dict(type='LoadLabel'), dict(type='BinarizeLabel')]
augment = load + [
    dict(type='RandomFlip', prob=0.5), dict(type='RandomCropKeepObject', crop_size=64)]
episodes = dict(
    type='EpisodicDataset', benchmark='shapes-5i', fold=fold, shots=1, min_area=32,
    class_index_file=None, scarce_classes='drop')
images = dict(type='ShapesDataset', data_root='{root}')
train_dataloader = dict(
    batch_size=2, num_workers=0, drop_last=True,
    sampler=dict(type='EpisodeSampler', episodes_per_epoch=4),
    dataset=dict(
        split='base', num_episodes=1000, query_pipeline=augment, support_pipeline=augment,
        dataset=dict(ann_file='ImageSets/Segmentation/train.txt', **images), **episodes))
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        split='novel', num_episodes=5, query_pipeline=load, support_pipeline=load,
        dataset=dict(ann_file='ImageSets/Segmentation/val.txt', **images), **episodes))
val_dataloader = test_dataloader
val_evaluator = test_evaluator = dict(type='FewShotIoUMetric', absent_classes='exclude')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0))
param_scheduler = [dict(type='PolyLR', power=0.9, end=3, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=1)
val_cfg = test_cfg = dict()
custom_hooks = [dict(type='StopWithoutProgressHook', patience=50)]
'''


def write_shapes(root: Path, train: int = 60, val: int = 40, size: int = 64) -> Path:
    """A few images of Shapes-5i in the VOC layout."""
    for folder in ('JPEGImages', 'SegmentationClassAug', 'ImageSets/Segmentation'):
        (root / folder).mkdir(parents=True)
    for split, number in (('train', train), ('val', val)):
        names = [f'{split}_{i:05d}' for i in range(number)]
        for i, name in enumerate(names):
            image, label = _drawn(split, i, size)
            (root / f'JPEGImages/{name}.png').write_bytes(image)
            (root / f'SegmentationClassAug/{name}.png').write_bytes(label)
        (root / f'ImageSets/Segmentation/{split}.txt').write_text('\n'.join(names) + '\n')
    return root


@cache
def _drawn(split: str, index: int, size: int) -> tuple[bytes, bytes]:
    """Image and label as PNG; many tests of a process take the same."""
    image, label = (cv2.imencode('.png', part)[1] for part in render_sample(0, split, index, size))
    return image.tobytes(), label.tobytes()


def write_config(path: Path, root: Path) -> str:
    """The config of a tiny run at ``path``; its stem should be unique in the test session,
    since mmengine keeps one log and one message hub per name and second."""
    parts = dict(repo=REPO.as_posix(), root=root.as_posix(), sam2=TINY_SAM2, dino=TINY_DINO)
    path.write_text(CONFIG.format(**parts))
    return str(path)
