# Densities on images of 128 px: the features of fssam.py's prior encoder.
_base_ = '../density.py'
model = dict(
    image_size=128,
    encoder=dict(_delete_=True, type='EfficientNetLiteEncoder', image_size=256),
    feature_cache=dict(_delete_=True, type='FeatureCache', memory_bytes=2**30),
)
