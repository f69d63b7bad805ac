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
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor

from .functional import cosine_map, masked_average, minmax


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


class SupportCalibratedAttention(RoPEAttention):
    """Cross-attention in which query memory that does not look like the support is turned down.

    The query's rows are taken ``rows`` at a time: their scores stay in the processor's cache and
    are calibrated in place. Memory is averaged before its projection to values, which is linear:
    M channels are summed over T tokens in the place of d.

    Args:
        strength: factor of the bias (paper: 10).
        rows: positions of the query whose scores are held at once.
        *args, **kwargs: of :class:`sam2.modeling.sam.transformer.RoPEAttention`.

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
        keys = self._rotate(self._heads(self.k_proj(k.flatten(0, 1))))
        keys = keys.unflatten(0, (-1, shots))  # (B, K, N, n, d)
        as_maps = keys.transpose(-2, -1).unflatten(-1, (height, width))
        prototypes = masked_average(as_maps, masks.unsqueeze(2).to(keys.dtype))
        return LayerSupport(
            k=keys.mean(1),
            v=v.mean(1),
            prototypes=prototypes.transpose(1, 2),
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
        q = self._rotate(self._heads(self.q_proj(q))) / math.sqrt(
            self.internal_dim // self.num_heads
        )
        k = self._rotate(self._heads(self.k_proj(k)))
        pointer_k = self._heads(self.k_proj(pointer_k))
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
        scores = q @ keys
        self.calibrate(scores.detach()[..., own], c)
        weights = F.dropout(scores.softmax(-1), self.dropout_p, self.training)
        read = (weights.flatten(1, 2) @ memory).unflatten(1, weights.shape[1:3])  # (B, N, r, M)
        values = self.v_proj(read)
        if self.training and self.dropout_p and self.v_proj.bias is not None:
            # the bias counts as often as the weights sum to 1, and with dropout they do not
            values = values + (weights.sum(-1, keepdim=True) - 1) * self.v_proj.bias
        # each head's channels of what that head has read
        values = values.unflatten(-1, (self.num_heads, -1)).diagonal(dim1=1, dim2=3)
        return values.transpose(-2, -1).flatten(2)

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
        return minmax(cosine_map(as_rows, prototypes)).mean(2)

    @torch.no_grad()
    def calibrate(self, scores: Tensor, c: Tensor) -> None:
        """Add ``strength * min(g + c - 1, 0)`` to scores, in place; a constant to autograd.

        Args:
            scores: (B, N, r, n) scaled scores of the query-memory columns; ``g`` is their
                :func:`minmax` per row.
            c: (B, N, 1, n) of :meth:`resemblance`.
        """
        bias = minmax(scores, dims=(-1,)).add_(c - 1).clamp_(max=0)
        scores.add_(bias, alpha=self.strength)

    def _heads(self, x: Tensor) -> Tensor:
        return self._separate_heads(x, self.num_heads)

    def _rotate(self, x: Tensor) -> Tensor:
        """Rotary position encoding of (B, N, n, d) on a square grid."""
        freqs = self.freqs_cis
        if freqs.shape[0] != x.shape[-2]:
            side = math.isqrt(x.shape[-2])
            freqs = self.compute_cis(end_x=side, end_y=side)
        return apply_rotary_enc(x, x[:, :, :0], freqs_cis=freqs.to(x.device))[0]
