# GF-SAM with the masks of SAM 2: points where query and supports look alike in DINOv2, a mask of
# each point, whole masks kept or dropped by two votes. Nothing is trained. DINOv2 ViT-L/14 at 518
# px as published; SAM 2.1 small at 1024 px stands in the place of SAM 1 ViT-H, so this is not the
# published method, and tables and records say so: gf_sam_sam1.py is. Official weights, both under
# Apache-2.0:
#   mmfss weights fetch dinov2_large sam2.1_small
# SAM2 in the environment takes another size: SAM2=sam2.1_large, see README.md for all.
object_threshold = 0.5  # a guess, see fssam.py
model = dict(
    type='GFSAM',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=1024,
    # without the final norm, and not antialiased; resize='antialias' is what the published program
    # does with torchvision 0.17 and later
    encoder=dict(
        type='DINOv2',
        arch='large',
        image_size=518,
        checkpoint='official',
        final_norm=False,
        resize='centres',
    ),
    sam2=dict(arch='{{$SAM2:sam2.1_small}}', checkpoint='official'),
    # shared with all methods around the same encoder, see fssam.py
    feature_cache=dict(
        type='FeatureCache',
        directory='work_dirs/feature_cache',
        memory_bytes=2**30,  # of the device's memory
        disk_bytes=2**35,
    ),
)
