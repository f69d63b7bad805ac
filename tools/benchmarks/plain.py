"""The expensive steps written down as the formulas read: what the fast ones are measured against.

All scores and all layers are materialised. With :mod:`mmfss.methods` they share parameters, the
resized position table and the MLPs of the prior encoder and nothing else, so these are also a
second opinion on its numbers.

Shapes: B episodes, K shots, n = h w positions, N heads, d channels per head, D channels of the
image features, M of the memory, P tokens per pointer, T tokens of the prior encoder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor, nn

from mmfss.encoders.sam2.memory_attention import MemoryFrames


# ------------------------------------------------------------------------------ prior encoder
def explicit_attention(attention: nn.Module, x: Tensor) -> Tensor:
    """Self-attention of (N, T, C) tokens with all T x T weights materialised."""
    heads = attention.num_heads
    q, k, v = attention.qkv(x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
    return attention.proj((weights @ v).transpose(1, 2).flatten(2))


def explicit_vit(vit: nn.Module, x: Tensor) -> list[Tensor]:
    """Tokens (N, T, C) after each block of a :class:`mmfss.encoders.dinov2.DINOv2ViT`.

    Args:
        vit: the transformer.
        x: (N, 3, H, W) normalised images.
    """
    height, width = (side // vit.patch_size for side in x.shape[-2:])
    tokens = vit.patch_embed.proj(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([vit.cls_token.expand(len(x), -1, -1), tokens], 1)
    tokens = tokens + vit.resized_pos_embed(height, width)
    if vit.num_register_tokens:
        registers = vit.register_tokens.expand(len(x), -1, -1)
        tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
    outputs = []
    for block in vit.blocks:
        attended = explicit_attention(block.attn, block.norm1(tokens))
        tokens = tokens + block.ls1.gamma * attended
        tokens = tokens + block.ls2.gamma * block.mlp(block.norm2(tokens))
        outputs.append(tokens)
    return outputs


def explicit_prior(vit: nn.Module, x: Tensor) -> Tensor:
    """The last of all layers of :func:`explicit_vit`, as (N, C, h, w)."""
    outputs = explicit_vit(vit, x)
    patches = vit.norm(outputs[-1])[:, 1 + vit.num_register_tokens :]
    height, width = (side // vit.patch_size for side in x.shape[-2:])
    return patches.transpose(1, 2).unflatten(-1, (height, width))


# ------------------------------------------------------------------------------ pure functions
def rescaled(x: Tensor, dims: tuple[int, ...] = (-2, -1)) -> Tensor:
    """``(x - min) / (max - min + 1e-7)`` over ``dims``."""
    low, high = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)
    return (x - low) / (high - low + 1e-7)


def mean_under(features: Tensor, mask: Tensor) -> Tensor:
    """Mean (..., C) of (..., C, h, w) under (..., h, w)."""
    weight = mask.unsqueeze(-3)
    return (features * weight).sum((-2, -1)) / (weight.sum((-2, -1)) + 0.0005)


def cosine(features: Tensor, vector: Tensor) -> Tensor:
    """Cosine (..., h, w) of (..., C, h, w) with (..., C)."""
    vector = vector[..., None, None]
    norms = features.norm(dim=-3) * vector.norm(dim=-3)
    return (features * vector).sum(-3) / (norms + 1e-7)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with aligned corners."""
    return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=True)


# ------------------------------------------------------------------------------ attention
@dataclass(frozen=True)
class PlainLayerSupport:
    """Keys and values (B, N, n, d), prototypes (B, N, K, d), pointers (B, N, K P, d)."""

    k: Tensor
    v: Tensor
    prototypes: Tensor
    pointer_k: Tensor
    pointer_v: Tensor


