# FSSAM as published: SAM 2.0 small at 512 px, DINOv2 ViT-B/14 at 560 px. Training starts from the
# official weights: `mmfss weights fetch fssam`, or give paths as `checkpoint`.
# SAM2 in the environment takes another size: SAM2=sam2_large, see README.md for all.
load_from = None  # training starts from the official weights

# Of the object score, below which labelling does not mark a class in an image. Not measured for
# DINOv2: choose it on images of your own, see docs/labelling.md.
object_threshold = 0.5
model = dict(
    type='FSSAM',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    sam2=dict(arch='{{$SAM2:sam2_small}}', image_size=512, checkpoint='official'),
    prior_encoder=dict(type='DINOv2', arch='base', image_size=560, checkpoint='official'),
    prompt_generator=dict(type='PseudoPromptGenerator'),
    memory_refinement=dict(type='IterativeMemoryRefinement', num_iters=3, version='v1'),
    memory_attention=dict(type='SupportCalibratedMemoryAttention', strength=10.0),
    loss_decode=dict(type='SquaredDiceLoss'),
    trainable=('sam2.sam_mask_decoder', 'sam2.memory_encoder', 'sam2.memory_attention'),
    # What the two encoders give for a validation or test image is computed once and kept, here and
    # for later runs: about 9 MB an image, half of that under bf16. See docs/performance.md;
    # feature_cache=None encodes every image of every episode.
    feature_cache=dict(
        type='FeatureCache',
        directory='work_dirs/feature_cache',
        memory_bytes=2**30,  # of the device's memory
        disk_bytes=2**35,
    ),
)
