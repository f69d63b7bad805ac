# PerSAM on images of 128 px, which SAM 1 takes at 1024 px: ViT-B, the smallest that there is. A
# smaller network has no official weights, and with random ones SAM finds nothing. It needs
# pip install "mmfss[sam1]" and
#   mmfss weights fetch sam1_vit_b
_base_ = '../persam.py'
model = dict(
    image_size=128,
    sam1=dict(arch='vit_b'),
    feature_cache=dict(_delete_=True, type='FeatureCache', memory_bytes=2**30),
)
