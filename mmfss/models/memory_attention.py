"""Memory attention: SAM 2's own, and the support-calibrated one of FSSAM (section 3.4).

Both are subclasses that add no parameter, put in place of sam2's classes through the
``_target_`` entries of its configuration, and share one interface:

    state = attention.encode_support(support_frames, masks)    # once per support set
    out = attention(curr, curr_pos, query_frames, state)       # once per query

Shapes: B episodes, K shots, n = h w positions of the stride-16 grid, D channels of the image
features (256), M channels of the memory (64), P = D / M tokens per object pointer,
N heads, d channels per head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor

from .functional import cosine_map, masked_average, minmax


@dataclass(frozen=True)
class MemoryFrames:
    """Memories of F frames of each of B episodes.

    Attributes:
        spatial: (B, F, n, M) memory features.
        spatial_pos: (B, F, n, M) their position encoding, temporal part included.
        pointers: (B, F, P, M) object pointers, split into tokens.
        pointer_pos: (B, F, P, M) their position encoding (zeros for SAM 2.0).
    """

    spatial: Tensor
    spatial_pos: Tensor
    pointers: Tensor
    pointer_pos: Tensor

    @staticmethod
    def concat(parts: list[MemoryFrames]) -> MemoryFrames:
        """Join along the frame axis."""
        return MemoryFrames(
            torch.cat([p.spatial for p in parts], 1),
            torch.cat([p.spatial_pos for p in parts], 1),
            torch.cat([p.pointers for p in parts], 1),
            torch.cat([p.pointer_pos for p in parts], 1),
        )

    def tokens(self) -> tuple[Tensor, Tensor, int]:
        """One token list: spatial tokens of all frames in order, then their pointers.

        Returns:
            tokens and positions, both (B, F n + F P, M), and the number of pointer tokens F P.
        """
        tokens = torch.cat([self.spatial.flatten(1, 2), self.pointers.flatten(1, 2)], 1)
        pos = torch.cat([self.spatial_pos.flatten(1, 2), self.pointer_pos.flatten(1, 2)], 1)
        return tokens, pos, self.pointers.shape[1] * self.pointers.shape[2]


@MODELS.register_module()
class SAM2MemoryAttention(MemoryAttention):
    """SAM 2's own memory attention over all tokens of supports and query, unchanged."""

    @classmethod
    def retarget(cls, cfg: dict) -> None:
        """Point sam2's ``memory_attention`` configuration at this class, in place."""
        cfg['_target_'] = f'{cls.__module__}.{cls.__name__}'

    def encode_support(self, frames: MemoryFrames, masks: Tensor) -> MemoryFrames:
        """Keep the frames; the masks (B, K, h, w) are already in the memories."""
        return frames

    def forward(
        self, curr: Tensor, curr_pos: Tensor, query: MemoryFrames | None, support: MemoryFrames
    ) -> Tensor:
        """Attend from ``curr`` to all memories.

        Args:
            curr, curr_pos: (B, n, D) image features of the query and their position encoding.
            query: memory of the query itself (F = 1), or None.
            support: of :meth:`encode_support`.

        Returns:
            (B, n, D).
        """
        frames = support if query is None else MemoryFrames.concat([support, query])
        tokens, pos, num_pointers = frames.tokens()
        # upstream takes sequence-first tensors
        out = super().forward(
            curr=curr.transpose(0, 1),
            curr_pos=curr_pos.transpose(0, 1),
            memory=tokens.transpose(0, 1),
            memory_pos=pos.transpose(0, 1),
            num_obj_ptr_tokens=num_pointers,
        )
        return out.transpose(0, 1)


@dataclass(frozen=True)
class LayerSupport:
    """What one cross-attention keeps of a support set; only the pointers grow with K.

    Attributes:
        k, v: (B, N, n, d) rotated keys and values, mean over the K supports.
        prototypes: (B, N, K, d) mean rotated key under each support's mask.
        pointer_k, pointer_v: (B, N, K P, d).
    """

    k: Tensor
    v: Tensor
    prototypes: Tensor
    pointer_k: Tensor
    pointer_v: Tensor


