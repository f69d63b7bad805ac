"""From the name of a config and a checkpoint to a model that is ready to use."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmseg.registry import MODELS

from mmfss.checkpoints.official import local_file, need, official_in
from mmfss.checkpoints.record import check_arch, recorded_meta
from mmfss.checkpoints.weights import check_state_dict
from mmfss.configs import (
    CONFIGS,
    DEFAULT_METHOD,
    DEMO_CONFIG,
    EMBEDDED_METHOD,
    check_names,
    find_config,
    find_method,
)
from mmfss.encoders.runtimes import merged
from mmfss.methods.base import FewShotModel, method_of
from mmfss.safe_load import load_checkpoint

DEMO_WEIGHTS = 'work_dirs/fss_sam2_shapes_1shot/fold0/epoch_5.pth'
"""Where ``make demo`` leaves its model."""
HOW_TO_GET_WEIGHTS = (
    'Train one (tools/train.py), or turn a checkpoint that the authors of FSSAM published into one '
    'of mmfss with tools/model_converters/fssam.py (docs/checkpoints.md). Methods that need no '
    'training mark photos as they are: leave config and weights out, or name one with --method '
    f'(method=...). To try things out, `make demo` trains a small FSSAM in minutes: {DEMO_CONFIG}'
)


def choose_config(
    config: str | os.PathLike | None = None,
    method: str | None = None,
    weights: str | os.PathLike | None = None,
) -> Path:
    """The config that photos are marked with.

    Args:
        config: its path or name; or
        method: the name of a method, whose config has nothing but its model. Without both: METHOD
            in the environment; else :data:`mmfss.configs.DEFAULT_METHOD` where its official weights
            are there, and :data:`mmfss.configs.EMBEDDED_METHOD` where they are not. Which one it is
            is said in a line on stderr.
        weights: a checkpoint that is given with it.

    Raises:
        FileNotFoundError: no such config.
        ValueError: no such method, config and method are both given, or weights without either.
    """
    if config is not None and method is not None:
        raise ValueError(
            f'config {config} and method {method} are both given; give one of them. A config that '
            'reads METHOD from the environment, such as fss, takes it from there'
        )
    if config is not None:
        return find_config(config)
    method = method or os.environ.get('METHOD')
    if method is not None:
        return find_method(method)
    if weights is not None:
        raise ValueError(
            f'weights {weights} are given without the config of their training; give it, or the '
            f'method. Of the model of `make demo` it is {DEMO_CONFIG}'
        )
    path, note = find_method(DEFAULT_METHOD), 'no method was named, so it is'
    wanted = list(official_in(Config.fromfile(path).model))
    if all(local_file(one) for one in wanted):
        names = ' and '.join(one.name for one in wanted)
        note += f' {DEFAULT_METHOD!r}, on the official weights {names} (docs/weights.md)'
    else:
        path = find_method(EMBEDDED_METHOD)
        note += (
            f' {EMBEDDED_METHOD!r}, on a small network that needs no download: coarse (figures in '
            'docs/methods.md). Better: `mmfss weights fetch default`, once'
        )
    if is_main_process():
        print(f'note: {note}', file=sys.stderr)
    return path


def load_model(
    config: str | os.PathLike | Config,
    weights: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    feature_cache: str | os.PathLike | Mapping[str, Any] | None = None,
    encode_batch: int = 1,
    encoder_runtime: str | Mapping[str, Any] | None = None,
) -> FewShotModel:
    """Build the method of a config and load its weights, all keys accounted for, no code run.

    Args:
        config: path or name of a config, or one that is loaded.
        weights: checkpoint of tools/train.py or of the converter. None is for a method without
            trained parameters, which runs on its encoders' own weights, and for the config of
            ``make demo``, whose checkpoint is looked for; for others it is an error.
        device: default: the first GPU, else the CPU.
        feature_cache: folder to keep the features of images in, or the arguments of a
            :class:`mmfss.features.cache.FeatureCache`; None keeps none. It takes the place of the
            config's, which belongs to the images of a benchmark.
        encode_batch: images that the encoders take at a time, in the place of the config's.
        encoder_runtime: what runs the encoders on a CPU, see
            :class:`mmfss.encoders.runtimes.RuntimeSettings`; what is given takes the place of the
            config's.

    Returns:
        The model in eval mode, on the device.

    Raises:
        FileNotFoundError: No such config or checkpoint; the message says how to get weights.
        ValueError: The checkpoint does not fit the model, or there is no such device; see
            :class:`mmfss.encoders.runtimes.Runtimes`.
    """
    cfg = config if isinstance(config, Config) else read_config(config)
    path = find_weights(cfg, weights)
    target = _device(device)
    cache: dict[str, Any] | None = None
    if isinstance(feature_cache, Mapping):
        cache = dict(type='FeatureCache', **feature_cache)
    elif feature_cache is not None:  # nothing in memory: an image is asked for once in a run
        directory = os.fspath(feature_cache)
        cache = dict(type='FeatureCache', directory=directory, memory_bytes=0)
    entries = dict(feature_cache=cache, encode_batch=encode_batch)
    if encoder_runtime is not None:
        entries['encoder_runtime'] = merged(cfg.model.get('encoder_runtime'), encoder_runtime)
    model = MODELS.build({**cfg.model, **entries})
    model.encoding.runtimes.check(target)
    if path is None:
        model.init_weights()
        return model.to(target).eval()
    checkpoint = load_checkpoint(path, map_location='cpu')
    source = f'checkpoint {path}'
    meta = recorded_meta(checkpoint, source)
    if meta is not None:
        check_arch(meta, model.arch, source)
    state = checkpoint.get('state_dict') if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise ValueError(
            f'{source} has no state_dict; use one that tools/train.py saved or that '
            'tools/model_converters/fssam.py made'
        )
    state = model.completed(state, source)
    check_state_dict(model.state_dict(), state, f'{type(model).__name__} from {path}')
    model.load_state_dict(state)
    return model.to(target).eval()


def read_config(config: str | os.PathLike) -> Config:
    """A config by its path or name.

    Raises:
        FileNotFoundError, ValueError: there is none, or METHOD or BENCHMARK in the environment name
            none; see :func:`mmfss.configs.find_config`, :func:`mmfss.configs.check_names`.
    """
    path = find_config(config)
    check_names(path)
    return Config.fromfile(path)


def find_weights(cfg: Config, weights: str | os.PathLike | None = None) -> str | None:
    """The checkpoint that :func:`load_model` loads; None for a method that needs none.

    Raises:
        FileNotFoundError: It is not there; or the method needs none, and official weights that it
            needs are not there.
        ValueError: The config has no few-shot method; or none is given, the method has weights that
            only a training gives, and the config is not that of ``make demo``.
    """
    method = method_of(cfg)
    if weights is not None:
        path = os.path.expanduser(weights)
        if not os.path.isfile(path):
            raise FileNotFoundError(f'weights {weights} not found. {HOW_TO_GET_WEIGHTS}')
        return path
    if not method.needs_checkpoint:
        need(official_in(cfg.model))
        return None
    if Path(cfg.filename or '').stem != DEMO_CONFIG:
        raise ValueError(
            f'weights must be given for {cfg.filename}; nothing is published under a licence that '
            f'would let mmfss fetch them. {HOW_TO_GET_WEIGHTS}'
        )
    for root in (Path(), CONFIGS.parent):
        if (root / DEMO_WEIGHTS).is_file():
            return str(root / DEMO_WEIGHTS)
    raise FileNotFoundError(
        f'the model of `make demo` is not trained yet: {DEMO_WEIGHTS} is not there. Run it once '
        f'(it takes about ten minutes on two cores). {HOW_TO_GET_WEIGHTS}'
    )


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f'device {device!s} cannot be used here: {error}') from error
    return target
