"""``torch.compile`` for the frozen encoders, by config: they take nearly all the time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

PARTS = {'trunk': 'sam2.image_encoder.trunk', 'prior_encoder': 'prior_encoder'}


def compile_parts(model: nn.Module, cfg: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Compile parts of a model in place; names in its state dict stay.

    They see one shape, since chunks of images are filled up, and are compiled for it. The parts
    after them see another one for each batch size and K, would be compiled for each, and take a
    twentieth of the time.

    Args:
        model: an FSSAM.
        cfg: ``parts`` out of ``PARTS``, and arguments of ``torch.compile``, e.g.
            ``dict(parts=['trunk'], mode='max-autotune')``; None compiles nothing.

    Returns:
        Names of the compiled parts.

    Raises:
        ValueError: Unknown part, none at all, or one that the model does not have.
    """
    if cfg is None:
        return ()
    parts = tuple(cfg.get('parts', ()))
    options = {key: value for key, value in cfg.items() if key != 'parts'}
    if not parts or set(parts) - set(PARTS):
        raise ValueError(f'model.compile.parts must be out of {list(PARTS)}, got {list(parts)}')
    for name in parts:
        module = model
        for step in PARTS[name].split('.'):
            module = getattr(module, step)
        if module is None:
            raise ValueError(f'model.compile.parts names {name!r}, and model.{name} is None')
        module.compile(**{'dynamic': False, **options})
    return parts


def warm_up(model: nn.Module, batch: int, shots: int) -> float:
    """Compile now what a batch needs, on noise; nothing of it is kept.

    Args:
        model: an FSSAM with compiled parts, in the mode in which it will run. In training mode the
            backward pass is compiled too.
        batch: number of episodes B.
        shots: K.

    Returns:
        Seconds that it took.
    """
    side, device = model.sam2.image_size, next(model.parameters()).device
    inputs = dict(
        query=255 * torch.rand(batch, 3, side, side, device=device),
        support=255 * torch.rand(batch, shots, 3, side, side, device=device),
        support_mask=torch.ones(batch, shots, side, side, dtype=torch.uint8, device=device),
    )
    truth = torch.ones(batch, 1, side, side, device=device)
    cache, model.encoding.cache = model.encoding.cache, None  # noise is not worth keeping
    start = time.monotonic()
    try:
        with torch.set_grad_enabled(model.training):
            query, supports = model.encode_image(inputs['query']), inputs['support'].flatten(0, 1)
            support = model.encode_support(model.encode_image(supports), inputs['support_mask'])
            logits = model.segment(query, support, truth).logits
        if model.training:
            logits.mean().backward()
            model.zero_grad(set_to_none=True)
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
    finally:
        model.encoding.cache = cache
    return time.monotonic() - start
