"""What the tools set in a config, and refuse or warn of, before the Runner is built."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmfss.checkpoints.official import need, official_in
from mmfss.checkpoints.patterns import checkpoint_folder, latest_checkpoint, need_file
from mmfss.commands.options import arguments_of
from mmfss.datasets.account import FILE, Account
from mmfss.datasets.folds import BENCHMARKS

#: hooks that every run has, under these names of default_hooks
GUARDS = {
    'fold_guard': 'FoldGuardHook',
    'strict_load': 'StrictLoadHook',
    'resuming': 'ResumeHook',
}
_AMP = 'BFloat16OptimWrapper'
#: loops of mmengine -> those of mmfss that can run under bfloat16
_LOOPS = {'ValLoop': 'EpisodeValLoop', 'TestLoop': 'EpisodeTestLoop'}
_DECAYING = ('PolyLR', 'CosineAnnealingLR')
_OF_A_RUN = re.compile(r'work_dirs/(?P<name>[^/]+)/fold(?P<fold>\d+|all)/epoch_\d+\.pth$')


def episodic(node: Any) -> Iterator[Mapping]:
    """Dataset configs that state a benchmark and a fold, wrapped or not."""
    if isinstance(node, Mapping):
        if 'benchmark' in node and 'fold' in node:
            yield node
        else:
            for entry in node.values():
                yield from episodic(entry)
    elif isinstance(node, (list, tuple)):
        for entry in node:
            yield from episodic(entry)


def set_guards(cfg: Config) -> None:
    """Add the guard hooks where the config has none.

    Raises:
        ValueError: the config switches one off, or has something else than a list of hooks.
    """
    hooks, custom = cfg.setdefault('default_hooks', {}), cfg.get('custom_hooks') or []
    if not isinstance(custom, (list, tuple)) or not all(isinstance(h, Mapping) for h in custom):
        raise ValueError(
            "custom_hooks must be a list of dicts, [dict(type='EMAHook'), ...], got "
            f'{custom!r}; in a shell: --cfg-options "custom_hooks=[dict(type=\'EMAHook\')]"'
        )
    present = {hook.get('type') for hook in custom}
    present |= {hook.get('type') for hook in hooks.values() if hook}
    for name, kind in GUARDS.items():
        if name in hooks and not hooks[name]:
            raise ValueError(
                f'default_hooks.{name} cannot be None: {kind} checks what is loaded. For '
                'checkpoints of other origin set default_hooks.fold_guard.allow_unverified=True'
            )
        if kind not in present:
            hooks[name] = dict(type=kind)


def set_amp(cfg: Config) -> None:
    """Train under bfloat16 autocast.

    Raises:
        ValueError: the config has another optimizer wrapper.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', _AMP):
        raise ValueError(
            f"--amp needs optim_wrapper.type 'OptimWrapper', got {kind!r}; leave "
            'out --amp or change the config'
        )
    cfg.optim_wrapper.type = _AMP


def set_evaluation_amp(cfg: Config, name: str) -> None:
    """Validate ('val') or test ('test') under bfloat16 autocast, if the config does it at all.

    Raises:
        ValueError: the config has a loop that cannot do so.
    """
    if cfg.get(f'{name}_dataloader') is None:
        return
    loop = cfg.get(f'{name}_cfg') or {}
    kind = loop.get('type') or f'{name.capitalize()}Loop'
    kind = _LOOPS.get(kind, kind) if isinstance(kind, str) else kind
    if 'bf16' not in (arguments_of(kind) or ()) or loop.get('fp16'):
        raise ValueError(
            f'--amp needs a loop that takes bf16 as {name}_cfg, {" or ".join(_LOOPS)} or one of '
            f'mmfss, and no fp16=True, got {dict(loop)}; leave out --amp or change the config'
        )
    cfg[f'{name}_cfg'] = dict(loop, type=kind, bf16=True)


# ------------------------------------------------------------------------------- checkpoints
def set_resume(cfg: Config, resume: str | None) -> None:
    """Turn ``--resume [CHECKPOINT]`` into the runner's load_from and resume.

    Args:
        cfg: changed in place; its own ``resume = True`` counts like the option, with the
            checkpoint ``load_from`` if there is one.
        resume: a path, 'auto' for the latest checkpoint in the work dir, None without the option.

    Raises:
        FileNotFoundError: no such checkpoint; also where the work dir notes one that it lacks.
    """
    if resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'
    cfg.resume = False
    if resume is None:
        return
    if resume == 'auto':
        resume = latest_checkpoint(cfg.work_dir, checkpoint_folder(cfg, cfg.work_dir))
        if resume is None:
            print_log(
                f'--resume: no checkpoint in {cfg.work_dir}, training starts anew',
                level=logging.WARNING,
            )
            return
    need_file(resume)
    cfg.load_from, cfg.resume = resume, True


