# Densities: log ratio of the kernel densities of object and background, at the patches of the
# supports. DINOv2 ViT-B/14 at 560 px; nothing is trained.
_base_ = 'prototype.py'
model = dict(type='DensityMatcher')