class SupportCalibratedAttention(RoPEAttention):
    """Cross-attention in which query memory that does not look like the support is turned down.

    Args:
        strength: factor of the bias (paper: 10).
        *args, **kwargs: of :class:`sam2.modeling.sam.transformer.RoPEAttention`.
    """

    def __init__(self, *args, strength: float = 10.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if strength < 0:
            raise ValueError(f'strength must be >= 0, got {strength}')
        self.strength = strength

    def encode_support(
        self, k: Tensor, v: Tensor, pointer_k: Tensor, pointer_v: Tensor, masks: Tensor
    ) -> LayerSupport:
        """Project the support memories and average them over shots.

        Args:
            k, v: (B, K, n, M) spatial memories with and without position encoding.
            pointer_k, pointer_v: (B, K P, M).
            masks: (B, K, h, w) in {0, 1}, h w = n.
        """
        shots, (height, width) = k.shape[1], masks.shape[-2:]
        keys = self._rotate(self._heads(self.k_proj(k.flatten(0, 1))))
        keys = keys.unflatten(0, (-1, shots))  # (B, K, N, n, d)
        values = self._heads(self.v_proj(v.flatten(0, 1))).unflatten(0, (-1, shots))
        as_maps = keys.transpose(-2, -1).unflatten(-1, (height, width))
        prototypes = masked_average(as_maps, masks.unsqueeze(2).to(keys.dtype))
        return LayerSupport(
            k=keys.mean(1),
            v=values.mean(1),
            prototypes=prototypes.transpose(1, 2),
            pointer_k=self._heads(self.k_proj(pointer_k)),
            pointer_v=self._heads(self.v_proj(pointer_v)),
        )

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pointer_k: Tensor,
        pointer_v: Tensor,
        support: LayerSupport,
    ) -> Tensor:
        """Attend to supports, query memory and pointers at once.

        Args:
            q: (B, n, D) image features of the query.
            k, v: (B, n, M) memory of the query with and without position encoding.
            pointer_k, pointer_v: (B, P, M) pointer of the query.
            support: of :meth:`encode_support`.

        Returns:
            (B, n, D).
        """
        q = self._rotate(self._heads(self.q_proj(q)))
        k = self._rotate(self._heads(self.k_proj(k)))
        keys = torch.cat(
            [support.k, k, support.pointer_k, self._heads(self.k_proj(pointer_k))], dim=2
        )
        values = torch.cat(
            [
                support.v,
                self._heads(self.v_proj(v)),
                support.pointer_v,
                self._heads(self.v_proj(pointer_v)),
            ],
            dim=2,
        )
        scores = q @ keys.transpose(-2, -1) / math.sqrt(q.shape[-1])
        start = support.k.shape[2]
        block = slice(start, start + k.shape[2])  # the query memory's columns
        bias = self.bias(scores[..., block], k, support.prototypes)
        scores = torch.cat(
            [scores[..., :start], scores[..., block] + bias, scores[..., block.stop :]], dim=-1
        )
        weights = F.dropout(scores.softmax(-1), self.dropout_p, self.training)
        return self.out_proj(self._recombine_heads(weights @ values))

    @torch.no_grad()
    def bias(self, scores: Tensor, k: Tensor, prototypes: Tensor) -> Tensor:
        """Calibration bias, never positive, without gradient.

        Args:
            scores: (B, N, n, n) scaled scores of the query-memory columns.
            k: (B, N, n, d) rotated keys of the query memory.
            prototypes: (B, N, K, d).

        Returns:
            (B, N, n, n): ``strength * min(g + c - 1, 0)``.
        """
        g = minmax(scores, dims=(-1,))
        as_rows = k.transpose(-2, -1).unsqueeze(2).unsqueeze(-2)  # (B, N, 1, d, 1, n)
        similarity = minmax(cosine_map(as_rows, prototypes)).squeeze(-2)  # (B, N, K, n)
        c = similarity.mean(2).unsqueeze(-2)
        return self.strength * (g + c - 1).clamp(max=0)

    def _heads(self, x: Tensor) -> Tensor:
        return self._separate_heads(x, self.num_heads)

    def _rotate(self, x: Tensor) -> Tensor:
        """Rotary position encoding of (B, N, n, d) on a square grid."""
        freqs = self.freqs_cis
        if freqs.shape[0] != x.shape[-2]:
            side = math.isqrt(x.shape[-2])
            freqs = self.compute_cis(end_x=side, end_y=side)
        return apply_rotary_enc(x, x[:, :, :0], freqs_cis=freqs.to(x.device))[0]


