# Any registered mmseg backbone as prior encoder: here a ResNet-50 with ImageNet weights, its last
# stage at stride 16.
_base_ = '../fss_sam2_pascal_1shot.py'

model = dict(
    prior_encoder=dict(
        _delete_=True,
        type='BackboneEncoder',
        image_size=512,
        backbone=dict(
            type='ResNet',
            depth=50,
            out_indices=(3,),
            strides=(1, 2, 2, 1),
            dilations=(1, 1, 1, 2),
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth',
            ),
        ),
    )
)
