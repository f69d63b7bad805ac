# FSSAM as published (SAM 2 small, DINOv2-B), or what METHOD names in _base_/methods, as an ordinary
# segmentor of mmseg over background and the classes of a support set (SUPPORT: a support file or a
# folder):
#   SUPPORT=my_support DATA_ROOT=my_data CLASSES=cat,cup SUFFIX=.jpg \
#       python MMSEG/.mim/tools/test.py configs/few_shot_segmentor.py best_mIoU_epoch_X.pth
# where MMSEG is the folder of the package: python -c 'import mmseg; print(mmseg.__path__[0])'
_base_ = [
    '_base_/methods/' + '{{$METHOD:fssam}}.py'.replace('-', '_'),
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
    # Small objects in large images: windows of 512 px on an image with a long side of 1536, each
    # looked at as an image of its own. Take out Resize below, or set its scale=(1536, 1536),
    # keep_ratio=True.
    # test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(256, 256)),
)
load_from = None  # the checkpoint is an argument
# at the size and in the way of the method
side = _base_.model.get('image_size') or _base_.model.sam2.image_size
resize = dict(type='Resize', scale=(side, side))
how = _base_.model.get('resize', 'bilinear')
if how != 'bilinear':
    resize.update(backend='pillow', interpolation=how.replace('pillow_', ''))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
del side, how, resize
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
