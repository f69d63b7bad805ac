# GF-SAM on images of 128 px with SAM 1 as in gf_sam_sam1.py, which resizes them to 1024 px: ViT-B,
# the smallest that there is. It needs pip install "mmfss[sam1]" and
#   mmfss weights fetch sam1_vit_b
_base_ = 'gf_sam.py'
model = dict(
    sam2=None,
    prompts=None,
    sam1=dict(type='SAM1', arch='vit_b', checkpoint='official'),
)
