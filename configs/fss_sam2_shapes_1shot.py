# FSSAM on the generated benchmark Shapes-5i, 1-shot. One run per fold: FOLD=0 .. FOLD=3.
_base_ = [
    '_base_/models/fssam_shapes.py',
    '_base_/datasets/shapes_5i.py',
    '_base_/schedules/shapes.py',
    '_base_/default_runtime.py',
]
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(_delete_=True, type='CheckpointHook', interval=1, max_keep_ckpts=1))
custom_hooks = [dict(type='EpisodeVisualizationHook', max_episodes=6)]
