"""What is refused, with a ValueError, before ``tools/test.py`` computes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmengine.config import Config
from mmseg.registry import HOOKS

from mmfss.checkpoints.record import check_checkpoint, recorded_meta
from mmfss.commands.preparation import episodic
from mmfss.datasets.folds import get_split
from mmfss.engine.guards import FoldGuardHook
from mmfss.files import check_writable

if TYPE_CHECKING:
    from mmfss.commands.command_lines import Request
    from mmfss.commands.evaluation_plan import Job

#: options that stand for an entry of test_dataloader.dataset
ENTRIES = {'seeds': 'seed', 'shots': 'shots', 'episodes': 'num_episodes', 'sampler': 'sampler'}
_DATASET = 'test_dataloader.dataset'


def check_arguments(request: Request) -> None:
    """Values of the options, and that none is given twice over."""
    for name, low in (('folds', 0), ('seeds', 0), ('shots', 1)):
        values = getattr(request, name)
        if values is not None and (
            not values or min(values) < low or len(set(values)) < len(values)
        ):
            raise ValueError(f'--{name} must be different integers >= {low}, got {list(values)}')
    if request.episodes is not None and request.episodes < 1:
        raise ValueError(f'--episodes must be >= 1, got {request.episodes}')
    for name, entry in ENTRIES.items():
        for key, value in request.cfg_options.items():
            inside = key.startswith(f'{_DATASET}.') and key.split('.')[-1] == entry
            if inside and getattr(request, name) is not None:
                raise ValueError(
                    f'--{name} and --cfg-options {key}={value} both set the {entry} of the test '
                    'episodes; give one of them'
                )


def check_frozen(request: Request, episodes: Mapping[str, Any]) -> None:
    """Frozen episodes are the same under every seed, unless each has a file: their deviation
    would be 0."""
    file = episodes.get('episodes_file')
    for name in ('seeds', 'sampler'):
        if name == 'seeds' and '{seed}' in str(file):
            continue
        if file is not None and getattr(request, name) is not None:
            raise ValueError(
                f'--{name} has no effect on the frozen episodes of {file}; leave it out, or set '
                '--cfg-options test_dataloader.dataset.episodes_file=None'
            )


def check_guard(cfg: Config, content: Any, path: str) -> None:
    """Refuse now what FoldGuardHook would refuse when this fold's turn comes."""
    source = f'checkpoint {path}'
    dataset = next(episodic(cfg.test_dataloader))
    meta = recorded_meta(content, source)
    split = get_split(dataset['benchmark'], dataset['fold'])
    for entry in [*cfg.default_hooks.values(), *(cfg.get('custom_hooks') or [])]:
        if not entry or entry.get('type') not in ('FoldGuardHook', FoldGuardHook):
            continue
        guard = HOOKS.build(entry)
        if meta is not None:
            arch = meta.get('arch', {})  # compared with the model when that is built
            tested = not guard.allow_trained
            check_checkpoint(meta, split, arch, False, source, dataset['split'], tested)
        elif not guard.allow_unverified:
            guard.unverified(source)


def check_outputs(request: Request, jobs: Sequence[Job]) -> None:
    """That all files can be written, and no two runs write the same."""
    files = [job.csv_file for job in jobs if job.csv_file is not None]
    if len(set(files)) < len(files):
        raise ValueError(
            f'{len(files)} runs would write their episodes to one csv_file, {files[0]}; leave it '
            'out of the config and give a folder with --csv'
        )
    for path in files:
        check_writable(path, '--csv' if request.csv else 'test_evaluator.csv_file')
    if request.base is not None:
        for suffix in ('json', 'md', 'txt'):
            check_writable(f'{request.base}.{suffix}', '--out')