class PlainCalibratedAttention(RoPEAttention):
    """Calibrated cross-attention with all scores in one tensor.

    Args:
        strength: factor of the bias.
        *args, **kwargs: of :class:`sam2.modeling.sam.transformer.RoPEAttention`.
    """

    def __init__(self, *args: Any, strength: float = 10.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.strength = strength

    def encode_support(
        self, k: Tensor, v: Tensor, pointer_k: Tensor, pointer_v: Tensor, masks: Tensor
    ) -> PlainLayerSupport:
        """Of memories (B, K, n, M), pointers (B, K P, M) and masks (B, K, h, w)."""
        shots, (height, width) = k.shape[1], masks.shape[-2:]
        keys = self._rotate(self._heads(self.k_proj(k.flatten(0, 1)))).unflatten(0, (-1, shots))
        values = self._heads(self.v_proj(v.flatten(0, 1))).unflatten(0, (-1, shots))
        as_maps = keys.transpose(-2, -1).unflatten(-1, (height, width))
        prototypes = mean_under(as_maps, masks.unsqueeze(2).to(keys.dtype))
        return PlainLayerSupport(
            keys.mean(1),
            values.mean(1),
            prototypes.transpose(1, 2),
            self._heads(self.k_proj(pointer_k)),
            self._heads(self.v_proj(pointer_v)),
        )

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pointer_k: Tensor,
        pointer_v: Tensor,
        support: PlainLayerSupport,
    ) -> Tensor:
        """Image features (B, n, D) attend to supports, query memory and pointers; (B, n, D)."""
        q = self._rotate(self._heads(self.q_proj(q)))
        k = self._rotate(self._heads(self.k_proj(k)))
        own_k, own_v = (
            self._heads(project(x))
            for project, x in ((self.k_proj, pointer_k), (self.v_proj, pointer_v))
        )
        keys = torch.cat([support.k, k, support.pointer_k, own_k], dim=2)
        values = [support.v, self._heads(self.v_proj(v)), support.pointer_v, own_v]
        scores = q @ keys.transpose(-2, -1) / math.sqrt(q.shape[-1])
        start = support.k.shape[2]
        stop = start + k.shape[2]
        middle = scores[..., start:stop]
        middle = middle + self.bias(middle, k, support.prototypes)
        scores = torch.cat([scores[..., :start], middle, scores[..., stop:]], dim=-1)
        weights = F.dropout(scores.softmax(-1), self.dropout_p, self.training)
        return self.out_proj(self._recombine_heads(weights @ torch.cat(values, dim=2)))

    @torch.no_grad()
    def bias(self, scores: Tensor, k: Tensor, prototypes: Tensor) -> Tensor:
        """``strength * min(g + c - 1, 0)`` for scores (B, N, n, n), keys and prototypes."""
        g = rescaled(scores, (-1,))
        as_rows = k.transpose(-2, -1).unsqueeze(2).unsqueeze(-2)  # (B, N, 1, d, 1, n)
        c = rescaled(cosine(as_rows, prototypes)).squeeze(-2).mean(2).unsqueeze(-2)
        return self.strength * (g + c - 1).clamp(max=0)

    def _heads(self, x: Tensor) -> Tensor:
        return self._separate_heads(x, self.num_heads)

    def _rotate(self, x: Tensor) -> Tensor:
        side = math.isqrt(x.shape[-2])
        freqs = self.compute_cis(end_x=side, end_y=side).to(x.device)
        return apply_rotary_enc(x, x[:, :, :0], freqs_cis=freqs)[0]


class PlainCalibratedLayer(MemoryAttentionLayer):
    """sam2's layer with :class:`PlainCalibratedAttention`."""

    def _keys(self, tokens: Tensor, pos: Tensor) -> Tensor:
        return tokens + pos if self.pos_enc_at_cross_attn_keys else tokens

    def encode_support(self, frames: MemoryFrames, masks: Tensor) -> PlainLayerSupport:
        """Of memories and pointers of K supports, and their masks (B, K, h, w)."""
        pointers = frames.pointers.flatten(1, 2)
        return self.cross_attn_image.encode_support(
            self._keys(frames.spatial, frames.spatial_pos),
            frames.spatial,
            self._keys(pointers, frames.pointer_pos.flatten(1, 2)),
            pointers,
            masks,
        )

    def forward(
        self, tgt: Tensor, query_pos: Tensor, query: MemoryFrames, support: PlainLayerSupport
    ) -> Tensor:
        """Self-attention, cross-attention, MLP on (B, n, D)."""
        tgt = self._forward_sa(tgt, query_pos)
        normed, pointers = self.norm2(tgt), query.pointers[:, 0]
        attended = self.cross_attn_image(
            normed + query_pos if self.pos_enc_at_cross_attn_queries else normed,
            self._keys(query.spatial[:, 0], query.spatial_pos[:, 0]),
            query.spatial[:, 0],
            self._keys(pointers, query.pointer_pos[:, 0]),
            pointers,
            support,
        )
        tgt = tgt + self.dropout2(attended)
        hidden = self.dropout(self.activation(self.linear1(self.norm3(tgt))))
        return tgt + self.dropout3(self.linear2(hidden))


class PlainCalibratedMemoryAttention(MemoryAttention):
    """Stands in for ``SupportCalibratedMemoryAttention``; same parameters, same results."""

    @classmethod
    def retarget(cls, cfg: dict, strength: float = 10.0) -> None:
        """Point sam2's ``memory_attention`` configuration at the plain classes, in place."""
        cfg['_target_'] = f'{cls.__module__}.{cls.__name__}'
        cfg['layer']['_target_'] = f'{cls.__module__}.{PlainCalibratedLayer.__name__}'
        attention = cfg['layer']['cross_attention']
        attention['_target_'] = f'{cls.__module__}.{PlainCalibratedAttention.__name__}'
        attention['strength'] = strength

    def encode_support(self, frames: MemoryFrames, masks: Tensor) -> list[PlainLayerSupport]:
        """What each layer keeps of the supports."""
        return [layer.encode_support(frames, masks) for layer in self.layers]

    def forward(
        self,
        curr: Tensor,
        curr_pos: Tensor,
        query: MemoryFrames,
        support: list[PlainLayerSupport],
    ) -> Tensor:
        """Image features (B, n, D) after all layers."""
        out = curr + 0.1 * curr_pos if self.pos_enc_at_input else curr
        for layer, layer_support in zip(self.layers, support):
            out = layer(out, curr_pos, query, layer_support)
        return self.norm(out)
