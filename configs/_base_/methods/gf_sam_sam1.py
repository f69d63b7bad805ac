# GF-SAM as published: DINOv2 ViT-L/14 at 518 px, masks of SAM 1 ViT-H at 1024 px. SAM 1 needs
# pip install "mmfss[sam1]". Official weights, both under Apache-2.0:
#   mmfss weights fetch dinov2_large sam1_vit_h
# Published figures are measured on 1024 x 1024 pixels, with the true masks resized to that; here
# the metric is measured at the size of the photo.
_base_ = 'gf_sam.py'
model = dict(sam2=None, sam1=dict(type='SAM1', arch='vit_h', checkpoint='official'))
