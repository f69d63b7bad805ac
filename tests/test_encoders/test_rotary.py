"""Rotary positions in real numbers, as graphs have them, are sam2's complex ones."""

from __future__ import annotations

import pytest
import torch
from sam2.modeling.sam.transformer import RoPEAttention

from mmfss.encoders.sam2.rotary import RotaryAttention


@pytest.mark.parametrize('heads', [1, 2])
@pytest.mark.parametrize(('frames', 'pointers'), [(1, 0), (3, 4)])
@pytest.mark.parametrize('grid', [4, 5])  # the one that it is built for, and another one
def test_real_numbers_are_sam2s_attention(monkeypatch, heads, frames, pointers, grid):
    torch.manual_seed(0)
    sizes = dict(embedding_dim=32, num_heads=heads, kv_in_dim=8, feat_sizes=(4, 4))
    ours = RotaryAttention(rope_k_repeat=True, **sizes).eval()
    upstream = RoPEAttention(rope_k_repeat=True, **sizes).eval()
    upstream.load_state_dict(ours.state_dict())
    count = grid * grid
    q, k = torch.randn(2, count, 32), torch.randn(2, frames * count + pointers, 8)
    wanted = upstream(q, k, k, pointers)
    assert torch.equal(ours(q, k, k, pointers), wanted)
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    torch.testing.assert_close(ours(q, k, k, pointers), wanted, atol=1e-6, rtol=1e-5)
