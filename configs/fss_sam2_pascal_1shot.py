# FSSAM on PASCAL-5i, 1-shot. One run per fold: FOLD=0 .. FOLD=3.
_base_ = ['_base_/methods/fssam.py', '_base_/benchmarks/pascal_5i.py']
