# FSSAM on COCO-20i, 1-shot. One run per fold: FOLD=0 .. FOLD=3.
# BENCHMARK=coco-20i-contiguous takes PANet's folds.
_base_ = [
    '_base_/methods/fssam.py',
    '_base_/benchmarks/coco_20i'
    + ('_contiguous' if 'contiguous' in '{{$BENCHMARK:coco-20i}}' else '')
    + '.py',
]
