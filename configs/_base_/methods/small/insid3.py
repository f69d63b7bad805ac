# INSID3 on images of 128 px: the features of fssam.py's prior encoder, 16 x 16 patches. Patches of
# this network are less alike than DINOv3's, so that the published numbers leave each a segment of
# its own; these here were chosen on photos.
_base_ = '../insid3.py'
model = dict(
    image_size=128,
    encoder=dict(_delete_=True, type='EfficientNetLiteEncoder', image_size=256),
    svd_components=10,  # of 112 channels
    tau=0.1,
    merge_threshold=0.05,
    feature_cache=dict(_delete_=True, type='FeatureCache', memory_bytes=2**30),
)
