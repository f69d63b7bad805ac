# SANSA on images of 128 px: the small SAM 2 of fssam.py, with adapters behind the blocks of strides
# 16 and 32 of its trunk, which is no Hiera. It has no official weights: those of
# configs/pretrain_sam2_shapes.py stand for them, and come from the base classes of the fold alone:
#   FOLD=0 python tools/train.py configs/pretrain_sam2_shapes.py
_base_ = 'fssam.py'
load_from = None
object_threshold = 0.5  # a guess, see ../fssam.py
model = dict(
    _delete_=True,
    type='SANSA',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=128,
    resize='bilinear',
    sam2=dict(
        arch=_base_.model.sam2.arch,
        image_size=128,
        checkpoint='work_dirs/pretrain_sam2_shapes/fold{{$FOLD:0}}/epoch_12.pth',
        adapters=dict(stages=(2, 3), channel_factor=0.3),
    ),
    loss_decode=dict(type='FocalDiceLoss'),
    feature_cache=dict(type='FeatureCache', memory_bytes=2**30),
)
