"""What ``mmfss train`` does, and what it shares with ``mmfss test``: reading a config."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from contextlib import suppress

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from mmfss import compat
from mmfss.checkpoints.patterns import checkpoint_folder, latest_checkpoint
from mmfss.checkpoints.record import check_loaders
from mmfss.commands.caching import log_loaders, set_feature_cache, set_loaders
from mmfss.commands.command_lines import RunArguments, TrainArguments, parse
from mmfss.commands.options import check_options
from mmfss.commands.preparation import (
    check_start,
    episodic,
    say_left_out,
    set_amp,
    set_evaluation_amp,
    set_guards,
    set_resume,
    warn_batch_size,
    warn_schedulers,
)
from mmfss.commands.runtimes import set_runtime
from mmfss.commands.variables import (
    check_values,
    check_variables,
    options_in_environment,
    prepared_folders,
)
from mmfss.configs import find_config
from mmfss.datasets.folds import ALL_CLASSES, get_split
from mmfss.engine.guards import bare_model
from mmfss.engine.logs import ToolRunner, shorten_console
from mmfss.files import name_file


def train(argv: Sequence[str] | None = None) -> Runner:
    """:func:`run` with a command line, by default the process's."""
    return run(parse(TrainArguments, argv))


def run(args: TrainArguments) -> Runner:
    """Train.

    Returns:
        The runner after training.

    Raises:
        ValueError, FileNotFoundError: wrong arguments, config, data or checkpoint.
    """
    with options_in_environment(args):
        cfg = load_config(args, 'tools/train.py')
    if cfg.get('train_dataloader') is None or cfg.get('train_cfg') is None:
        raise ValueError(
            f'{args.config} is only for tests: it has no train_dataloader or no train_cfg. Use it '
            'with tools/test.py, and train with the config of another method or benchmark'
        )
    if args.amp:
        set_amp(cfg)
        set_evaluation_amp(cfg, 'val')
    set_resume(cfg, args.resume)
    check_start(cfg, args.config)
    with Distributed(args.launcher):
        compat.set_cpu_model_wrapper(cfg)
        runner = ToolRunner.from_cfg(cfg)
        log_loaders(cfg)
        say_left_out([cfg])
        _check_epoch(runner)
        warn_schedulers(cfg, len(runner.train_dataloader))
        warn_batch_size(cfg, runner.world_size)
        try:
            runner.train()
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(_kept(cfg)) from stop
        except OSError as error:
            name_file(error, runner.work_dir)
            raise
        runner.model = bare_model(runner)  # its wrapper holds the process group
    return runner


def _kept(cfg: Config) -> str:
    """What a training that was stopped leaves."""
    work_dir, last = cfg.work_dir, None
    with suppress(ValueError, OSError):
        last = latest_checkpoint(work_dir, checkpoint_folder(cfg, work_dir))
    if last is None:
        return f'no checkpoint is in {work_dir} yet; run the same command again'
    return f'{last} is whole; the same command with --resume goes on from there'


# ----------------------------------------------------------------------------------- config
def load_config(args: RunArguments, tool: str) -> Config:
    """Read the config, check and merge the overrides, check the fold, set the work dir.

    Args:
        args: of the command line; amp is left to the caller.
        tool: for messages.

    Raises:
        ValueError: a variable of the environment or an override is wrong, or the loaders do not
            agree.
        FileNotFoundError: no such config.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    shorten_console(MMLogger.get_current_instance())  # until the Runner makes its own
    fold = os.environ.get('FOLD')
    if fold is not None and fold != ALL_CLASSES and not fold.isdecimal():
        raise ValueError(
            f'FOLD must be the number of a fold, 0 or more, or {ALL_CLASSES}, got {fold!r}; e.g. '
            'FOLD=0'
        )
    path = find_config(args.config)
    check_values(str(path))
    cfg = Config.fromfile(path)
    options = args.cfg_options
    check_options(cfg, options, f'python {tool} {args.config}')
    cfg.merge_from_dict(options)
    cfg.launcher = args.launcher
    fold = check_folds(cfg)
    variables = check_variables(cfg)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = '_'.join([path.stem, *variables, *prepared_folders(cfg)])
        cfg.work_dir = os.path.join('work_dirs', name, f'fold{fold}')
    set_guards(cfg)
    set_feature_cache(cfg, args.feature_cache, options)
    set_runtime(cfg, args)
    set_loaders(cfg)
    # some heads of SAM 2 have no part in the loss
    cfg.setdefault('find_unused_parameters', True)
    return cfg


def check_folds(cfg: Config) -> int | str:
    """Fold of the loaders in a config, or :data:`~mmfss.datasets.folds.ALL_CLASSES`.

    Raises:
        ValueError: they do not agree among each other, or with FOLD in the environment.
    """
    loaders = {}
    for name in ('train', 'val', 'test'):
        for episodes in episodic(cfg.get(f'{name}_dataloader')):
            split = get_split(episodes['benchmark'], episodes['fold'])
            loaders[name] = (split, episodes.get('split'))
    if not loaders:
        raise ValueError(
            'no loader of the config has a dataset with benchmark and fold; mmfss trains and '
            "tests on EpisodicDataset, see configs/_base_/datasets"
        )
    check_loaders(loaders)
    fold = next(iter(loaders.values()))[0].fold
    wanted = os.environ.get('FOLD')
    if wanted is not None and str(fold) != (wanted.lstrip('0') or '0'):
        raise ValueError(
            f'FOLD={wanted} is set, but this config states fold {fold} and does not read FOLD (a '
            'config that a run has dumped holds the fold of that run). Unset FOLD, or use a '
            "config with fold = '{{$FOLD:0}}'"
        )
    return fold


def _check_epoch(runner: Runner) -> None:
    loader = runner.train_loop.dataloader
    if runner.train_loop.max_epochs < 1 or len(loader) and runner.train_loop.max_iters < 1:
        raise ValueError(
            'the config trains for no epoch or iteration; set train_cfg.max_epochs or '
            'train_cfg.max_iters to at least 1'
        )
    if len(loader) == 0:
        raise ValueError(
            'an epoch of training has no full batch; lower train_dataloader.batch_size '
            f'({loader.batch_size}), or raise train_dataloader.sampler.passes or '
            '.episodes_per_epoch'
        )


class Distributed:
    """Within, the process group is there; the one made here is closed at the end, with its threads:
    one that is still at work when Python ends would end the process with SIGABRT."""

    def __init__(self, launcher: str) -> None:
        self.launcher = launcher

    def __enter__(self) -> None:
        if self.launcher != 'none':
            compat.let_groups_end()
        compat.init_dist(self.launcher)

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        # after an error the other processes may never come to the end
        if self.launcher != 'none' and kind is None and torch.distributed.is_initialized():
            # first what holds the group: wrapped models, in cycles with their runner. Were one of
            # them the last to let go of it, it would wait for the group's threads with Python's
            # lock, which these may be waiting for; destroy_process_group waits without it
            gc.collect()
            torch.distributed.destroy_process_group()
