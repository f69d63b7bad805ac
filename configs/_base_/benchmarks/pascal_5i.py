# PASCAL-5i, trained as published: the episodes are in ../datasets/pascal_5i.py.
_base_ = ['../datasets/pascal_5i.py', '../default_runtime.py']

# An epoch here is half a pass over the training images (see the sampler), so 600 epochs are
# 300 passes, and training ends after 100 passes without a better mIoU.
optim_wrapper = dict(
    type='OptimWrapper',  # --amp: bfloat16 autocast, as published
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0),
)
param_scheduler = dict(
    type='PolyLR',
    power=0.9,
    eta_min=0.0,
    begin=0,
    end=600,
    by_epoch=True,
    convert_to_iter_based=True,
)
auto_scale_lr = dict(enable=False, base_batch_size=8)  # episodes per step, of all processes
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=600, val_interval=1)
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(type='StopWithoutProgressHook', monitor='mIoU', patience=200),
    dict(type='EpisodeVisualizationHook'),  # pictures of the first test episodes in the work dir
]
