# FSSAM on the generated benchmark Shapes-5i, 1-shot. One run per fold: FOLD=0 .. FOLD=3.
# Starts from the small SAM 2 of configs/pretrain_sam2_shapes.py, which is to be trained first:
#   FOLD=0 python tools/train.py configs/pretrain_sam2_shapes.py
#   FOLD=0 python tools/train.py configs/fss_sam2_shapes_1shot.py
_base_ = [
    '_base_/models/fssam_shapes.py',
    '_base_/datasets/shapes_5i.py',
    '_base_/schedules/shapes.py',
    '_base_/default_runtime.py',
]
load_from = 'work_dirs/pretrain_sam2_shapes/fold{{$FOLD:0}}/epoch_12.pth'
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(_delete_=True, type='CheckpointHook', interval=1, max_keep_ckpts=1),
)
custom_hooks = [dict(type='EpisodeVisualizationHook', max_episodes=6)]
