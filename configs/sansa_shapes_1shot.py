# SANSA on the generated benchmark Shapes-5i, 1-shot. One run per fold: FOLD=0 .. FOLD=3.
# Starts from the small SAM 2 of configs/pretrain_sam2_shapes.py, which is to be trained first:
#   FOLD=0 python tools/train.py configs/pretrain_sam2_shapes.py
#   FOLD=0 python tools/train.py configs/sansa_shapes_1shot.py
_base_ = ['_base_/methods/small/sansa.py', '_base_/benchmarks/shapes_5i.py']
