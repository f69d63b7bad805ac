"""SAM 2's attention with rotary positions, in numbers that graphs can be exported with.

sam2 rotates pairs of channels as complex numbers, which neither ONNX nor OpenVINO has. Where
``torch.export`` or ``torch.compile`` traces, the same products are written out in real ones.
Elsewhere sam2's own way stays, which is many times faster on a CPU.

Shapes: B episodes, N heads, n = h w positions of the grid, T tokens, d channels per head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor


class RotaryAttention(RoPEAttention):
    """sam2's attention with rotary positions; the same parameters and the same numbers.

    Args:
        *args, **kwargs: of :class:`sam2.modeling.sam.transformer.RoPEAttention`.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        # cos and sin of the trained grid; made here, as no complex number may come into a graph
        self.turns = torch.view_as_real(self.freqs_cis)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: int = 0) -> Tensor:
        """As upstream: (B, n, D), (B, T, M), (B, T, M) -> (B, n, D); the last
        ``num_k_exclude_rope`` keys have no place in the image."""
        if not torch.compiler.is_compiling():
            return super().forward(q, k, v, num_k_exclude_rope)
        heads = self.num_heads
        q = self.rotate(self._separate_heads(self.q_proj(q), heads))
        k = self._separate_heads(self.k_proj(k), heads)
        v = self._separate_heads(self.v_proj(v), heads)
        placed = k.shape[-2] - num_k_exclude_rope
        # frames one behind the other, each on the query's grid
        frames = k[:, :, :placed].unflatten(2, (-1, q.shape[-2]))
        k = torch.cat([self.rotate(frames).flatten(2, 3), k[:, :, placed:]], 2)
        dropout = self.dropout_p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out_proj(self._recombine_heads(out))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotary position encoding of (B, N, ..., n, d) on a square grid."""
        # R_p x: pairs of channels as complex numbers times exp(i theta p), so that
        # <R_p q, R_r k> depends on p - r alone
        if torch.compiler.is_compiling():
            turns = self.turns.to(x.device)
            if len(turns) != x.shape[-2]:
                turns = torch.view_as_real(self._of_side(x.shape[-2])).to(x.device)
            return rotated(x, turns)
        freqs = self.freqs_cis
        if freqs.shape[0] != x.shape[-2]:
            freqs = self._of_side(x.shape[-2])
        # upstream rotates q and k at once; a k without tokens lets it rotate one
        return apply_rotary_enc(x, x[:, :, :0], freqs_cis=freqs.to(x.device))[0]

    def _of_side(self, positions: int) -> Tensor:
        side = math.isqrt(positions)
        return self.compute_cis(end_x=side, end_y=side)


def rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Pairs of channels of (..., n, d), as complex numbers, times ``turns`` (n, d / 2, 2), of which
    real and imaginary part are the last axis."""
    # (a + i b) (c + i s) = (a c - b s) + i (a s + b c)
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    c, s = turns.unbind(-1)
    return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2).type_as(x)
