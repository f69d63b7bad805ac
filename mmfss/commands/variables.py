"""What configs read from the environment, beside DATA_ROOT: METHOD, BENCHMARK, SHOTS and others.

mmengine puts ``{{$NAME:default}}`` into the text of a config before it is read, so that one config
is many: ``configs/fss.py`` is every method on every benchmark. What is checked here would
otherwise go wrong silently, or with a message that names a file that nobody asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config

from mmfss.commands.command_lines import ConfigArguments
from mmfss.commands.preparation import episodic
from mmfss.configs import NAMED, check_names
from mmfss.datasets.folds import BENCHMARKS, NOVEL_IMAGES
from mmfss.encoders.sam2.archs import ARCHS

#: variables of few values
_VALUES = {
    'SAM2': ARCHS,
    'SELECTION': ('held_out', 'base', 'novel', 'both'),
    'NOVEL_IMAGES': NOVEL_IMAGES,
}


def _method(cfg: Config) -> Any:
    """A model does not say which file it is of; mmengine does, where METHOD was read."""
    return cfg.env_variables.get('METHOD') or cfg.get('model', {}).get('type')


def _benchmark(cfg: Config) -> str | None:
    """The files are named after their benchmarks, but prepared data state a folder there."""
    for episodes in episodic(cfg.get('test_dataloader')):
        name = episodes['benchmark']
        return name if name in BENCHMARKS else cfg.env_variables.get('BENCHMARK', 'prepared')
    return None


#: variable -> what a config has of it; in the order in which they are named in a work dir
_READ: dict[str, Callable[[Config], Any]] = {
    'METHOD': _method,
    'SAM2': lambda cfg: cfg.get('model', {}).get('sam2', {}).get('arch'),
    'BENCHMARK': _benchmark,
    'SHOTS': lambda cfg: next((e['shots'] for e in episodic(cfg.get('test_dataloader'))), None),
    'SELECTION': lambda cfg: cfg.get('selection'),
    'NOVEL_IMAGES': lambda cfg: cfg.get('novel_images'),
}


@contextmanager
def options_in_environment(args: ConfigArguments) -> Iterator[None]:
    """Within, METHOD, BENCHMARK and FOLD are what the options say, for configs to read; where an
    option is None they stay."""
    options = dict(METHOD=args.method, BENCHMARK=args.benchmark, FOLD=args.fold)
    given = {name: value for name, value in options.items() if value is not None}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def check_values(config: str | os.PathLike) -> None:
    """Check the variables that are set, before a config is read under them.

    Args:
        config: path of the config, see :func:`mmfss.configs.check_names`.

    Raises:
        ValueError: one has a value that is not allowed.
    """
    check_names(config)
    for name, allowed in _VALUES.items():
        value = os.environ.get(name)
        if value is not None and value not in allowed:
            raise ValueError(f'{name} must be one of {sorted(allowed)}, got {value!r}')
    shots = os.environ.get('SHOTS')
    if shots is not None and not (shots.isdecimal() and int(shots)):
        raise ValueError(f'SHOTS must be a number of supports, 1 or more, got {shots!r}')


def check_variables(cfg: Config) -> list[str]:
    """Values of the variables that are set, as they tell apart the work dirs of one config.

    Raises:
        ValueError: the config does not read one that is set.
    """
    values = []
    for name, read in _READ.items():
        value = os.environ.get(name)
        if value is None:
            continue
        has = read(cfg)
        if _canonical(name, has) != _canonical(name, value):
            raise ValueError(
                f'{name}={value} is set, but this config does not read {name} (it has '
                f'{has!r}). Unset {name}, or use a config that does; see configs/fss.py'
            )
        known = _canonical(name, value)
        labels = {
            'BENCHMARK': known.replace('_', '-'),
            'SHOTS': f'{known}shot',
            'NOVEL_IMAGES': f'novel_images_{known}',
        }
        values.append(labels.get(name, known))
    return values


def prepared_folders(cfg: Config) -> list[str]:
    """Names of the prepared datasets that a config is of: one config serves many, and each gets
    its own work dir."""
    loaders = (cfg.get(f'{name}_dataloader') for name in ('train', 'val', 'test'))
    benchmarks = {str(episodes['benchmark']) for episodes in episodic(list(loaders))}
    return sorted(
        {os.path.basename(os.path.realpath(name)) for name in benchmarks - set(BENCHMARKS)}
    )


def _canonical(name: str, value: Any) -> Any:
    """What is compared: names of files with _, SHOTS as digits."""
    if name == 'SHOTS':
        return str(value).lstrip('0')
    return str(value).replace('-', '_') if name in NAMED else value
