# FS-SAM2 on FSS-1000, trained with one support; one fold. DATA_ROOT is what
# `python tools/prepare.py fss1000` made. Each of the 2400 test images is the query once.
_base_ = ['_base_/methods/fs_sam2.py', '_base_/benchmarks/prepared.py']
data_root = '{{$DATA_ROOT:data/fss1000}}'

recipe, side = _base_.recipe, _base_.model.image_size
resize = dict(type='Resize', scale=(side, side), backend='pillow', interpolation='bicubic')
label = [dict(type='LoadLabel'), dict(type='BinarizeLabel')]
augmented = [dict(type='LoadImage'), *label, resize, *recipe.augment]
episodes = dict(
    benchmark=data_root,
    dataset=dict(data_root=data_root),
    query_pipeline=[dict(type='LoadImage'), resize, *label],
    support_pipeline=[dict(type='LoadImage'), *label, resize],
)
train_dataloader = dict(
    batch_size=recipe.batch_size,
    sampler=dict(passes=1.0),
    dataset=dict(episodes, query_pipeline=augmented, support_pipeline=augmented),
)
val_dataloader = dict(dataset=episodes)
test_dataloader = dict(dataset=dict(episodes, sampler='image_list', num_episodes=None))
optim_wrapper = dict(_delete_=True, **recipe.optim_wrapper)
param_scheduler = dict(_delete_=True, **recipe.param_scheduler)
train_cfg = dict(max_epochs=recipe.epochs)
auto_scale_lr = dict(base_batch_size=recipe.batch_size)
custom_hooks = [dict(type='EpisodeVisualizationHook')]
randomness = dict(seed=42)
del recipe, side, resize, label, augmented, episodes
