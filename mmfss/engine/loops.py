"""Loops of validation and testing: under bfloat16, and with the novel classes watched beside."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner, TestLoop, ValLoop, autocast
from mmengine.runner.base_loop import BaseLoop
from mmseg.registry import LOOPS, OPTIM_WRAPPERS
from torch import nn
from torch.utils.data import DataLoader


def _autocast(bf16: bool) -> AbstractContextManager:
    """mmengine's autocast of evaluation takes the dtype of the one around it; alone it would take
    float16 on CUDA."""
    return torch.autocast(get_device(), dtype=torch.bfloat16) if bf16 else nullcontext()


@contextmanager
def autocast_of(loop: BaseLoop) -> Iterator[None]:
    """The autocast that a loop of validation or testing runs the model under."""
    with _autocast(getattr(loop, 'bf16', False)), autocast(enabled=getattr(loop, 'fp16', False)):
        yield


class _WithBFloat16:
    """Before a loop of mmengine among the bases.

    Args:
        runner, dataloader, evaluator, fp16: As of mmengine's loop.
        bf16: Run the model under bfloat16 autocast, on CPU and CUDA alike.

    Raises:
        ValueError: Both ``fp16`` and ``bf16``.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
        bf16: bool = False,
    ) -> None:
        if fp16 and bf16:
            raise ValueError('fp16 and bf16 of a loop cannot both be True; keep one of them')
        super().__init__(runner, dataloader, evaluator, fp16 or bf16)  # type: ignore[call-arg]
        self.bf16 = bf16

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """One batch."""
        with _autocast(self.bf16):
            super().run_iter(idx, data_batch)  # type: ignore[misc]


@LOOPS.register_module()
class EpisodeValLoop(_WithBFloat16, ValLoop):
    """mmengine's ``ValLoop``; with ``bf16=True`` under bfloat16 autocast."""


@LOOPS.register_module()
class EpisodeTestLoop(_WithBFloat16, TestLoop):
    """mmengine's ``TestLoop``; with ``bf16=True`` under bfloat16 autocast."""


@LOOPS.register_module()
class ValLoopWatchingNovel(EpisodeValLoop):
    """Validates on its own episodes, then on the novel classes, whose figures get 'novel/'.

    One training then gives both figures: that of the checkpoint chosen on held-out base classes
    (``save_best='mIoU'``) and that of the one chosen by the published rule
    (``save_best='novel/mIoU'``).

    The novel episodes and their metric are those of the config's ``test_dataloader`` and
    ``test_evaluator``.

    Args:
        runner, dataloader, evaluator, fp16: As of mmengine's ``ValLoop``.
        bf16: Run the model under bfloat16 autocast, on CPU and CUDA alike.

    Raises:
        ValueError: The config has nothing to test with.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
        bf16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16, bf16)
        test = [
            copy.deepcopy(runner.cfg.get(f'test_{part}')) for part in ('dataloader', 'evaluator')
        ]
        if None in test:
            raise ValueError(
                'ValLoopWatchingNovel watches the episodes of test_dataloader, and the config has '
                'no test_dataloader or no test_evaluator; add them, or use ValLoop'
            )
        self.watched = EpisodeValLoop(runner, test[0], test[1], fp16, bf16)

    def run(self) -> dict[str, float]:
        """One pass over both; hooks see one validation with all figures."""
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.runner.model.eval()
        metrics = _evaluate(self)
        metrics.update({f'novel/{key}': value for key, value in _evaluate(self.watched).items()})
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics


def _evaluate(loop: ValLoop) -> dict[str, float]:
    for idx, batch in enumerate(loop.dataloader):
        loop.run_iter(idx, batch)
    return loop.evaluator.evaluate(len(loop.dataloader.dataset))


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Forward passes of training under bfloat16 autocast; weights and updates stay float32.

    bfloat16 has float32's range, so there is no loss scaler, and a checkpoint can be resumed
    with or without it. mmengine's ``AmpOptimWrapper`` always has a scaler and refuses the CPU.
    Takes the arguments of :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of the forward pass."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
