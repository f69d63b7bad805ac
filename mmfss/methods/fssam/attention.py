"""Support-calibrated cross-attention of FSSAM (section 3.4), without all of its scores at once.

Shapes: B episodes, K shots, n = h w positions of the stride-16 grid, D channels of the image
features (256), M channels of the memory (64), P tokens per object pointer, N heads, d channels per
head, T = 2 n + (K + 1) P tokens: support memory, query memory, pointers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from sam2.modeling.memory_attention import MemoryAttentionLayer
from torch import Tensor

from mmfss.batching import cat
from mmfss.encoders.sam2.memory_attention import LayerwiseMemoryAttention, MemoryFrames
from mmfss.encoders.sam2.rotary import RotaryAttention
from mmfss.functional import cosine_map, masked_average, minmax

MLP_TOKENS = 1024
"""At a time in the feed-forward part of a layer: the hidden layer of many would not stay in the
processor's cache."""


@dataclass(frozen=True)
class LayerSupport:
    """What one cross-attention keeps of a support set; only the pointers grow with K.

    Attributes:
        k: (B, N, n, d) rotated keys, mean over the K supports.
        v: (B, n, M) memory, mean over the K supports; ``v_proj`` comes after the attention.
        prototypes: (B, N, K, d) mean rotated key under each support's mask.
        pointer_k: (B, N, K P, d).
        pointer_v: (B, K P, M).
    """

    k: Tensor
    v: Tensor
    prototypes: Tensor
    pointer_k: Tensor
    pointer_v: Tensor