class SupportCalibratedLayer(MemoryAttentionLayer):
    """A layer of memory attention with :class:`SupportCalibratedAttention` as cross-attention."""

    def _with_pos(self, tokens: Tensor, pos: Tensor) -> Tensor:
        return tokens + pos if self.pos_enc_at_cross_attn_keys else tokens

    def encode_support(self, frames: MemoryFrames, masks: Tensor) -> LayerSupport:
        """See :meth:`SupportCalibratedAttention.encode_support`."""
        pointers = frames.pointers.flatten(1, 2)
        return self.cross_attn_image.encode_support(
            self._with_pos(frames.spatial, frames.spatial_pos),
            frames.spatial,
            self._with_pos(pointers, frames.pointer_pos.flatten(1, 2)),
            pointers,
            masks,
        )

    def forward(
        self, tgt: Tensor, query_pos: Tensor, query: MemoryFrames, support: LayerSupport
    ) -> Tensor:
        """Self-attention, calibrated cross-attention, MLP on (B, n, D), as upstream's layer."""
        tgt = self._forward_sa(tgt, query_pos)
        normed = self.norm2(tgt)
        pointers = query.pointers[:, 0]
        attended = self.cross_attn_image(
            q=normed + query_pos if self.pos_enc_at_cross_attn_queries else normed,
            k=self._with_pos(query.spatial[:, 0], query.spatial_pos[:, 0]),
            v=query.spatial[:, 0],
            pointer_k=self._with_pos(pointers, query.pointer_pos[:, 0]),
            pointer_v=pointers,
            support=support,
        )
        tgt = tgt + self.dropout2(attended)
        hidden = self.dropout(self.activation(self.linear1(self.norm3(tgt))))
        return tgt + self.dropout3(self.linear2(hidden))


@MODELS.register_module()
class SupportCalibratedMemoryAttention(MemoryAttention):
    """SAM 2's memory attention with calibrated cross-attention (SCMA of the paper)."""

    @classmethod
    def retarget(cls, cfg: dict, strength: float = 10.0) -> None:
        """Point sam2's ``memory_attention`` configuration at the calibrated classes, in place.

        Args:
            cfg: the ``memory_attention`` node of a sam2 YAML.
            strength: factor of the calibration bias (paper: 10).

        Raises:
            ValueError: ``strength`` is negative or no number.
        """
        if not isinstance(strength, (int, float)) or strength < 0:
            raise ValueError(
                f'memory_attention.strength must be >= 0 (paper: 10), got {strength!r}'
            )
        cfg['_target_'] = f'{cls.__module__}.{cls.__name__}'
        cfg['layer']['_target_'] = f'{cls.__module__}.{SupportCalibratedLayer.__name__}'
        attention = cfg['layer']['cross_attention']
        attention['_target_'] = f'{cls.__module__}.{SupportCalibratedAttention.__name__}'
        attention['strength'] = strength

    def encode_support(self, frames: MemoryFrames, masks: Tensor) -> list[LayerSupport]:
        """Keys, values and prototypes of the supports for each layer.

        Args:
            frames: memories of the K supports.
            masks: (B, K, h, w) support masks in {0, 1} on the memory's grid.
        """
        return [layer.encode_support(frames, masks) for layer in self.layers]

    def forward(
        self,
        curr: Tensor,
        curr_pos: Tensor,
        query: MemoryFrames | None,
        support: list[LayerSupport],
    ) -> Tensor:
        """Attend from ``curr`` (B, n, D) to supports and the query's own memory; returns (B, n, D).

        Raises:
            ValueError: ``query`` is None; there is then nothing to calibrate.
        """
        if query is None:
            raise ValueError(
                'SupportCalibratedMemoryAttention calibrates the memory of the query, and '
                'there is none without a prompt_generator. Set one, or use '
                "memory_attention=dict(type='SAM2MemoryAttention')."
            )
        out = curr + 0.1 * curr_pos if self.pos_enc_at_input else curr
        for layer, layer_support in zip(self.layers, support):
            out = layer(out, curr_pos, query, layer_support)
        return self.norm(out)


def start_at_same_place(attention: MemoryAttention, strength: float) -> None:
    """Let the cross-attention of random weights start out looking at its own place, in place.

    SAM 2 has learned from video to read its memory; from random weights this takes long, as
    attention that is spread over all tokens tells nothing of where the mask is. A rotary score of
    two constant vectors ``c`` is largest where both positions are the same, so ``q_proj`` and
    ``k_proj`` get a constant bias. Nothing in the paper; for small models trained from scratch.

    Args:
        attention: memory attention with rotary cross-attention.
        strength: the constant; 2.0 gives scores that fall from ``4 sqrt(d)`` within a cell or two.
    """
    for layer in attention.layers:
        cross = layer.cross_attn_image
        for projection in (cross.q_proj, cross.k_proj):
            torch.nn.init.constant_(projection.bias, strength)
