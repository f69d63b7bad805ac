# FSSAM on PASCAL-5i, 1-shot. One run per fold: FOLD=0 .. FOLD=3.
_base_ = [
    '_base_/models/fssam_dinov2b.py',
    '_base_/datasets/pascal_5i.py',
    '_base_/schedules/pascal.py',
    '_base_/default_runtime.py',
]
