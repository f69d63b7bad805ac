"""Hooks: repeatable noise, early stop, warm-up of compiled models."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner
from mmseg.registry import HOOKS
from torch.utils.data import DataLoader

from mmfss.engine.guards import bare_model, built_loops
from mmfss.engine.loops import autocast_of


@HOOKS.register_module()
class RepeatableNoiseHook(Hook):
    """Dropout of training iteration i depends on (seed, i, rank) alone.

    Checkpoints of mmengine do not hold the state of the random generators; with this hook a
    resumed run equals the uninterrupted one all the same.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed torch's generators of all devices."""
        key = np.random.SeedSequence([runner.seed, runner.iter, get_rank()])
        torch.manual_seed(int(key.generate_state(1)[0]))


@HOOKS.register_module()
class StopWithoutProgressHook(Hook):
    """Ends training when a metric has had no new best value for some epochs.

    Unlike mmengine's ``EarlyStoppingHook`` it keeps its state in checkpoints, so that resuming
    does not start the count anew, and does nothing in testing.

    Args:
        monitor: metric to watch; greater is better.
        patience: epochs since the best value after which training ends, >= 1.

    Raises:
        ValueError: patience below 1; a training loop without epochs; at validation, no such
            metric.
    """

    priority = 'LOW'  # before CheckpointHook, which then stores the state of this validation

    def __init__(self, monitor: str = 'mIoU', patience: int = 100) -> None:
        if patience < 1:
            raise ValueError(f'patience must be at least 1 epoch, got {patience!r}')
        self.monitor, self.patience = monitor, patience

    def before_train(self, runner: Runner) -> None:
        """Check that there are epochs to count."""
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(
                'StopWithoutProgressHook counts epochs, and IterBasedTrainLoop has none; use '
                "EpochBasedTrainLoop, or mmengine's EarlyStoppingHook"
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Compare with the best value so far."""
        if 'train' not in built_loops(runner):
            return
        if self.monitor not in (metrics or {}):
            raise ValueError(
                f'StopWithoutProgressHook watches {self.monitor!r}, but validation gave '
                f'{sorted(metrics or {})}'
            )
        hub, epoch, value = runner.message_hub, runner.epoch, float(metrics[self.monitor])
        best, best_epoch = hub.get_info('best_progress') or (float('-inf'), epoch)
        if value > best:
            hub.update_info('best_progress', [value, epoch])
        elif epoch - best_epoch >= self.patience:
            runner.train_loop.stop_training = True
            print_log(
                f'no {self.monitor} above {best:.2f} (epoch {best_epoch}) for '
                f'{epoch - best_epoch} epochs: training ends at epoch {epoch}',
                'current',
            )


@HOOKS.register_module()
class WarmUpHook(Hook):
    """Compiles the parts of the model that ``model.compile`` names before the first batch, on
    noise, and says how long it took. Without it the first batches would be slow silently."""

    def __init__(self) -> None:
        self._done: set[tuple[bool, int, int]] = set()

    def before_train(self, runner: Runner) -> None:
        """Compile forward and backward pass."""
        runner.model.train()
        context = runner.optim_wrapper.optim_context(runner.model)
        self._warm_up(runner, runner.train_dataloader, context, training=True)

    def before_val(self, runner: Runner) -> None:
        """Compile the forward pass."""
        self._warm_up(runner, runner.val_dataloader, autocast_of(runner.val_loop))

    def before_test(self, runner: Runner) -> None:
        """Compile the forward pass."""
        self._warm_up(runner, runner.test_dataloader, autocast_of(runner.test_loop))

    def _warm_up(
        self,
        runner: Runner,
        loader: DataLoader,
        context: AbstractContextManager,
        training: bool = False,
    ) -> None:
        model = bare_model(runner)
        if not model.encoding.compiled:
            return
        shape = (training, loader.batch_size or 1, getattr(loader.dataset, 'shots', 1))
        if shape in self._done:
            return
        self._done.add(shape)
        before = model.training
        model.train(training)
        with context:
            seconds = model.warm_up(*shape[1:])
        model.train(before)
        print_log(
            f'compiled {", ".join(model.encoding.compiled)} for '
            f'{"training" if training else "evaluation"}: {seconds:.1f} s of warm-up',
            'current',
        )
