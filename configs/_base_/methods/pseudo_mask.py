# Baseline: the pseudo mask that FSSAM gives SAM 2 as a prompt, cut at one half. What SAM 2 adds is
# what FSSAM is better by. DINOv2 ViT-B/14 at 560 px; nothing is trained.
object_threshold = 0.5  # a guess, see fssam.py
model = dict(
    type='PseudoMask',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=512,
    encoder=dict(type='DINOv2', arch='base', image_size=560, checkpoint='official'),
    prompt_generator=dict(type='PseudoPromptGenerator'),
    # shared with all methods around the same encoder, see fssam.py
    feature_cache=dict(
        type='FeatureCache',
        directory='work_dirs/feature_cache',
        memory_bytes=2**30,  # of the device's memory
        disk_bytes=2**35,
    ),
)
