# Shapes-5i, the generated benchmark: python tools/prepare.py shapes data/shapes5i
# Fold F tests classes 5F+1 .. 5F+5 and trains on the other 15, without any image that shows one
# of the five. FOLD, SHOTS and DATA_ROOT come from the environment. Its images have 128 px: methods
# take the networks of ../methods/small.
_base_ = '../default_runtime.py'
fold = '{{$FOLD:0}}'
data_root = '{{$DATA_ROOT:data/shapes5i}}'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
    dict(type='RandomFlip', prob=0.5),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='EpisodeSampler', episodes_per_epoch=240),
    dataset=dict(
        type='EpisodicDataset',
        benchmark='shapes-5i',
        fold=fold,
        split='base',
        shots=int('{{$SHOTS:1}}'),
        num_episodes=10**8,  # for the whole run: episodes never come twice
        query_pipeline=train_pipeline,
        support_pipeline=train_pipeline,
        dataset=dict(
            type='ShapesDataset', data_root=data_root, ann_file='ImageSets/Segmentation/train.txt'
        ),
    ),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='EpisodicDataset',
        benchmark='shapes-5i',
        fold=fold,
        split='novel',
        shots=int('{{$SHOTS:1}}'),
        num_episodes=400,
        seed=0,
        query_pipeline=test_pipeline,
        support_pipeline=test_pipeline,
        dataset=dict(
            type='ShapesDataset', data_root=data_root, ann_file='ImageSets/Segmentation/val.txt'
        ),
    ),
)
test_evaluator = dict(type='FewShotIoUMetric')
# No validation: the last checkpoint is the result, so nothing is chosen on the novel classes.
val_cfg = None
test_cfg = dict(type='TestLoop')

# 5 epochs of 30 iterations on top of a pretrained small network: about a minute on two CPU cores.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, begin=0, end=20, by_epoch=False),
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=0.0,
        begin=0,
        end=5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=5)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(_delete_=True, type='WholeCheckpointHook', interval=1, max_keep_ckpts=1),
)
custom_hooks = [dict(type='EpisodeVisualizationHook', max_episodes=6)]
