# SANSA on COCO-20i, 1-shot. One run per fold: FOLD=0 .. FOLD=3. IoU is counted at the size of the
# photos; on squares of 640 px, as published:
#   --cfg-options test_dataloader.dataset.label_size=640
# Training images that show novel classes are left out; the published lists keep them in, as HSNet
# and Matcher do: NOVEL_IMAGES=kept
_base_ = ['_base_/methods/sansa.py', '_base_/benchmarks/coco_20i.py']

recipe, side = _base_.recipe, _base_.model.image_size
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
    dict(type='Resize', scale=(side, side), backend='pillow'),
]
query_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(side, side), backend='pillow'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
]
episodes = dict(query_pipeline=query_pipeline, support_pipeline=train_pipeline)
train_dataloader = dict(
    batch_size=recipe.batch_size,
    sampler=dict(passes=1.0),
    dataset=dict(episodes, query_pipeline=train_pipeline, sampler='uniform_class'),
)
val_dataloader = dict(dataset=episodes)
test_dataloader = dict(dataset=dict(episodes, sampler='uniform_class', num_episodes=1000))
optim_wrapper = dict(_delete_=True, **recipe.optim_wrapper)
param_scheduler = dict(_delete_=True, **recipe.param_scheduler)
train_cfg = dict(max_epochs=recipe.epochs)
auto_scale_lr = dict(base_batch_size=recipe.batch_size)
custom_hooks = [dict(type='EpisodeVisualizationHook')]
del recipe, side, episodes
