"""The parts of FSSAM that a config names: built, frozen, checked against each other and inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmfss.encoders.backbones import PriorEncoder
from mmfss.encoders.sam2.model import SAM2
from mmfss.features.images import DeferredBatch
from mmfss.functional import resize_mask
from mmfss.methods.fssam.image_encoding import frozen_stage
from mmfss.methods.fssam.prompts import PromptGenerator

TRAINABLE = (
    'image_encoder',
    'image_encoder.neck',
    'sam_mask_decoder',
    'memory_encoder',
    'memory_attention',
)
"""Modules of SAM 2 that may be trained."""


def build_part(name: str, cfg: dict | None, base: type[nn.Module]):
    """Build a part of the model.

    Args:
        name: of the entry in the config, for messages.
        cfg: None, or a dict whose type is a subclass of ``base``.
        base: the interface.

    Raises:
        ValueError: another type.
    """
    if cfg is None:
        return None
    kind = cfg.get('type')
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(cls, type) and issubclass(cls, base)):
        known = {k: v for k, v in MODELS.module_dict.items() if isinstance(v, type)}
        hint = (
            "; put a backbone of mmseg into dict(type='BackbonePriorEncoder', backbone=dict(...))"
        )
        raise ValueError(
            f'model.{name} must be None or a dict whose type is one of '
            f'{sorted(k for k, v in known.items() if issubclass(v, base))} or a registered '
            f'subclass of {base.__name__}, got {kind!r}{hint if base is PriorEncoder else ""}'
        )
    return MODELS.build(cfg)


def check_parts(
    generator: PromptGenerator | None,
    prior_encoder: PriorEncoder | None,
    memory_refinement: nn.Module | None,
    memory_attention: dict | None,
) -> None:
    """Refuse parts that need one which is not there.

    Raises:
        ValueError: a prompt generator without its encoder; refinement or calibration without the
            memory of pseudo masks.
    """
    if generator is not None and generator.needs_prior and prior_encoder is None:
        raise ValueError(
            f'{type(generator).__name__} needs a prior_encoder, and it is None. Set '
            "prior_encoder=dict(type='DINOv2') or dict(type='SAM2PriorEncoder')."
        )
    if generator is not None:
        return
    kind = (memory_attention or {}).get('type')
    idle = {
        'memory_refinement': memory_refinement is not None,
        'memory_attention': kind == 'SupportCalibratedMemoryAttention',
    }
    for name in (name for name, is_set in idle.items() if is_set):
        raise ValueError(
            f'{name} works on the memory of the pseudo masks, and there is none without a '
            f'prompt_generator. Set {name}=None too, or a prompt_generator.'
        )


def freeze(model: nn.Module, sam2: SAM2, trainable: Sequence[str]) -> None:
    """Let only the ``trainable`` modules of SAM 2 learn, of all of ``model``.

    Raises:
        ValueError: one that is not out of ``TRAINABLE``.
    """
    unknown = sorted(set(trainable) - set(TRAINABLE))
    if unknown:
        raise ValueError(f'trainable must be out of {list(TRAINABLE)}, got {unknown}')
    model.requires_grad_(False)
    for name in trainable:
        sam2.get_submodule(name).requires_grad_(True)
    for conv in (sam2.sam_mask_decoder.conv_s0, sam2.sam_mask_decoder.conv_s1):
        conv.requires_grad_(frozen_stage(trainable) != 'neck')


def check_size(inputs: Mapping[str, Any], side: int) -> None:
    """Refuse pixels of episodes that are not ``side`` x ``side``.

    Raises:
        ValueError: they are not.
    """
    for name in ('query', 'support', 'support_mask'):
        if isinstance(inputs[name], DeferredBatch):
            continue  # checked when they are read
        if tuple(inputs[name].shape[-2:]) != (side, side):
            raise ValueError(
                f'{name} is {tuple(inputs[name].shape[-2:])} pixels, but the model takes '
                f'{(side, side)} (model.sam2.image_size). Resize in the pipelines, or set '
                'model.sam2.image_size.'
            )


def truth_for(
    generator: PromptGenerator | None,
    data_samples: Sequence[SegDataSample] | None,
    like: Tensor,
    side: int,
) -> Tensor | None:
    """True masks (B, 1, S, S) in {0, 1} on the device of ``like``, S = ``side``, for a generator
    that needs them; None for others, and where a sample has no label."""
    if generator is None or not generator.needs_truth or not data_samples:
        return None
    if any('gt_sem_seg' not in sample for sample in data_samples):
        return None
    labels = [(s.gt_sem_seg.data[None] == 1).float().to(like.device) for s in data_samples]
    return torch.cat([resize_mask(label, (side, side), mode='nearest') for label in labels])
