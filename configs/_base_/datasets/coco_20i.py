# COCO-20i, interleaved folds: fold F tests classes F+1, F+5, F+9, ... of the 80.
# Masks: python tools/dataset_converters/coco_masks.py DATA_ROOT paints them from the annotations.
# FOLD and DATA_ROOT come from the environment. PANet's folds: benchmark='coco-20i-contiguous'.
fold = '{{$FOLD:0}}'
data_root = '{{$DATA_ROOT:data/coco}}'

# Scales are relative to a long side of 640 px, which COCO photos have.
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
    dict(type='RandomResize', scale=(640, 640), ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type='RandomRotate', prob=0.5, degree=10, pad_val=(104, 116, 124), seg_pad_val=255),
    dict(type='RandomBlur', prob=0.5, kernel_size=5),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCropKeepObject', crop_size=512, keep_ratio=0.85, max_tries=30),
]
# The query's label is read after the resize and so keeps its size: the metric is taken there.
query_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(512, 512)),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
]
support_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
    dict(type='Resize', scale=(512, 512)),
]

# 8 episodes per step in all: with N processes set batch_size to 8 / N.
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    # An epoch of the loop is half a pass over the images, as validation is every half pass.
    sampler=dict(type='EpisodeSampler', passes=0.5),
    dataset=dict(
        type='EpisodicDataset',
        benchmark='coco-20i',
        fold=fold,
        split='base',
        shots=1,
        num_episodes=10**8,  # for the whole run: episodes never come twice
        query_pipeline=train_pipeline,
        support_pipeline=train_pipeline,
        dataset=dict(type='CocoFewShot', data_root=data_root, split='train2014'),
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='EpisodicDataset',
        benchmark='coco-20i',
        fold=fold,
        split='novel',
        shots=1,
        num_episodes=1000,
        seed=0,
        query_pipeline=query_pipeline,
        support_pipeline=support_pipeline,
        dataset=dict(type='CocoFewShot', data_root=data_root, split='val2014'),
    ),
)
# The published rule: the best checkpoint is chosen on the novel classes that are tested. For an
# honest choice set val_dataloader.dataset.split='base'.
val_dataloader = test_dataloader

test_evaluator = dict(type='FewShotIoUMetric')
val_evaluator = test_evaluator
