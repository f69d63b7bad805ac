"""Options about what runs encoders, in a config: ``model.encoder_runtime``."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmseg.registry import DATASETS

from mmfss.apis.images import files_below
from mmfss.commands.command_lines import RunArguments
from mmfss.commands.options import arguments_of
from mmfss.commands.preparation import episodic
from mmfss.encoders.runtimes import merged
from mmfss.files import digest_of
from mmfss.words import listed

BASE = 'base'
"""``--calibration base``: images of the training classes."""
BASE_IMAGES = 100


def set_runtime(cfg: Config, args: RunArguments) -> None:
    """Turn ``--runtime``, ``--precision`` and ``--calibration`` into ``model.encoder_runtime``.

    Photos that int8 is fitted to must show no class that a loader of the config holds out: the
    figure would be of a model that has seen them.

    Args:
        cfg: changed in place; what it has itself stays where no option says otherwise.

    Raises:
        ValueError: the model takes no runtime, options that contradict each other, photos of novel
            classes, or training classes of a config without training data.
        FileNotFoundError: no such folder.
    """
    given = args.encoder_runtime()
    kind, now = cfg.model.get('type'), cfg.model.get('encoder_runtime')
    if given is not None:
        if 'encoder_runtime' not in (arguments_of(kind) or {'encoder_runtime'}):
            raise ValueError(
                f'--runtime and --precision: {kind} has no encoder_runtime; leave them out, or '
                'use a config whose model is a few-shot method'
            )
        now = merged(now, given)
    if isinstance(now, Mapping) and now.get('calibration'):
        now = dict(now, calibration=calibration_files(cfg, now['calibration']))
    if now is not None:
        cfg.model.encoder_runtime = now


def calibration_files(cfg: Config, calibration: Any) -> list[str]:
    """The photos of a benchmark that int8 is fitted to.

    Args:
        cfg: its train_dataloader and the others are looked at.
        calibration: 'base', a folder, or files.

    Raises:
        ValueError, FileNotFoundError: see :func:`set_runtime`.
    """
    if calibration == BASE:
        found = _images_of(cfg, ('train',))
        if not found:
            raise ValueError(
                '--calibration base takes images of the training classes, and the config has no '
                'train_dataloader; give a folder of photos without a novel class'
            )
        step = max(1, len(found) // BASE_IMAGES)
        files = found[::step][:BASE_IMAGES]
    else:
        files = files_below(calibration) if isinstance(calibration, str) else calibration
    novel = _same_as(files, _images_of(cfg, ('val', 'test'), ('novel',)))
    if novel:
        raise ValueError(
            f'--calibration: {listed(novel, 3)} are among the images of novel classes that the '
            'config tests on; take a folder of others'
        )
    return [str(file) for file in files]


def _images_of(cfg: Config, loaders: Iterable[str], roles: Iterable[str] = ()) -> list[str]:
    """Images of the episodes of some loaders: those that show a class of theirs."""
    found: dict[str, None] = {}
    for name in loaders:
        for episodes in episodic(cfg.get(f'{name}_dataloader')):
            if roles and episodes.get('split', 'novel') not in roles:
                continue
            dataset = DATASETS.build(copy.deepcopy(dict(episodes)))
            found.update(dict.fromkeys(dataset.pool_files))
    return list(found)


def _same_as(files: Iterable[Any], others: Iterable[str]) -> list[str]:
    """The files that are one of the others, or a copy of one."""
    places, sizes = set(), dict[int, list[str]]()
    for other in others:
        places.add(str(Path(other).resolve()))
        sizes.setdefault(Path(other).stat().st_size, []).append(other)
    return [
        str(file)
        for file in files
        if str(Path(file).resolve()) in places
        or any(digest_of(file) == digest_of(o) for o in sizes.get(Path(file).stat().st_size, ()))
    ]
