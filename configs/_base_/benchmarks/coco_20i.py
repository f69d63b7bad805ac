# COCO-20i, interleaved folds: fold F tests classes F+1, F+5, F+9, ... of the 80.
# `python tools/prepare.py coco DATA_ROOT` paints the masks. FOLD, SHOTS, DATA_ROOT and
# SELECTION come from the environment, see ../datasets/pascal_5i.py.
_base_ = 'pascal_5i.py'
benchmark = 'coco-20i'
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
test_images = dict(_delete_=True, type='CocoFewShot', data_root=data_root, split='val2014')
train_dataloader = dict(
    dataset=dict(
        benchmark=benchmark,
        query_pipeline=train_pipeline,
        support_pipeline=train_pipeline,
        dataset=dict(_delete_=True, type='CocoFewShot', data_root=data_root, split='train2014'),
    ),
)
val_dataloader = dict(dataset=dict(benchmark=benchmark, dataset=test_images))
test_dataloader = dict(dataset=dict(benchmark=benchmark, dataset=test_images))

# The published sampler walks the list, and the first 1000 of 40,504 images do not show every class:
# those left out are named, and what the mean would be with them as 0 is reported beside it.
test_evaluator = dict(absent_classes='exclude')
val_evaluator = dict(absent_classes='exclude')

# As published: 150 epochs are 75 passes, and training ends after 25 passes without a better mIoU.
# The rest as on PASCAL-5i.
param_scheduler = dict(end=150)
train_cfg = dict(max_epochs=150)
custom_hooks = [
    dict(type='StopWithoutProgressHook', monitor='mIoU', patience=50),
    dict(type='EpisodeVisualizationHook'),
]
