# SAM 2 as it stands: the supports are frames of a video, given with their masks, and the query is
# the next frame. Official weights of SAM 2.1 small at 1024 px, the size that SAM 2 was trained for;
# half of that takes a quarter of the time. Nothing is trained. The switches of the model are what
# SAM 2's own predictor does, and are explained in docs/methods.md.
# SAM2 in the environment takes another size or version: SAM2=sam2.1_large, see README.md for all.
object_threshold = 0.5  # a guess, see fssam.py
model = dict(
    type='SAM2Memory',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=1024,
    resize='pillow_bicubic',
    sam2=dict(arch='{{$SAM2:sam2.1_small}}', checkpoint='official'),
    object_gate=True,
    binary_masks=True,
    bfloat16_memory=True,
    shots_in_order=True,
    hole_area=0,
    # about 17 MB an image, half of that under bf16; see fssam.py
    feature_cache=dict(
        type='FeatureCache',
        directory='work_dirs/feature_cache',
        memory_bytes=2**30,  # of the device's memory
        disk_bytes=2**35,
    ),
)
