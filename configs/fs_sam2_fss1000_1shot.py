# FS-SAM2 on FSS-1000, trained with one support; one fold. DATA_ROOT is what
# `python tools/prepare.py fss1000` made. Each of the 2400 test images is the query once.
_base_ = ['_base_/methods/fs_sam2.py', '_base_/benchmarks/prepared.py']
data_root = '{{$DATA_ROOT:data/fss1000}}'
train_dataloader = dict(
    _base_.training.train_dataloader,
    dataset=dict(
        _base_.training.train_dataloader.dataset,
        benchmark=data_root,
        dataset=dict(data_root=data_root),
    ),
)
val_dataloader = dict(
    dataset=dict(
        _base_.training.val_dataloader.dataset,
        benchmark=data_root,
        dataset=dict(data_root=data_root),
    )
)
test_dataloader = dict(
    dataset=dict(
        _base_.training.test_dataloader.dataset,
        benchmark=data_root,
        dataset=dict(data_root=data_root),
        sampler='image_list',
        num_episodes=None,
    )
)
optim_wrapper, train_cfg = _base_.training.optim_wrapper, _base_.training.train_cfg
param_scheduler = dict(_base_.training.param_scheduler, _delete_=True)
custom_hooks = [dict(type='EpisodeVisualizationHook')]
randomness = dict(seed=42)
