# FS-SAM2 on the generated benchmark Shapes-5i, trained with one support. One run per fold:
# FOLD=0 .. FOLD=3. Starts from the small SAM 2 of configs/pretrain_sam2_shapes.py:
#   FOLD=0 python tools/train.py configs/pretrain_sam2_shapes.py
#   FOLD=0 python tools/train.py configs/fs_sam2_shapes_1shot.py
_base_ = ['_base_/methods/small/fs_sam2.py', '_base_/benchmarks/shapes_5i.py']
