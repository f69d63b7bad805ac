"""Validation on the classes that choose the checkpoint, with the novel ones watched beside."""

from __future__ import annotations

import copy

from mmengine.evaluator import Evaluator
from mmengine.runner import Runner, ValLoop
from mmseg.registry import LOOPS
from torch.utils.data import DataLoader


@LOOPS.register_module()
class ValLoopWatchingNovel(ValLoop):
    """Validates on its own episodes, then on the novel classes, whose figures get 'novel/'.

    One training then gives both figures: that of the checkpoint chosen on held-out base classes
    (``save_best='mIoU'``) and that of the one chosen by the published rule
    (``save_best='novel/mIoU'``).

    The novel episodes and their metric are those of the config's ``test_dataloader`` and
    ``test_evaluator``.

    Args:
        runner, dataloader, evaluator, fp16: As of mmengine's ``ValLoop``.

    Raises:
        ValueError: The config has nothing to test with.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        test = [runner.cfg.get(f'test_{part}') for part in ('dataloader', 'evaluator')]
        if None in test:
            raise ValueError(
                'ValLoopWatchingNovel watches the episodes of test_dataloader, and the config has '
                'no test_dataloader or no test_evaluator; add them, or use ValLoop'
            )
        self.watched = ValLoop(runner, *copy.deepcopy(test), fp16)

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
