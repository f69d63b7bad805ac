# FS-SAM2 on PASCAL-5i, trained with one support. One run per fold: FOLD=0 .. FOLD=3. Tested with any
# number (--shots 5), on the 1000 episodes of the published test: docs/benchmarking.md.
_base_ = ['_base_/methods/fs_sam2.py', '_base_/benchmarks/pascal_5i.py']
train_dataloader = _base_.training.train_dataloader
val_dataloader = _base_.training.val_dataloader
test_dataloader = dict(
    dataset=dict(_base_.training.test_dataloader.dataset, sampler='fs_sam2', seed=42)
)
optim_wrapper, train_cfg = _base_.training.optim_wrapper, _base_.training.train_cfg
param_scheduler = dict(_base_.training.param_scheduler, _delete_=True)
custom_hooks = [dict(type='EpisodeVisualizationHook')]
randomness = dict(seed=42)
