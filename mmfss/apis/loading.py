"""From the name of a config and a checkpoint to a model that is ready to use."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from mmfss.checkpoints.record import check_arch, model_arch, recorded_meta
from mmfss.checkpoints.safe_load import load_checkpoint
from mmfss.checkpoints.weights import check_state_dict
from mmfss.configs import CONFIGS, DEFAULT_CONFIG, find_config
from mmfss.methods.fssam.model import FSSAM

DEFAULT_WEIGHTS = 'work_dirs/fss_sam2_shapes_1shot/fold0/epoch_5.pth'
"""Where ``make demo`` leaves the model of the embedded default."""
HOW_TO_GET_WEIGHTS = (
    'Train one (tools/train.py; the official weights of SAM 2 and DINOv2 are fetched at its '
    'start), or turn a checkpoint that the authors of FSSAM published into one of mmfss with '
    'tools/model_converters/fssam.py (docs/checkpoints.md). To try things out, `make demo` trains '
    f'the embedded default in minutes; it is {DEFAULT_CONFIG} with {DEFAULT_WEIGHTS}'
)


def load_model(
    config: str | os.PathLike | Config = DEFAULT_CONFIG,
    weights: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    feature_cache: str | os.PathLike | None = None,
    encode_batch: int = 1,
) -> FSSAM:
    """Build an FSSAM and load its weights, every key accounted for, without running code.

    Args:
        config: path or name of a config, or one that is loaded.
        weights: checkpoint of tools/train.py or of the converter; None takes the one that
            ``make demo`` left for the embedded default, and is an error for other configs.
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
    cfg = config if isinstance(config, Config) else Config.fromfile(find_config(config))
    if (cfg.get('model') or {}).get('type') != 'FSSAM':
        raise ValueError(
            f'{config if not isinstance(config, Config) else cfg.filename} has no model of type '
            'FSSAM; use one of configs/fss_sam2_*.py'
        )
    path = find_weights(cfg, weights)
    target = _device(device)
    model = MODELS.build(
        {**cfg.model, 'feature_cache': _cache(feature_cache), 'encode_batch': encode_batch}
    )
    checkpoint = load_checkpoint(path, map_location='cpu')
    source = f'checkpoint {path}'
    meta = recorded_meta(checkpoint, source)
    if meta is not None:
        check_arch(meta, model_arch(model), source)
    state = checkpoint.get('state_dict') if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise ValueError(
            f'{source} has no state_dict; use one that tools/train.py saved or that '
            'tools/model_converters/fssam.py made'
        )
    check_state_dict(model.state_dict(), state, f'FSSAM from {path}')
    model.load_state_dict(state)
    return model.to(target).eval()


def find_weights(cfg: Config, weights: str | os.PathLike | None = None) -> str:
    """The checkpoint that :func:`load_model` loads.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: None is given, and the config is not the embedded default.
    """
    if weights is not None:
        path = os.path.expanduser(weights)
        if not os.path.isfile(path):
            raise FileNotFoundError(f'weights {weights} not found. {HOW_TO_GET_WEIGHTS}')
        return path
    if Path(cfg.filename or '').stem != DEFAULT_CONFIG:
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


def _cache(directory: str | os.PathLike | None) -> dict | None:
    """Nothing is kept in memory: an image is asked for once in a run."""
    if directory is None:
        return None
    return dict(type='FeatureCache', directory=os.fspath(directory), memory_bytes=0)


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f'device {device!s} cannot be used here: {error}') from error
    return target
