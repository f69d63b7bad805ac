# INSID3 as published: DINOv3 ViT-L/16 at 1024 px, 64 x 64 patches, nothing is trained. Meta hands
# the weights out on request; `mmfss weights` says where to ask and where to put the file. A copy
# under the names of timm or transformers is given by its path:
#   --cfg-options model.encoder.checkpoint=PATH
# insid3_dinov2.py needs no request. docs/methods.md explains the options.
object_threshold = 0.5  # a guess, see fssam.py
model = dict(
    type='INSID3',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=1024,
    resize='pillow_bilinear',
    encoder=dict(type='DINOv3', arch='large', image_size=1024, checkpoint='official'),
    svd_components=500,  # of 1024 channels
    tau=0.6,
    merge_threshold=0.2,
    # Refinement by SAM 2, off as published; a box for each connected region:
    # sam2=dict(arch='sam2.1_small', checkpoint='official'),
    # about 17 MB an image, half of that under bf16; see fssam.py
    feature_cache=dict(
        type='FeatureCache',
        directory='work_dirs/feature_cache',
        memory_bytes=2**30,  # of the device's memory
        disk_bytes=2**35,
    ),
)
