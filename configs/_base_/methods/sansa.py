# SANSA as published: SAM 2.0 large at 1024 px with adapters in the last two stages of its trunk,
# images and masks of 640 px, supports shown by their masks. Training starts from the official
# weights (`mmfss weights fetch sam2_large`) and leaves all of them as they are: with
#   --cfg-options default_hooks.checkpoint.trained_only=True
# a checkpoint is the adapters alone. The published generalist and universal model have
# channel_factor=0.8, the latter is trained with prompt='multi'.
# SAM2 in the environment takes another size: SAM2=sam2_tiny, see README.md for all.
load_from = None
object_threshold = 0.5  # a guess, see fssam.py
model = dict(
    type='SANSA',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=640,
    resize='pillow_bilinear',
    sam2=dict(
        arch='{{$SAM2:sam2_large}}',
        image_size=1024,
        checkpoint='official',
        adapters=dict(stages=(2, 3), channel_factor=0.3),
    ),
    prompt='mask',
    shots_in_order=True,
    attention_dropout=True,
    loss_decode=dict(type='FocalDiceLoss'),
    # in evaluation, where the weights stand still; about 17 MB an image, half of that under bf16
    feature_cache=dict(
        type='FeatureCache',
        directory='work_dirs/feature_cache',
        memory_bytes=2**30,  # of the device's memory
        disk_bytes=2**35,
    ),
)
# How it is trained, in the place of what a benchmark says: 5 passes over the images, no
# augmentation, 32 episodes a step of all processes. With less memory, the same step:
#   --cfg-options train_dataloader.batch_size=4 optim_wrapper.accumulative_counts=8
recipe = dict(
    epochs=5,
    batch_size=32,
    optim_wrapper=dict(
        type='OptimWrapper',  # --amp: bfloat16 autocast; published in float32
        optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0),
        clip_grad=dict(max_norm=0.1),
    ),
    param_scheduler=dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        begin=0,
        end=5,
        T_max=5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
)
