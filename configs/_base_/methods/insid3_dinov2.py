# INSID3 on DINOv2 ViT-B/14 at 896 px, which are 64 x 64 patches too; its weights are there for all.
# Not what is published: the share of directions taken out is that of DINOv3 ViT-L, the other
# numbers are as published, and none of them was measured on DINOv2. For ViT-L:
#   --cfg-options model.encoder.arch=large model.svd_components=500
_base_ = 'insid3.py'
model = dict(
    image_size=896,
    encoder=dict(_delete_=True, type='DINOv2', arch='base', image_size=896, checkpoint='official'),
    svd_components=375,  # of 768 channels
)
