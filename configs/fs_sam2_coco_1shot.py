# FS-SAM2 on COCO-20i, trained with one support. One run per fold: FOLD=0 .. FOLD=3. Tested with any
# number (--shots 5), on episodes drawn as in the published test: docs/benchmarking.md.
# BENCHMARK=coco-20i-contiguous takes PANet's folds.
_base_ = [
    '_base_/methods/fs_sam2.py',
    '_base_/benchmarks/coco_20i'
    + ('_contiguous' if 'contiguous' in '{{$BENCHMARK:coco-20i}}' else '')
    + '.py',
]
train_dataloader = dict(
    _base_.training.train_dataloader,
    dataset=dict(_base_.training.train_dataloader.dataset, sampler='uniform_class'),
)
val_dataloader = _base_.training.val_dataloader
test_dataloader = dict(
    dataset=dict(_base_.training.test_dataloader.dataset, sampler='fs_sam2_by_class', seed=42)
)
optim_wrapper, train_cfg = _base_.training.optim_wrapper, _base_.training.train_cfg
param_scheduler = dict(_base_.training.param_scheduler, _delete_=True)
custom_hooks = [dict(type='EpisodeVisualizationHook')]
randomness = dict(seed=42)
