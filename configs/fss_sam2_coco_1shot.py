# FSSAM on COCO-20i, 1-shot. One run per fold: FOLD=0 .. FOLD=3.
_base_ = [
    '_base_/models/fssam_dinov2b.py',
    '_base_/datasets/coco_20i.py',
    '_base_/schedules/coco.py',
    '_base_/default_runtime.py',
]
