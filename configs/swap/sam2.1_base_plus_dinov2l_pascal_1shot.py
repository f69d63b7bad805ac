# A larger SAM 2, of version 2.1, and DINOv2 ViT-L/14.
_base_ = '../fss_sam2_pascal_1shot.py'

model = dict(sam2=dict(arch='sam2.1_base_plus'), prior_encoder=dict(arch='large'))
