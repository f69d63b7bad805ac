# The model of `make demo`, on a dataset made by tools/prepare.py, 1-shot: what a laptop trains and
# tests on photos of your own in minutes. Tests take the demo's checkpoint, too:
#   python tools/prepare.py folder my_photos data/mine --folds 4 --test-fraction 0.3
#   export DATA_ROOT=data/mine
#   python tools/test.py configs/fss_sam2_small_prepared_1shot.py \
#       work_dirs/fss_sam2_shapes_1shot/fold0/epoch_5.pth
#   FOLD=0 python tools/train.py configs/fss_sam2_small_prepared_1shot.py
# Training starts from the small SAM 2 that the demo pretrains. It takes base classes and lists
# 'train' and 'test': --folds, or FOLD=all, which trains on all classes, and --test-fraction.
_base_ = ['_base_/methods/small/fssam.py', '_base_/benchmarks/prepared.py']
load_from = 'work_dirs/pretrain_sam2_shapes/fold0/epoch_12.pth'

side = 128
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
    dict(type='RandomResize', scale=(side, side), ratio_range=(0.9, 1.25), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCropKeepObject', crop_size=side, keep_ratio=0.85, max_tries=30),
]
# The query's label is read after the resize and so keeps its size: the metric is taken there.
query_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(side, side)),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
]
support_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
    dict(type='Resize', scale=(side, side)),
]
episodes = dict(query_pipeline=query_pipeline, support_pipeline=support_pipeline)
train_dataloader = dict(
    num_workers=2,
    sampler=dict(_delete_=True, type='EpisodeSampler', episodes_per_epoch=240),
    dataset=dict(query_pipeline=train_pipeline, support_pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=8, num_workers=2, dataset=dict(episodes, num_episodes=200))
test_dataloader = dict(batch_size=8, num_workers=2, dataset=episodes)
model = dict(feature_cache=dict(training=False))  # crops are random: none comes twice

# as on Shapes-5i, for twice as long
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = dict(end=10)
train_cfg = dict(max_epochs=10)
custom_hooks = [dict(type='EpisodeVisualizationHook')]
del side, episodes