def check_start(cfg: Config, config: str) -> None:
    """Check that the weights which training starts from are there.

    Args:
        cfg: its ``load_from`` is checked, or where it has none, the official weights of its model.
        config: path of the config; the config that makes ``load_from`` is looked for in its
            folder and the one above.

    Raises:
        FileNotFoundError: no such file; the message has the command that makes it, if it is the
            checkpoint of a config that was found, or that fetches it.
    """
    path = cfg.get('load_from')
    if path is None:
        need(official_in(cfg.get('model')))
        return
    if '://' in path or os.path.isfile(path):
        return
    remedy = 'Set load_from to a checkpoint of tools/train.py, or to None'
    found = _OF_A_RUN.search(Path(path).as_posix())
    if found:
        folder = Path(config).parent
        candidates = [base / f'{found["name"]}.py' for base in (folder, folder.parent)]
        maker = next((path for path in candidates if path.is_file()), None)
        if maker is not None:
            remedy = f'Make it with: FOLD={found["fold"]} python tools/train.py {maker}'
    raise FileNotFoundError(
        f'{config} starts training from load_from={path}, which does not exist. {remedy}'
    )


# ---------------------------------------------------------------------------------- warnings
def say_left_out(configs: Iterable[Config]) -> None:
    """Say what was left out of the prepared datasets of some configs when they were made."""
    named = {
        str(episodes['benchmark'])
        for cfg in configs
        for loader in ('train', 'val', 'test')
        for episodes in episodic(cfg.get(f'{loader}_dataloader'))
    }
    for folder in sorted(named - set(BENCHMARKS)):
        try:
            lines = Account.read(folder).table()
        except ValueError as error:  # no reason not to train
            said = f'what was left out of {folder} is not known: {error}'
            print_log(said, 'current', logging.WARNING)
            continue
        if lines:
            head, file = f'left out of {folder} when it was prepared:', os.path.join(folder, FILE)
            print_log('\n'.join([head, *lines, f'all of it: {file}']), 'current', logging.WARNING)


def warn_schedulers(cfg: Config, iterations: int) -> None:
    """Say so where the learning rate is not decayed over the training that is configured.

    Args:
        cfg: its schedules and the length of its training, in epochs or iterations alike.
        iterations: of an epoch.
    """
    loop = cfg.get('train_cfg') or {}
    by_epoch = loop.get('max_epochs') is not None
    length = loop.get('max_epochs' if by_epoch else 'max_iters')
    if length is None:
        return
    schedulers = list(_schedulers(cfg))

    def in_iterations(value: int, epochs: bool) -> int:
        return value * iterations if epochs else value

    total = in_iterations(length, by_epoch)
    for path, scheduler in schedulers:
        epochs, end = bool(scheduler.get('by_epoch', True)), scheduler.get('end')
        if scheduler.get('type') not in _DECAYING or end is None:
            continue
        stop = in_iterations(end, epochs)
        begins = [
            in_iterations(other.get('begin', 0), bool(other.get('by_epoch', True)))
            for _, other in schedulers
        ]
        if stop == total or stop < total and max(begins) >= stop:
            continue  # it ends with the training, or another one takes over
        unit = 'epoch' if epochs else 'iter'
        wanted = length if epochs == by_epoch else total if by_epoch else -(-total // iterations)
        stays = f'; it stays at {scheduler.get("eta_min", 0)} for the rest' if stop < total else ''
        print_log(
            f'{scheduler["type"]} decays the learning rate until {unit} {end}{stays}, but training '
            f'ends at {unit} {wanted}; set {path}.end={wanted} too',
            'current',
            logging.WARNING,
        )


def _schedulers(cfg: Config) -> Iterator[tuple[str, Mapping]]:
    """Path in the config and entry of each scheduler of the optimizer."""
    node = cfg.get('param_scheduler') or []
    if isinstance(node, Mapping):
        if 'type' in node:
            yield 'param_scheduler', node
    else:
        yield from ((f'param_scheduler.{i}', entry) for i, entry in enumerate(node))


def warn_batch_size(cfg: Config, world_size: int) -> None:
    """Say so where a step has another number of episodes than the learning rate is meant for.

    Args:
        cfg: ``auto_scale_lr.base_batch_size`` is the number meant; without it nothing is said,
            nor where mmengine scales the learning rate (``auto_scale_lr.enable``).
        world_size: number of processes.
    """
    meant = cfg.get('auto_scale_lr') or {}
    base, size = meant.get('base_batch_size'), cfg.train_dataloader.get('batch_size')
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    if base is None or size is None or meant.get('enable') or size * world_size * steps == base:
        return
    fits, rest = divmod(base, world_size * steps)
    remedy = f'train_dataloader.batch_size={fits}' if not rest else 'auto_scale_lr.enable=True'
    print_log(
        f'a step of training has {size * world_size * steps} episodes (batch_size {size} x '
        f'{world_size} processes{f" x {steps} accumulated" if steps > 1 else ""}), but the '
        f'learning rate is meant for {base}; set --cfg-options {remedy}',
        'current',
        logging.WARNING,
    )


# ----------------------------------------------------------------------------------- testing
def drop_training(cfg: Config, options: Mapping) -> None:
    """Leave in the config what testing reads."""
    unread = [
        key
        for key in options
        if key.startswith(('train_', 'val_', 'optim_wrapper', 'param_scheduler'))
    ]
    if unread:
        print_log(f'testing does not read {", ".join(unread)}', level=logging.WARNING)
    loops = [f'{loop}_{part}' for loop in ('train', 'val') for part in ('dataloader', 'cfg')]
    for name in (*loops, 'val_evaluator', 'optim_wrapper', 'param_scheduler'):
        cfg[name] = None
