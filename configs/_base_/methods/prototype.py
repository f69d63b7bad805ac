# Prototypes: cosine similarity of the query's features to the mean features of the supports'
# objects and to those of their background. DINOv2 ViT-B/14 at 560 px; nothing is trained.
object_threshold = 0.5  # a guess, see fssam.py
model = dict(
    type='PrototypeMatcher',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=512,
    encoder=dict(type='DINOv2', arch='base', image_size=560, checkpoint='official'),
    # shared with all methods around the same encoder, see fssam.py
    feature_cache=dict(
        type='FeatureCache',
        directory='work_dirs/feature_cache',
        memory_bytes=2**30,  # of the device's memory
        disk_bytes=2**35,
    ),
)
