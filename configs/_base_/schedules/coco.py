# COCO-20i, as published: 150 epochs are 75 passes, and training ends after 25 passes without a
# better mIoU. The rest as on PASCAL-5i.
_base_ = 'pascal.py'
param_scheduler = dict(end=150)
train_cfg = dict(max_epochs=150)
custom_hooks = [
    dict(type='StopWithoutProgressHook', monitor='mIoU', patience=50),
    dict(type='EpisodeVisualizationHook'),
]
