# FS-SAM2 as published: SAM 2.1 base plus at 1024 px, LoRA in image encoder, memory attention and
# memory encoder, all else frozen. Training starts from the official weights:
#   mmfss weights fetch sam2.1_base_plus
# One support in training, any number in tests. SAM2 in the environment takes another size or
# version: SAM2=sam2.1_small, see README.md for all.
load_from = None  # training starts from the official weights
object_threshold = 0.5  # a guess, see fssam.py
model = dict(
    type='FSSAM2',
    data_preprocessor=dict(type='EpisodeDataPreprocessor'),
    image_size=1024,
    resize='pillow_bicubic',
    sam2=dict(arch='{{$SAM2:sam2.1_base_plus}}', checkpoint='official'),
    # layers by the end of their names
    lora=dict(
        image_encoder=dict(targets=['qkv', 'proj'], rank=4, alpha=16, dropout=0.1),
        memory_attention=dict(
            targets=['q_proj', 'k_proj', 'v_proj', 'out_proj'], rank=32, alpha=16, dropout=0.1
        ),
        memory_encoder=dict(targets=['out_proj'], rank=32, alpha=16, dropout=0.1),
    ),
    loss_decode=dict(type='BCEDiceLoss'),
    # about 17 MB an image, half of that under bf16; see fssam.py. In evaluation alone: training
    # changes the image encoder
    feature_cache=dict(
        type='FeatureCache',
        directory='work_dirs/feature_cache',
        memory_bytes=2**30,  # of the device's memory
        disk_bytes=2**35,
    ),
)

# How it is trained, in the place of what a benchmark says: 50 passes over the images, 8 episodes a
# step and process; query and supports are augmented apart, after they have the model's size.
recipe = dict(
    epochs=50,
    batch_size=8,
    augment=[
        # corners are black, and background in the label
        dict(type='RandomRotateNearest', prob=1.0, degree=10, pad_val=0, seg_pad_val=0),
        dict(type='RandomBlur', prob=1.0, kernel_size=5, sigma=(0.1, 2.0)),
        dict(type='RandomFlip', prob=0.5),
    ],
    optim_wrapper=dict(
        type='OptimWrapper',  # --amp: bfloat16 autocast, as published
        optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-6),
    ),
    param_scheduler=dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        begin=0,
        end=50,
        T_max=50,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
)
