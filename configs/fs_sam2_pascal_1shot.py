# FS-SAM2 on PASCAL-5i, trained with one support. One run per fold: FOLD=0 .. FOLD=3. Tested with
# any number (--shots 5), on the 1000 episodes of the published test: docs/benchmarking.md.
_base_ = ['_base_/methods/fs_sam2.py', '_base_/benchmarks/pascal_5i.py']

recipe, side = _base_.recipe, _base_.model.image_size
resize = dict(type='Resize', scale=(side, side), backend='pillow', interpolation='bicubic')
label = [dict(type='LoadLabel'), dict(type='BinarizeLabel')]
augmented = [dict(type='LoadImage'), *label, resize, *recipe.augment]
episodes = dict(
    query_pipeline=[dict(type='LoadImage'), resize, *label],
    support_pipeline=[dict(type='LoadImage'), *label, resize],
)
train_dataloader = dict(
    batch_size=recipe.batch_size,
    sampler=dict(passes=1.0),
    dataset=dict(episodes, query_pipeline=augmented, support_pipeline=augmented),
)
val_dataloader = dict(dataset=episodes)
test_dataloader = dict(dataset=dict(episodes, sampler='fs_sam2', seed=42))
optim_wrapper = dict(_delete_=True, **recipe.optim_wrapper)
param_scheduler = dict(_delete_=True, **recipe.param_scheduler)
train_cfg = dict(max_epochs=recipe.epochs)
auto_scale_lr = dict(base_batch_size=recipe.batch_size)
custom_hooks = [dict(type='EpisodeVisualizationHook')]
randomness = dict(seed=42)
del recipe, side, resize, label, augmented, episodes
