# Images with label maps for mmseg's own test, metric and inferencers: an ordinary dataset and
# ordinary pipelines of mmseg. From the environment:
#   DATA_ROOT  folder with images/*.png or *.jpg and masks/*.png
#   CLASSES    names of the values 1..N of the masks, in the order of the support set: star,ring
#   SUFFIX     ending of the images, .png or .jpg
data_root = '{{$DATA_ROOT:data/example}}'
names = '{{$CLASSES:crescent,ring,star}}'
classes = ['background', *names.split(',')]

test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        img_suffix='{{$SUFFIX:.png}}',
        metainfo=dict(classes=classes),
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')

default_scope = 'mmseg'
custom_imports = dict(imports=['mmfss'], allow_failed_imports=False)
default_hooks = dict(visualization=dict(type='SegVisualizationHook', interval=1))
custom_hooks = [dict(type='SupportClassesHook')]
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], alpha=0.6)
log_level = 'INFO'
