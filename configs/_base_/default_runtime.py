# What every run shares. The guard hooks cannot be switched off: tools/train.py and
# tools/test.py add them where a config has none.
default_scope = 'mmseg'
custom_imports = dict(imports=['mmfss'], allow_failed_imports=False)

both = '{{$SELECTION:held_out}}' == 'both'  # see _base_/datasets/pascal_5i.py
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),  # tells the EpisodeSampler its epoch
    checkpoint=dict(
        type='WholeCheckpointHook',
        interval=1,
        max_keep_ckpts=1,
        save_best=['mIoU', 'novel/mIoU'] if both else 'mIoU',
        rule='greater',
    ),
    fold_guard=dict(type='FoldGuardHook'),
    strict_load=dict(type='StrictLoadHook'),
    noise=dict(type='RepeatableNoiseHook'),
    warm_up=dict(type='WarmUpHook'),  # of models with model.compile
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # as long as gloo waits, in seconds: the first process may read all masks for the others
    dist_cfg=dict(backend='nccl', timeout=1800),
)  # gloo where there is no GPU
find_unused_parameters = True  # SAM 2's IoU head gets no gradient from the Dice loss
randomness = dict(seed=0)
# more backends: dict(type='TensorboardVisBackend'), dict(type='WandbVisBackend')
visualizer = dict(type='EpisodeVisualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(by_epoch=True)
log_level = 'INFO'
resume = False
