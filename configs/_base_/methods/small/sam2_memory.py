# SAM 2 as it stands on images of 128 px. The small SAM 2 of fssam.py has no official weights: it
# takes those of configs/pretrain_sam2_shapes.py, which stand for them and come from the base
# classes of the fold alone:
#   FOLD=0 python tools/train.py configs/pretrain_sam2_shapes.py
# Its object score was not trained, so nothing is gated by it.
_base_ = 'fssam.py'
load_from = None
object_threshold = 0.5  # a guess, see ../fssam.py
model = dict(
    _delete_=True,
    type='SAM2Memory',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=128,
    sam2=dict(
        arch=_base_.model.sam2.arch,
        checkpoint='work_dirs/pretrain_sam2_shapes/fold{{$FOLD:0}}/epoch_12.pth',
    ),
    object_gate=False,
    feature_cache=dict(type='FeatureCache', memory_bytes=2**30),
)
