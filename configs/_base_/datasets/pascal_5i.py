# PASCAL-5i: fold F tests classes 5F+1 .. 5F+5 and trains on the other 15.
# FOLD and DATA_ROOT (the VOC2012 folder) come from the environment.
fold = '{{$FOLD:0}}'
data_root = '{{$DATA_ROOT:data/VOCdevkit/VOC2012}}'

# Scales are relative to a long side of 500 px, which VOC photos have.
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
    dict(type='RandomResize', scale=(500, 500), ratio_range=(0.9, 1.1), keep_ratio=True),
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
        benchmark='pascal-5i',
        fold=fold,
        split='base',
        shots=1,
        num_episodes=10**8,  # for the whole run: episodes never come twice
        query_pipeline=train_pipeline,
        support_pipeline=train_pipeline,
        dataset=dict(
            type='PascalVOCFewShot',
            data_root=data_root,
            ann_file='ImageSets/Segmentation/train_aug_fss.txt',
        ),
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='EpisodicDataset',
        benchmark='pascal-5i',
        fold=fold,
        split='novel',
        shots=1,
        num_episodes=1000,
        seed=0,
        query_pipeline=query_pipeline,
        support_pipeline=support_pipeline,
        dataset=dict(
            type='PascalVOCFewShot', data_root=data_root, ann_file='ImageSets/Segmentation/val.txt'
        ),
    ),
)
# The published rule: the best checkpoint is chosen on the novel classes that are tested. For an
# honest choice set val_dataloader.dataset.split='base'.
val_dataloader = test_dataloader

test_evaluator = dict(type='FewShotIoUMetric')
val_evaluator = test_evaluator
