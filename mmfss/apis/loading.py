"""From the name of a config and a checkpoint to a model that is ready to use."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from mmfss.checkpoints.record import check_arch, recorded_meta
from mmfss.checkpoints.weights import check_state_dict
from mmfss.configs import CONFIGS, DEMO_CONFIG, check_names, find_config
from mmfss.methods.base import FewShotModel, method_of
from mmfss.safe_load import load_checkpoint

DEFAULT_WEIGHTS = 'work_dirs/fss_sam2_shapes_1shot/fold0/epoch_5.pth'
"""Where ``make demo`` leaves the model of the embedded default."""
HOW_TO_GET_WEIGHTS = (
    'Train one (tools/train.py; the official weights of SAM 2 and DINOv2 are fetched at its '
    'start), or turn a checkpoint that the authors of FSSAM published into one of mmfss with '
    'tools/model_converters/fssam.py (docs/checkpoints.md). To try things out, `make demo` trains '
    f'the embedded default in minutes; it is {DEMO_CONFIG} with {DEFAULT_WEIGHTS}'
)


def load_model(
    config: str | os.PathLike | Config = DEMO_CONFIG,
    weights: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    feature_cache: str | os.PathLike | None = None,
    encode_batch: int = 1,
) -> FewShotModel:
    """Build the method of a config and load its weights, all keys accounted for, no code run.

    Args:
        config: path or name of a config, or one that is loaded.
        weights: checkpoint of tools/train.py or of the converter. None takes the one that
            ``make demo`` left for the embedded default; a method without trained parameters runs
            on its encoders' own weights; for other configs it is an error.
        device: default: the first GPU, else the CPU.
        feature_cache: folder to keep the features of images in; None keeps none. It takes the
            place of the config's, which belongs to the images of a benchmark.
        encode_batch: images that the encoders take at a time, in the place of the config's.

    Returns:
        The model in eval mode, on the device.

    Raises:
        FileNotFoundError: No such config or checkpoint; the message says how to get weights.
        ValueError: The checkpoint does not fit the model, or there is no such device.
    """
    cfg = config if isinstance(config, Config) else read_config(config)
    path = find_weights(cfg, weights)
    target = _device(device)
    cache = None
    if feature_cache is not None:  # nothing in memory: an image is asked for once in a run
        directory = os.fspath(feature_cache)
        cache = dict(type='FeatureCache', directory=directory, memory_bytes=0)
    model = MODELS.build({**cfg.model, 'feature_cache': cache, 'encode_batch': encode_batch})
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
        FileNotFoundError: It is not there.
        ValueError: The config has no few-shot method; or none is given, the method has weights that
            only a training gives, and the config is not the embedded default.
    """
    method = method_of(cfg)
    if weights is not None:
        path = os.path.expanduser(weights)
        if not os.path.isfile(path):
            raise FileNotFoundError(f'weights {weights} not found. {HOW_TO_GET_WEIGHTS}')
        return path
    if not method.needs_checkpoint:
        return None
    if Path(cfg.filename or '').stem != DEMO_CONFIG:
        raise ValueError(
            f'weights must be given for {cfg.filename}; nothing is published under a licence that '
            f'would let mmfss fetch them. {HOW_TO_GET_WEIGHTS}'
        )
    for root in (Path(), CONFIGS.parent):
        if (root / DEFAULT_WEIGHTS).is_file():
            return str(root / DEFAULT_WEIGHTS)
    raise FileNotFoundError(
        f'the embedded default has no weights yet: {DEFAULT_WEIGHTS} is not there. Run `make demo` '
        'once (it takes about ten minutes on two cores), or give config and weights of your own. '
        + HOW_TO_GET_WEIGHTS
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
