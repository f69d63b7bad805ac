# GF-SAM on images of 128 px: the features of fssam.py's prior encoder on a grid of 16 x 16, masks
# of the small SAM 2. That one has no official weights: those of configs/pretrain_sam2_shapes.py
# stand for them, and heads for points that are trained on the same base classes:
#   FOLD=0 python tools/train.py configs/pretrain_sam2_shapes.py
#   FOLD=0 python tools/train_prompts.py configs/pretrain_sam2_shapes.py \
#       work_dirs/pretrain_sam2_shapes/fold0/epoch_12.pth
# Without the latter (prompts=None) points mean nothing to the mask decoder: it knows the empty
# prompt of tracking alone.
_base_ = 'fssam.py'
load_from = None
object_threshold = 0.5  # a guess, see ../fssam.py
model = dict(
    _delete_=True,
    type='GFSAM',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=128,
    resize='bilinear',
    encoder=dict(type='EfficientNetLiteEncoder', image_size=256),
    sam2=dict(
        arch=_base_.model.sam2.arch,
        checkpoint='work_dirs/pretrain_sam2_shapes/fold{{$FOLD:0}}/epoch_12.pth',
    ),
    prompts='work_dirs/pretrain_sam2_shapes/fold{{$FOLD:0}}/prompts.pth',
    feature_cache=dict(type='FeatureCache', memory_bytes=2**30),
)