class SupportCalibratedAttention(RotaryAttention):
    """Cross-attention in which query memory that does not look like the support is turned down.

    The query's rows are taken ``rows`` at a time: their scores stay in the processor's cache and
    are calibrated in place. Memory is averaged before its projection to values, which is linear:
    M channels are summed over T tokens in the place of d.

    Args:
        strength: factor of the bias (paper: 10).
        rows: positions of the query whose scores are held at once.
        *args, **kwargs: of :class:`~mmfss.encoders.sam2.rotary.RotaryAttention`.

    Raises:
        ValueError: ``strength`` is negative, or ``rows`` below 1.
    """

    def __init__(self, *args, strength: float = 10.0, rows: int = 256, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if strength < 0:
            raise ValueError(f'strength must be >= 0, got {strength}')
        if rows < 1:
            raise ValueError(f'rows must be >= 1, got {rows}')
        self.strength = strength
        self.rows = rows

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
        # k_s = R(W_k (M_s + pos)), per shot, as each prototype is a mean of rotated keys
        keys = self.rotate(self._heads(self.k_proj(k.flatten(0, 1))))
        keys = keys.unflatten(0, (-1, shots))  # (B, K, N, n, d)
        as_maps = keys.transpose(-2, -1).unflatten(-1, (height, width))
        # p_k = gap(k_s, mask), per head and shot   (SCMA)
        prototypes = masked_average(as_maps, masks.unsqueeze(2).to(keys.dtype))
        return LayerSupport(
            # mean_K k_s and mean_K M_s: n tokens for any K
            k=keys.mean(1),
            v=v.mean(1),
            prototypes=prototypes.transpose(1, 2),
            # pointers of all shots stay; they have no place in the image and are not rotated
            pointer_k=self._heads(self.k_proj(pointer_k)),
            pointer_v=pointer_v,
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
        # q / sqrt(d) in the place of A / sqrt(d): n d numbers to scale, not n T
        q = self.rotate(self._heads(self.q_proj(q))) / math.sqrt(
            self.internal_dim // self.num_heads
        )
        k = self.rotate(self._heads(self.k_proj(k)))
        pointer_k = self._heads(self.k_proj(pointer_k))
        # tokens: [supports | query memory | pointers of the supports | pointer of the query]
        keys = torch.cat([support.k, k, support.pointer_k, pointer_k], dim=2).transpose(-2, -1)
        memory = torch.cat([support.v, v, support.pointer_v, pointer_v], dim=1)
        start = support.k.shape[2]
        own = slice(start, start + k.shape[2])  # the query memory's columns
        c = self.resemblance(k, support.prototypes)
        blocks = [self._attend(rows, keys, memory, own, c) for rows in q.split(self.rows, dim=2)]
        return self.out_proj(torch.cat(blocks, dim=1))

    def _attend(self, q: Tensor, keys: Tensor, memory: Tensor, own: slice, c: Tensor) -> Tensor:
        """Values (B, r, N d) of r rows.

        Args:
            q: (B, N, r, d) rotated and scaled.
            keys: (B, N, d, T).
            memory: (B, T, M).
            own: columns of the query memory among the T.
            c: (B, N, 1, n) of :meth:`resemblance`.
        """
        # A = q k^T / sqrt(d) over all T tokens
        scores = q @ keys
        # the detached view shares the memory: the bias is in A, and no gradient flows through it
        self.calibrate(scores.detach()[..., own], c)
        # w = dropout(softmax(A)), over supports, query memory and pointers together
        weights = F.dropout(scores.softmax(-1), self.dropout_p, self.training)
        # sum_t w_t (W_v m_t) = W_v (sum_t w_t m_t)
        read = (weights.flatten(1, 2) @ memory).unflatten(1, weights.shape[1:3])  # (B, N, r, M)
        values = self.v_proj(read)
        if self.training and self.dropout_p and self.v_proj.bias is not None:
            # the bias counts as often as the weights sum to 1, and with dropout they do not
            # sum_t w_t (W_v m_t + b) = W_v (sum_t w_t m_t) + b + (sum_t w_t - 1) b
            values = values + (weights.sum(-1, keepdim=True) - 1) * self.v_proj.bias
        # each head's channels of what that head has read
        values = values.unflatten(-1, (self.num_heads, -1))  # (B, N, r, N, d)
        return torch.cat([values[:, head, :, head] for head in range(self.num_heads)], -1)

    @torch.no_grad()
    def resemblance(self, k: Tensor, prototypes: Tensor) -> Tensor:
        """How much each query-memory token looks like the foreground of the supports.

        Args:
            k: (B, N, n, d) rotated keys of the query memory.
            prototypes: (B, N, K, d).

        Returns:
            (B, N, 1, n) in [0, 1], mean over shots, without gradient.
        """
        as_rows = k.transpose(-2, -1).unsqueeze(2).unsqueeze(-2)  # (B, N, 1, d, 1, n)
        # c = mean_K minmax(cos(k_q, p_k)) over the n positions, per head   (SCMA)
        return minmax(cosine_map(as_rows, prototypes)).mean(2)

    @torch.no_grad()
    def calibrate(self, scores: Tensor, c: Tensor) -> None:
        """Add ``strength * min(g + c - 1, 0)`` to scores, in place; a constant to autograd.

        Args:
            scores: (B, N, r, n) scaled scores of the query-memory columns; ``g`` is their
                :func:`minmax` per row.
            c: (B, N, 1, n) of :meth:`resemblance`.
        """
        # A_qq <- A_qq + strength min(g + c - 1, 0), g = minmax per row (A_qq)   (SCMA)
        # never above 0: memory that looks unlike the support is turned down, none is turned up
        bias = minmax(scores, dims=(-1,)).add_(c - 1).clamp_(max=0)
        scores.add_(bias, alpha=self.strength)

    def _heads(self, x: Tensor) -> Tensor:
        return self._separate_heads(x, self.num_heads)


class SupportCalibratedLayer(MemoryAttentionLayer):
    """A layer of memory attention with :class:`SupportCalibratedAttention` as cross-attention."""

    def _with_pos(self, tokens: Tensor, pos: Tensor) -> Tensor:
        # positions go into keys and queries, never into values
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
        self,
        tgt: Tensor,
        query_pos: Tensor,
        query: MemoryFrames,
        support: LayerSupport,
        self_attended: bool = False,
    ) -> Tensor:
        """Self-attention, calibrated cross-attention, MLP on (B, n, D), as upstream's layer.

        With ``self_attended`` the self-attention has been run on ``tgt``.
        """
        tgt = tgt if self_attended else self.self_attend(tgt, query_pos)
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
        # x <- x + attn(norm2(x)), x <- x + W_2 relu(W_1 norm3(x))
        tgt = tgt + self.dropout2(attended)
        parts = self.norm3(tgt).flatten(0, 1).split(MLP_TOKENS)
        mlp = cat([self._mlp(tokens) for tokens in parts])
        return tgt + self.dropout3(mlp.view_as(tgt))

    def self_attend(self, tgt: Tensor, query_pos: Tensor) -> Tensor:
        """The first part of a layer on (B, n, D), which reads no memory."""
        return self._forward_sa(tgt, query_pos)

    def _mlp(self, tokens: Tensor) -> Tensor:
        hidden = self.linear1(tokens)
        # in place: memory that is fresh costs as much as the function itself
        hidden = F.relu_(hidden) if self.activation is F.relu else self.activation(hidden)
        return self.linear2(self.dropout(hidden))


@MODELS.register_module()
class SupportCalibratedMemoryAttention(LayerwiseMemoryAttention):
    """SAM 2's memory attention with calibrated cross-attention (SCMA of the paper)."""

    @classmethod
    def retarget(cls, cfg: dict, checkpoint: bool = False, strength: float = 10.0) -> None:
        """Point sam2's ``memory_attention`` configuration at the calibrated classes, in place.

        Args:
            cfg: the ``memory_attention`` node of a sam2 YAML.
            checkpoint: of :class:`LayerwiseMemoryAttention`.
            strength: factor of the calibration bias (paper: 10).

        Raises:
            ValueError: ``strength`` is negative or no number.
        """
        if not isinstance(strength, (int, float)) or strength < 0:
            raise ValueError(
                f'memory_attention.strength must be >= 0 (paper: 10), got {strength!r}'
            )
        super().retarget(cfg, checkpoint)
        cfg['layer']['_target_'] = (
            f'{SupportCalibratedLayer.__module__}.{SupportCalibratedLayer.__name__}'
        )
        # self-attention stays SAM 2's: it reads no memory, so there is nothing to calibrate
        attention = cfg['layer']['cross_attention']
        kind = SupportCalibratedAttention
        attention['_target_'] = f'{kind.__module__}.{kind.__name__}'
        attention['strength'] = strength

    def encode_support(self, frames: MemoryFrames, masks: Tensor) -> list[LayerSupport]:
        """Keys, values and prototypes of the supports for each layer.

        Args:
            frames: memories of the K supports.
            masks: (B, K, h, w) support masks in {0, 1} on the memory's grid.
        """
        return [layer.encode_support(frames, masks) for layer in self.layers]

    def encode_query(self, curr: Tensor, curr_pos: Tensor) -> Tensor:
        """What depends on no memory: (B, n, D) after the self-attention of the first layer."""
        tokens = super().encode_query(curr, curr_pos)
        return self.run(self.layers[0].self_attend, tokens, curr_pos)

    def attend(
        self,
        tokens: Tensor,
        curr_pos: Tensor,
        query: MemoryFrames | None,
        support: list[LayerSupport],
    ) -> Tensor:
        """As :meth:`forward`, from ``tokens`` (B, n, D) of :meth:`encode_query`.

        Raises:
            ValueError: ``query`` is None; there is then nothing to calibrate.
        """
        if query is None:
            raise ValueError(
                'SupportCalibratedMemoryAttention calibrates the memory of the query, and '
                'there is none without a prompt_generator. Set one, or use '
                "memory_attention=dict(type='SAM2MemoryAttention')."
            )
        for index, (layer, layer_support) in enumerate(zip(self.layers, support)):
            tokens = self.run(layer, tokens, curr_pos, query, layer_support, index == 0)
        return self.norm(tokens)
