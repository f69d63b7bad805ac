# The model of `make demo`, or what METHOD names in _base_/methods/small, as a segmentor of
# mmseg over background and the classes of a support set (SUPPORT: a support file or a folder). Its
# weights are those of the method. On the example of `tools/prepare.py example`, or on
# DATA_ROOT=... CLASSES=...:
#   python MMSEG/.mim/tools/test.py configs/few_shot_segmentor_shapes.py epoch_5.pth
# where MMSEG is the folder of the package: python -c 'import mmseg; print(mmseg.__path__[0])'
_base_ = [
    '_base_/methods/small/' + '{{$METHOD:fssam}}.py'.replace('-', '_'),
    '_base_/datasets/few_shot_segmentor.py',
]
model = dict(
    _delete_=True,
    type='FewShotSegmentor',
    data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True),
    # without the cache, which is for images that come in many episodes
    model={name: part for name, part in _base_.model.items() if name != 'feature_cache'},
    support='{{$SUPPORT:data/example/support}}',
    threshold=_base_.object_threshold,
    test_cfg=dict(mode='whole'),
)
load_from = None  # the checkpoint is an argument
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128)),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
