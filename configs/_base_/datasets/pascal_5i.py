# Episodes of PASCAL-5i: fold F tests classes 5F+1 .. 5F+5 and trains on the other 15. What other
# benchmarks on photos start from. From the environment: FOLD, SHOTS, DATA_ROOT (the VOC2012
# folder), and SELECTION, the classes that the best checkpoint is chosen on:
#   held_out  base classes that training is kept away from, every fifth (the default)
#   both      the same, and the novel classes are watched: best_mIoU_*.pth by the first,
#             best_novel_mIoU_*.pth by the second
#   base      the base classes, all of them trained on, in images that training has not seen
#   novel     the published rule: all base classes are trained on, and the best checkpoint is
#             chosen on the novel classes that are tested
# FOLD=all trains on all classes, none is novel, and SELECTION=base is the default; for labelling,
# see docs/benchmarking.md
# and NOVEL_IMAGES, what becomes of training images that show a held-out class:
#   left_out  they are left out (the default), as FSSAM, FS-SAM2, BAM, HMNet do
#   kept      they stay, with the held-out class as background, as HSNet, Matcher, SANSA do
fold = '{{$FOLD:0}}'
data_root = '{{$DATA_ROOT:data/VOCdevkit/VOC2012}}'
selection = '{{$SELECTION:auto}}'
if selection == 'auto':
    selection = 'base' if fold == 'all' else 'held_out'
novel_images = '{{$NOVEL_IMAGES:left_out}}'
trained_on = 'base' if selection in ('base', 'novel') else 'base_train'
chosen_on = selection if selection in ('base', 'novel') else 'base_val'

# Scales are relative to a long side of 500 px, which VOC photos have.
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
    dict(type='RandomResize', scale=(500, 500), ratio_range=(0.9, 1.1), keep_ratio=True),
    dict(type='RandomRotate', prob=0.5, degree=10, pad_val=(104, 116, 124), seg_pad_val=255),
    dict(type='RandomBlur', prob=0.5, kernel_size=5),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCropKeepObject', crop_size=512, keep_ratio=0.85, max_tries=30),
]
# The query's label is read after the resize and so keeps its size: the metric is taken there.
query_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(512, 512)),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
]
support_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadLabel'),
    dict(type='BinarizeLabel'),
    dict(type='Resize', scale=(512, 512)),
]

# 8 episodes per step in all: with N processes set batch_size to 8 / N.
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    # An epoch of the loop is half a pass over the images, as validation is every half pass.
    sampler=dict(type='EpisodeSampler', passes=0.5),
    dataset=dict(
        type='EpisodicDataset',
        benchmark='pascal-5i',
        fold=fold,
        split=trained_on,
        shots=int('{{$SHOTS:1}}'),
        num_episodes=10**8,  # for the whole run: episodes never come twice
        exclude_novel_images=novel_images == 'left_out',
        query_pipeline=train_pipeline,
        support_pipeline=train_pipeline,
        dataset=dict(
            type='PascalVOCFewShot',
            data_root=data_root,
            ann_file='ImageSets/Segmentation/train_aug_fss.txt',
        ),
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='EpisodicDataset',
        benchmark='pascal-5i',
        fold=fold,
        split='novel',
        shots=int('{{$SHOTS:1}}'),
        num_episodes=1000,
        seed=0,
        sampler='image_list',  # published: walks the list of test images
        query_pipeline=query_pipeline,
        support_pipeline=support_pipeline,
        dataset=dict(
            type='PascalVOCFewShot', data_root=data_root, ann_file='ImageSets/Segmentation/val.txt'
        ),
    ),
)
val_dataloader = dict(test_dataloader, dataset=dict(test_dataloader['dataset'], split=chosen_on))
if selection != 'novel':  # the published rule draws its episodes as the test does
    val_dataloader['dataset']['sampler'] = 'balanced'

test_evaluator = dict(type='FewShotIoUMetric')
val_evaluator = test_evaluator
val_cfg = dict(type='ValLoopWatchingNovel' if selection == 'both' else 'ValLoop')
