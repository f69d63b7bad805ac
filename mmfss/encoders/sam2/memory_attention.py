"""Memory attention: SAM 2's own, and the support-calibrated one of FSSAM (section 3.4).

Both are subclasses that add no parameter, put in place of sam2's classes through the
``_target_`` entries of its configuration, and share one interface:

    state = attention.encode_support(support_frames, masks)      # once per support set
    tokens = attention.encode_query(curr, curr_pos)              # once per query image
    out = attention.attend(tokens, curr_pos, query_frames, state)  # for each class in it

Shapes: B episodes, K shots, n = h w positions of the stride-16 grid, D channels of the image
features (256), M channels of the memory (64), P = D / M tokens per object pointer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmseg.registry import MODELS
from sam2.modeling.memory_attention import MemoryAttention
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmfss.encoders.sam2.rotary import RotaryAttention


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
        # pointers last: upstream rotates all keys but the last num_pointers
        tokens = torch.cat([self.spatial.flatten(1, 2), self.pointers.flatten(1, 2)], 1)
        pos = torch.cat([self.spatial_pos.flatten(1, 2), self.pointer_pos.flatten(1, 2)], 1)
        return tokens, pos, self.pointers.shape[1] * self.pointers.shape[2]


class LayerwiseMemoryAttention(MemoryAttention):
    """sam2's memory attention, batch first, with layers that may be checkpointed.

    Args:
        checkpoint: in training keep only the input of each layer, and run it again in the backward
            pass: less memory for more time, the same gradients (dropout is repeated as it fell).
        *args, **kwargs: of :class:`sam2.modeling.memory_attention.MemoryAttention`.
    """

    def __init__(self, *args, checkpoint: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.checkpoint = checkpoint

    @classmethod
    def retarget(cls, cfg: dict, checkpoint: bool = False) -> None:
        """Point sam2's ``memory_attention`` configuration at this class, in place.

        Raises:
            ValueError: ``checkpoint`` is no bool.
        """
        if not isinstance(checkpoint, bool):
            raise ValueError(
                f'memory_attention.checkpoint must be True or False, got {checkpoint!r}'
            )
        cfg['_target_'] = f'{cls.__module__}.{cls.__name__}'
        cfg['checkpoint'] = checkpoint
        # sam2's attention, which can be exported so; a class of one's own in its place stays
        upstream, ours = (f'{c.__module__}.{c.__name__}' for c in (RoPEAttention, RotaryAttention))
        for name in ('self_attention', 'cross_attention'):
            if cfg['layer'][name]['_target_'] == upstream:
                cfg['layer'][name]['_target_'] = ours

    def forward(self, curr: Tensor, curr_pos: Tensor, query: Any, support: Any) -> Tensor:
        """Attend from ``curr`` to all memories.

        Args:
            curr, curr_pos: (B, n, D) image features of the query and their position encoding.
            query: :class:`MemoryFrames` of the query itself (F = 1), or None.
            support: of ``encode_support``.

        Returns:
            (B, n, D).
        """
        return self.attend(self.encode_query(curr, curr_pos), curr_pos, query, support)

    def encode_query(self, curr: Tensor, curr_pos: Tensor) -> Tensor:
        """What depends on no memory: here the input (B, n, D) of the first layer."""
        # x + 0.1 pos: SAM 2's constant, with which its weights were trained
        return curr + 0.1 * curr_pos if self.pos_enc_at_input else curr

    def run(self, layer: Callable, *inputs) -> Tensor:
        """Output (B, n, D) of a layer."""
        if self.checkpoint and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


@MODELS.register_module()
class SAM2MemoryAttention(LayerwiseMemoryAttention):
    """SAM 2's own memory attention over all tokens of supports and query."""

    def encode_support(self, frames: MemoryFrames, masks: Tensor) -> MemoryFrames:
        """Keep the frames; the masks (B, K, h, w) are already in the memories."""
        return frames

    def attend(
        self, tokens: Tensor, curr_pos: Tensor, query: MemoryFrames | None, support: MemoryFrames
    ) -> Tensor:
        """As :meth:`forward`, from ``tokens`` (B, n, D) of :meth:`encode_query`."""
        frames = support if query is None else MemoryFrames.concat([support, query])
        # softmax over all F n + F P tokens, so time grows with K; no bias, no mean over shots
        memory, pos, num_pointers = frames.tokens()
        for layer in self.layers:
            tokens = self.run(layer, tokens, memory, pos, curr_pos, num_pointers)
        return self.norm(tokens)


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
    # <R_p c, R_r c> = 2 strength^2 sum_i cos(theta_i (p - r)): strength^2 d at p = r
    for layer in attention.layers:
        cross = layer.cross_attn_image
        for projection in (cross.q_proj, cross.k_proj):
            torch.nn.init.constant_(projection.bias, strength)
