# PerSAM as published, but for the size of photos: SAM 1 ViT-H, one marked photo of one object, no
# training. More than one support is refused. Photos are squeezed to 1024 x 1024 px as for all
# methods; the published program keeps their proportions and pads. SAM 1 needs
# pip install "mmfss[sam1]", and its official weights (Apache-2.0)
#   mmfss weights fetch sam1_vit_h
object_threshold = 0.5  # a guess, see fssam.py
model = dict(
    type='PerSAM',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=1024,
    resize='pillow_bilinear',
    sam1=dict(type='SAM1', arch='vit_h', checkpoint='official'),
    # 4 MB an image, half of that under bf16; shared with all methods around the same encoder, see
    # fssam.py
    feature_cache=dict(
        type='FeatureCache',
        directory='work_dirs/feature_cache',
        memory_bytes=2**30,  # of the device's memory
        disk_bytes=2**35,
    ),
)
