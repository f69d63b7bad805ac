"""A run of mmengine's Runner on one linear layer; test_compat starts it in forked processes."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmfss import compat


@MODELS.register_module()
class ToyModel(BaseModel):
    """Loss is the mean of a linear layer; each process sees other data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return {'loss': self.layer(torch.stack(inputs)).square().mean()}


@DATASETS.register_module()
class ToyData(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        return {'inputs': torch.full((3,), float(index))}


@HOOKS.register_module()
class FirstIteration(Hook):
    start = None

    def before_train(self, runner) -> None:
        FirstIteration.start = runner.iter


def run(work_dir: str, launcher: str, max_iters: int) -> dict:
    """Train, or resume, and tell where it began, where it ended and with which weights."""
    compat.init_dist(launcher)
    cfg = Config(
        dict(
            model=dict(type='ToyModel'),
            work_dir=work_dir,
            launcher=launcher,
            train_dataloader=dict(
                dataset=dict(type='ToyData'),
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=True),
            ),
            train_cfg=dict(by_epoch=False, max_iters=max_iters),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
            param_scheduler=dict(type='PolyLR', eta_min=0.0, by_epoch=False, end=10),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
            custom_hooks=[dict(type='FirstIteration')],
            randomness=dict(seed=0),
            resume=True,
        )
    )
    compat.set_cpu_model_wrapper(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    model = runner.model.module if runner.world_size > 1 else runner.model
    return dict(
        start=FirstIteration.start,
        end=runner.iter,
        world_size=runner.world_size,
        weight=model.layer.weight.tolist(),
    )
