"""What a resumed training takes from its checkpoint, and what from its config."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook, IterTimerHook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict, _ParamScheduler
from mmengine.runner import IterBasedTrainLoop, Runner
from mmseg.registry import HOOKS

from mmfss.checkpoints.patterns import checkpoint_folder
from mmfss.checkpoints.settings import (
    SETTINGS_KEY,
    Difference,
    check_settings,
    describe_settings,
    differences,
)
from mmfss.engine.guards import built_loops, source_of
from mmfss.engine.hooks import StopWithoutProgressHook


@HOOKS.register_module()
class ResumeHook(Hook):
    """Lets a resumed training be that of its config: mmengine would let the saved state win over
    the config without a word.

    Weights and moments of the optimizer, best figures and the count of an early stop come from the
    checkpoint. Its settings (see :mod:`mmfss.checkpoints.settings`) are compared with those of now:

    - another model, number of shots, optimizer, kind of loop or seed is refused;
    - all else is applied and said: from here on the run is what a run of this config from the start
      would be at this epoch. The schedules are stepped through anew for that, so that training
      longer, with another learning rate, batch or number of processes follows the curve of a
      fresh run.

    Files that the checkpoint names by their paths (the best one so far, which mmengine deletes when
    a better one comes) are those of this run's folder, or of none.

    Raises:
        ValueError: from ``after_load_checkpoint``, before anything reaches the model.
    """

    priority = 'HIGH'  # after FoldGuardHook and StrictLoadHook, which say more of what they refuse

    def __init__(self) -> None:
        self._passed_over = False

    def before_train(self, runner: Runner) -> None:
        """Note whether data are passed over first: where there are no epochs, mmengine does so."""
        without_epochs = isinstance(runner.train_loop, IterBasedTrainLoop)
        self._passed_over = without_epochs and runner.iter > 0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start the clock of the first iteration after that: the time to go is told from it."""
        if self._passed_over:
            self._passed_over = False
            for hook in runner.hooks:
                if isinstance(hook, IterTimerHook):
                    hook.before_train_epoch(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Record the settings; leave out of the states of schedules what is no state and could not
        be loaded safely: OneCycleLR keeps a function there."""
        checkpoint['meta'][SETTINGS_KEY] = _settings(runner, runner.seed)
        if isinstance(checkpoint.get('param_schedulers'), list):
            checkpoint['param_schedulers'] = [
                {key: value for key, value in state.items() if not callable(value)}
                for state in checkpoint['param_schedulers']
            ]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare, and change the loaded state to what the config says."""
        if 'train' not in built_loops(runner) or not runner._resume:
            return
        source = source_of(runner)
        meta = checkpoint.get('meta') or {}
        lacking = {'epoch', 'iter'} - set(meta) | {'optimizer', 'message_hub'} - set(checkpoint)
        if lacking:
            raise ValueError(
                f'{source} cannot be resumed, it lacks {sorted(lacking)}: it was not saved by '
                'tools/train.py, or is converted, or a best_*.pth. Start from it with '
                '--cfg-options load_from=PATH and no --resume'
            )
        seed = (runner.cfg.get('randomness') or {}).get('seed')
        before = meta.get(SETTINGS_KEY) or {}
        now = _settings(runner, before.get('seed') if seed is None else seed)
        found = list(differences(before, now)) if before else []
        check_settings(found, source, str(runner._load_from))
        check_optimizer(runner, checkpoint, source)
        said = [str(difference) for difference in found]
        moved = _set_iteration(runner, meta)
        self._check_length(runner, meta, source)
        if not before or moved or any(difference.of_schedule for difference in found):
            said += _apply_schedule(runner, checkpoint, source)
        said += moved
        said += own_files(runner, checkpoint['message_hub']['runtime_info'], found)
        if said:
            print_log(
                f'{source} is resumed with other settings than it was trained with, which hold '
                f'from here on (checkpoint -> now): {"; ".join(said)}',
                'current',
                logging.WARNING,
            )

    @staticmethod
    def _check_length(runner: Runner, meta: dict, source: str) -> None:
        loop = runner.train_loop
        unit = 'iter' if isinstance(loop, IterBasedTrainLoop) else 'epoch'
        done, planned = int(meta[unit]), getattr(loop, f'max_{unit}s')
        if done > planned:
            raise ValueError(
                f'{source} is of {unit} {done}, and this config ends training at {unit} {planned}: '
                f'nothing is left to train. Set train_cfg.max_{unit}s to more than {done}, or '
                'use the checkpoint as it is'
            )
        if done == planned:
            print_log(f'{source} is of the last {unit}, {done}: training is finished', 'current')


def _settings(runner: Runner, seed: int | None) -> dict[str, Any]:
    checkpoints = (runner.cfg.get('default_hooks') or {}).get('checkpoint') or {}
    stops = [hook.monitor for hook in runner.hooks if isinstance(hook, StopWithoutProgressHook)]
    best = checkpoints.get('save_best')
    others = {
        'processes': runner.world_size,
        'iterations of an epoch': len(runner.train_dataloader),
        'loop': type(runner.train_loop).__name__,
        'seed': None if seed is None else int(seed),
        'save_best': list(best) if isinstance(best, (list, tuple)) else best,
        'stop_monitors': stops,
    }
    return describe_settings(runner.cfg, others)


def check_optimizer(runner: Runner, checkpoint: dict, source: str) -> None:
    """Refuse a state that is of another optimizer, or of other groups of parameters.

    Raises:
        ValueError: with both sides.
    """
    if isinstance(runner.optim_wrapper, OptimWrapperDict):
        return
    saved = checkpoint['optimizer'].get('param_groups') or []
    fresh = runner.optim_wrapper.optimizer.state_dict()['param_groups']
    sizes = [[len(group['params']) for group in groups] for groups in (saved, fresh)]
    remedy = 'Resume with its optimizer, or start a run from its weights (load_from, no --resume)'
    if sizes[0] != sizes[1]:
        raise ValueError(
            f'{source} cannot be resumed: its optimizer has groups of {sizes[0]} parameters, that '
            f'of this config groups of {sizes[1]} (another model, or another paramwise_cfg). '
            f'{remedy}'
        )
    names = {key for group in saved for key in group}
    lacking = sorted(set(runner.optim_wrapper.optimizer.defaults) - names)
    # a newer torch may know more: where the type is recorded, it was compared already
    if lacking and SETTINGS_KEY not in checkpoint['meta']:
        kind = type(runner.optim_wrapper.optimizer).__name__
        raise ValueError(
            f'{source} cannot be resumed: its optimizer is no {kind}, it has no '
            f'{", ".join(lacking)}. {remedy}'
        )


# ---------------------------------------------------------------------------------- schedules
def _set_iteration(runner: Runner, meta: dict) -> list[str]:
    """Count the iterations of the epochs that are done as this run counts them: an epoch may have
    another number of them, and one that was begun is begun anew."""
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        return []
    iteration = int(meta['epoch']) * len(runner.train_dataloader)
    before, meta['iter'] = int(meta['iter']), iteration
    return [] if before == iteration else [f'iteration after {meta["epoch"]} epochs: '
                                           f'{before} -> {iteration}']  # fmt: skip


def _apply_schedule(runner: Runner, checkpoint: dict, source: str) -> list[str]:
    """Put into a checkpoint the values of the optimizer and the states of the schedules that a run
    of this config has at its iteration."""
    if isinstance(runner.optim_wrapper, OptimWrapperDict):
        raise ValueError(
            f'{source} cannot be resumed with another schedule or optimizer setting, which is '
            'known to work with a single optimizer only. Resume with the values of the '
            'checkpoint, or start from its weights (load_from, no --resume)'
        )
    schedulers = list(runner.param_schedulers or [])
    follows = [type(s).__name__ for s in schedulers if getattr(s, 'need_val_args', False)]
    if follows:
        raise ValueError(
            f'{source} cannot be resumed with another schedule or optimizer setting: '
            f'{", ".join(follows)} depends on the figures of all epochs so far. Resume with the '
            'values of the checkpoint, or start from its weights (load_from, no --resume)'
        )
    saved = checkpoint['optimizer']
    before = [group['lr'] for group in saved['param_groups']]
    advance = _steps(runner, schedulers)
    for _ in range(int(checkpoint['meta']['iter'])):
        next(advance)
    fresh = runner.optim_wrapper.state_dict()
    _check_not_over(runner, schedulers, advance, checkpoint['meta'], source)
    for name in ('param_groups', 'base_param_settings'):
        if name in fresh:
            saved[name] = fresh[name]
    if schedulers:
        checkpoint['param_schedulers'] = [scheduler.state_dict() for scheduler in schedulers]
    now = [group['lr'] for group in fresh['param_groups']]
    if before == now:
        return []
    return [f'learning rate at iteration {checkpoint["meta"]["iter"]}: {_numbers(before)} -> '
            f'{_numbers(now)}']  # fmt: skip


def _numbers(values: list[float]) -> str:
    distinct = list(dict.fromkeys(f'{value:.4e}' for value in values))
    return ', '.join(distinct[:3]) + ', ...' * (len(distinct) > 3)


def _steps(runner: Runner, schedulers: list[_ParamScheduler]) -> Iterator[int]:
    """Step the schedules as ParamSchedulerHook does in training; each item is an iteration that is
    done, with its epoch where it is the last one of it."""
    by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
    length, done = len(runner.train_dataloader), 0
    while True:
        done += 1
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that the optimizer has made no step
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
            if by_epoch and done % length == 0:
                for scheduler in schedulers:
                    if scheduler.by_epoch:
                        scheduler.step()
        yield done


def _check_not_over(
    runner: Runner,
    schedulers: list[_ParamScheduler],
    advance: Iterator[int],
    meta: dict,
    source: str,
) -> None:
    """Refuse a training whose learning rate is 0 for all that is left.

    The schedules are stepped on for that, as long as it is 0, and put back.
    """
    groups = runner.optim_wrapper.param_groups
    done, planned = int(meta['iter']), runner.max_iters
    states = [dict(scheduler.__dict__) for scheduler in schedulers]
    values = [dict(group) for group in groups]
    left = planned - done
    zero = left > 1
    for _ in range(left):
        if any(group['lr'] for group in groups):
            zero = False
            break
        next(advance)
    for scheduler, state in zip(schedulers, states):
        scheduler.__dict__.update(state)
    for group, value in zip(groups, values):
        group.update(value)
    if zero:
        raise ValueError(
            f'{source}: the learning rate would be 0 from iteration {done} to the end at '
            f'{planned}, and nothing would be learned: the schedules of this config end before. '
            f'Set the end of param_scheduler to the new length ({_length(runner)})'
        )


def _length(runner: Runner) -> str:
    loop = runner.train_loop
    iterations = f'end={loop.max_iters} where by_epoch=False'
    if isinstance(loop, IterBasedTrainLoop):
        return iterations
    return f'end={loop.max_epochs}, or {iterations}'


# -------------------------------------------------------------------------------------- files
def own_files(runner: Runner, info: dict[str, Any], found: list[Difference]) -> list[str]:
    """Let what a checkpoint says of files be about those of this run's folder.

    Args:
        runner: With its work dir.
        info: Runtime information of the checkpoint; changed in place.
        found: Differences between the two trainings.

    Returns:
        What is to be said.
    """
    folder = checkpoint_folder(runner.cfg, runner.work_dir)
    changed = {difference.key.split('.')[0] for difference in found}
    said = []
    if 'stop_monitors' in changed:
        info.pop('best_progress', None)
    for key in [key for key in info if key.startswith('best_ckpt')]:
        path, score = str(info[key]), key.replace('best_ckpt', 'best_score')
        mine = os.path.join(folder, os.path.basename(path))
        if os.path.isfile(mine) and 'save_best' not in changed:
            info[key] = mine
            continue
        del info[key]
        figure = info.pop(score, None)
        if 'save_best' not in changed:
            said.append(
                f'the best checkpoint so far, {os.path.basename(path)} '
                f'({figure}), is not in {folder}: the best one is chosen from here on'
            )
    if 'last_ckpt' in info:
        info['last_ckpt'] = os.path.join(folder, os.path.basename(str(info['last_ckpt'])))
    return said
