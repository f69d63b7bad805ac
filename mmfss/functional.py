"""Pure functions shared by the parts of FSSAM.

Shapes: B batch, C channels, H, W height and width, ``...`` any leading dimensions.
Every formula is that of the method's own constants: 1e-7 in :func:`minmax` and
:func:`cosine_map`, 0.0005 in :func:`masked_average`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

RESIZES = dict(
    bilinear=dict(interpolation='bilinear', backend='cv2'),
    pillow_bilinear=dict(interpolation='bilinear', backend='pillow'),
    pillow_bicubic=dict(interpolation='bicubic', backend='pillow'),
)
"""How a photo is brought to the side of a model, as mmcv's ``imresize`` and ``Resize`` say it;
those of Pillow look at all pixels where the photo shrinks (antialias)."""


def bfloat16(device: torch.device, on: bool) -> AbstractContextManager:
    """Autocast to bfloat16 on a device, where it is on."""
    return torch.autocast(device.type, torch.bfloat16) if on else nullcontext()


def minmax(x: Tensor, dims: tuple[int, ...] = (-2, -1), eps: float = 1e-7) -> Tensor:
    """Rescale to [0, 1) over ``dims``: ``(x - min) / (max - min + eps)``.

    Args:
        x: float tensor of any shape.
        dims: dimensions that share one minimum and maximum; the default is space.
        eps: keeps a constant map from 0 / 0.

    Returns:
        Tensor of the shape of ``x``; zeros where ``x`` is constant over ``dims``.
    """
    low = x.amin(dim=dims, keepdim=True)
    high = x.amax(dim=dims, keepdim=True)
    # minmax(x) = (x - min) / (max - min + eps); a constant map gives 0, not 0 / 0
    return (x - low) / (high - low + eps)


def masked_average(features: Tensor, mask: Tensor) -> Tensor:
    """Average ``features`` (..., C, H, W) under ``mask`` (..., H, W) in [0, 1].

    Returns:
        (..., C): ``sum(F m) / (sum(m) + 0.0005)``; about zero for an empty mask.
    """
    # gap(F, m) = sum(F m) / (sum(m) + 0.0005)   (masked average, GAP)
    if torch.compiler.is_compiling():  # ONNX has no einsum whose leading dimensions are broadcast
        total = (features.flatten(-2) @ mask.flatten(-2).unsqueeze(-1)).squeeze(-1)
    else:
        total = _product('...chw,...hw->...c', features, mask)
    return total / (mask.sum(dim=(-2, -1), dtype=_wide(mask)) + 0.0005).unsqueeze(-1)


def cosine_map(features: Tensor, vector: Tensor) -> Tensor:
    """Cosine of ``features`` (..., C, H, W) with ``vector`` (..., C) at each position.

    The leading dimensions are broadcast: (B, 1, C, H, W) with (B, K, C) are K maps of each sample,
    and nothing of K times the size of the features is made for them.

    Returns:
        (..., H, W) in [-1, 1]: ``<F, v> / (|F| |v| + 1e-7)``.
    """
    # cos(F, v) = <F, v> / (|F| |v| + 1e-7); divided last, so that no normalised copy of F is made
    if torch.compiler.is_compiling():  # see masked_average
        dot = (vector.unsqueeze(-2) @ features.flatten(-2)).squeeze(-2)
        dot = dot.unflatten(-1, features.shape[-2:])
    else:
        dot = _product('...chw,...c->...hw', features, vector)
    length = torch.linalg.vector_norm(features, dim=-3, dtype=_wide(features))
    length_of_vector = torch.linalg.vector_norm(vector, dim=-1, dtype=_wide(vector))
    return dot / (length * length_of_vector[..., None, None] + 1e-7)


def _product(terms: str, one: Tensor, other: Tensor) -> Tensor:
    """``einsum`` in float32 at least: autocast would round the sums to half precision."""
    dtype = torch.promote_types(_wide(one), _wide(other))
    with torch.autocast(one.device.type, enabled=False):
        return torch.einsum(terms, one.to(dtype), other.to(dtype))


def _wide(x: Tensor) -> torch.dtype:
    """The dtype in which ``x`` is summed: float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


def up(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize with ``align_corners=True`` of (B, C, H, W) to ``size`` = (height, width)."""
    return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=True)


def resize_mask(mask: Tensor, size: Sequence[int], mode: str = 'bilinear') -> Tensor:
    """Resize masks (B, K, H, W) to ``size``: soft with ``bilinear`` (:func:`up`) or ``nearest``."""
    if mode == 'bilinear':
        return up(mask, size)
    return F.interpolate(mask, size=tuple(size), mode='nearest')


def share_of_grid(mask: Tensor, size: Sequence[int], together: bool = False) -> Tensor:
    """Masks (B, K, H, W) soft on a grid of ``size``, as :func:`resize_mask` gives them; one that
    falls between the positions of the grid, and would be empty there, is taken by its share of each
    cell: each for itself, or ``together`` where all K of an episode do."""
    inside = resize_mask(mask, size)
    lost = inside.sum((-2, -1)) == 0
    lost = (lost.all(1, keepdim=True) if together else lost) & mask.flatten(2).any(-1)
    if torch.compiler.is_compiling() or lost.any():  # a graph has no way of its own for few images
        shares = F.adaptive_avg_pool2d(mask, (size[0], size[1]))
        inside = torch.where(lost[..., None, None], shares, inside)
    return inside


def logits_to_mask(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Decide foreground at the size of a label.

    Args:
        logits: (B, 1, S, S) mask logits.
        size: (height, width) of the label.

    Returns:
        (B, 1, height, width) uint8 in {0, 1}: ``sigmoid(up(logits)) >= 0.5``.
    """
    # M = [sigmoid(up(z)) >= 1/2]; logits are resized, not the mask: the border is interpolated
    return (up(logits.float(), size).sigmoid() >= 0.5).to(torch.uint8)
