# FS-SAM2 on images of 128 px, on the small SAM 2 of fssam.py. That one has no official weights: it
# takes those of configs/pretrain_sam2_shapes.py, which stand for them and come from the base
# classes of the fold alone:
#   FOLD=0 python tools/train.py configs/pretrain_sam2_shapes.py
# Its trunk is a network of convolutions and stays as it is: LoRA of the image encoder is in the
# neck, which published models leave alone. Its masks 1 to 3 were trained by nothing.
_base_ = 'fssam.py'
load_from = None
object_threshold = 0.5  # a guess, see ../fssam.py
model = dict(
    _delete_=True,
    type='FSSAM2',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=128,
    resize='bilinear',
    sam2=dict(
        arch=_base_.model.sam2.arch,
        checkpoint='work_dirs/pretrain_sam2_shapes/fold{{$FOLD:0}}/epoch_12.pth',
    ),
    lora=dict(
        image_encoder=dict(targets=['neck.convs.*.conv'], rank=4, alpha=16, dropout=0.1),
        memory_attention=dict(
            targets=['q_proj', 'k_proj', 'v_proj', 'out_proj'], rank=32, alpha=16, dropout=0.1
        ),
        memory_encoder=dict(targets=['out_proj'], rank=32, alpha=16, dropout=0.1),
    ),
    trainable=['sam2.image_encoder.neck.*.lora', 'sam2.memory_*.lora'],
    loss_decode=dict(type='BCEDiceLoss'),
    # what the trunk gives is kept in training too
    feature_cache=dict(type='FeatureCache', memory_bytes=2**30, training=True),
)
