"""All layers of memory attention: properties, and that checkpointing changes no gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import DIM, MEM, SIZE, tiny_arch

from mmfss.encoders.sam2.memory_attention import MemoryFrames
from mmfss.encoders.sam2.model import build_sam2

GRID = SIZE // 16
N = GRID * GRID


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def memory_attention(**cfg):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_sam2(tiny_arch(), SIZE, cfg).memory_attention.eval()


def frames(number: int, batch: int = 2, seed: int = 0) -> MemoryFrames:
    shapes = ((N, MEM), (N, MEM), (4, MEM), (4, MEM))
    parts = [rand(batch, number, *shape, seed=seed + i) for i, shape in enumerate(shapes)]
    return MemoryFrames(*parts)


def attend(module, support: MemoryFrames, query: MemoryFrames, masks: torch.Tensor) -> torch.Tensor:
    curr, pos = rand(2, N, DIM, seed=20), rand(2, N, DIM, seed=21)
    return module(curr, pos, query, module.encode_support(support, masks))


def masks_of(number: int) -> torch.Tensor:
    return (rand(2, number, GRID, GRID, seed=30) > 0).float()


def permuted(x: MemoryFrames, order: torch.Tensor) -> MemoryFrames:
    return MemoryFrames(*(getattr(x, name)[:, order] for name in x.__dataclass_fields__))


@torch.no_grad()
def test_one_support_without_calibration_is_sam2s_own():
    ours = memory_attention(type='SupportCalibratedMemoryAttention', strength=0.0)
    sam2 = memory_attention(type='SAM2MemoryAttention')
    assert ours.state_dict().keys() == sam2.state_dict().keys()
    sam2.load_state_dict(ours.state_dict())
    support, query, masks = frames(1), frames(1, seed=10), masks_of(1)
    torch.testing.assert_close(
        attend(ours, support, query, masks), attend(sam2, support, query, masks)
    )


@pytest.mark.parametrize('kind', ['SupportCalibratedMemoryAttention', 'SAM2MemoryAttention'])
@torch.no_grad()
def test_order_of_supports_does_not_matter(kind):
    module = memory_attention(type=kind)
    support, query, masks = frames(5), frames(1, seed=10), masks_of(5)
    order = torch.tensor([3, 0, 4, 1, 2])
    out = attend(module, support, query, masks)
    again = attend(module, permuted(support, order), query, masks[:, order])
    torch.testing.assert_close(out, again)
    if kind == 'SupportCalibratedMemoryAttention':  # but which mask belongs to which support does
        assert (out - attend(module, support, query, masks[:, order])).abs().max() > 1e-4


@torch.no_grad()
def test_copies_of_one_support_add_pointers_alone():
    """Keys, values and prototypes of three copies are those of one; pointers come three times."""
    module = memory_attention(type='SupportCalibratedMemoryAttention')
    support, query, masks = frames(1), frames(1, seed=10), masks_of(1)
    copies, copied_masks = (
        permuted(support, torch.zeros(3, dtype=torch.long)),
        masks.repeat(1, 3, 1, 1),
    )
    for one, three in zip(
        module.encode_support(support, masks), module.encode_support(copies, copied_masks)
    ):
        torch.testing.assert_close(one.k, three.k)
        torch.testing.assert_close(one.v, three.v)
        for k in range(3):
            torch.testing.assert_close(one.prototypes[:, :, 0], three.prototypes[:, :, k])
            torch.testing.assert_close(one.pointer_k, three.pointer_k[:, :, 4 * k : 4 * k + 4])
            torch.testing.assert_close(one.pointer_v, three.pointer_v[:, 4 * k : 4 * k + 4])
        # with the pointers of one copy the whole layer agrees
        kept = dict(pointer_k=three.pointer_k[:, :, :4], pointer_v=three.pointer_v[:, :4])
        layer = module.layers[0]
        curr, pos = rand(2, N, DIM), rand(2, N, DIM, seed=1)
        torch.testing.assert_close(
            layer(curr, pos, query, one), layer(curr, pos, query, replace(three, **kept))
        )


@torch.no_grad()
def test_token_order_is_supports_query_then_pointers():
    joined = MemoryFrames.concat([frames(3), frames(1, seed=10)])
    tokens_, pos, number = joined.tokens()
    assert number == 16 and tokens_.shape == pos.shape == (2, 4 * N + 16, MEM)
    for frame in range(4):
        torch.testing.assert_close(tokens_[:, frame * N : frame * N + N], joined.spatial[:, frame])
        start = 4 * N + 4 * frame
        torch.testing.assert_close(tokens_[:, start : start + 4], joined.pointers[:, frame])
        torch.testing.assert_close(pos[:, start : start + 4], joined.pointer_pos[:, frame])


def test_calibration_without_query_memory():
    module = memory_attention(type='SupportCalibratedMemoryAttention')
    with pytest.raises(ValueError, match="none without a prompt_generator.*'SAM2MemoryAttention'"):
        attend(module, frames(1), None, masks_of(1))


@pytest.mark.parametrize('kind', ['SupportCalibratedMemoryAttention', 'SAM2MemoryAttention'])
@pytest.mark.parametrize('dropout', [0.0, 0.5])
def test_checkpointing_leaves_gradients_as_they_are(kind, dropout):
    arch = tiny_arch()
    layer = arch['memory_attention']['layer']
    layer['dropout'] = dropout
    layer['self_attention']['dropout'] = layer['cross_attention']['dropout'] = dropout
    grads = []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        module = build_sam2(arch, SIZE, dict(type=kind, checkpoint=checkpoint)).memory_attention
        ran: list[int] = []
        for layer_ in module.layers:
            layer_.register_forward_pre_hook(lambda *_, ran=ran: ran.append(1))
        torch.manual_seed(1)
        out = attend(module.train(), frames(2), frames(1, seed=10), masks_of(2))
        out.square().sum().backward()
        assert len(ran) == 2 * (1 + checkpoint)  # every layer runs once more in the backward pass
        grads.append({name: p.grad for name, p in module.named_parameters()})
        ran.clear()
        with torch.no_grad():
            attend(module, frames(2), frames(1, seed=10), masks_of(2))
        assert len(ran) == 2
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        assert torch.equal(grad, grads[1][name]), name


@torch.no_grad()
def test_parts_of_the_feed_forward_part_change_no_number(monkeypatch):
    attention = memory_attention(type='SupportCalibratedMemoryAttention')
    support, query, masks = frames(2), frames(1, seed=10), masks_of(2)
    whole = attend(attention, support, query, masks)
    monkeypatch.setattr('mmfss.methods.fssam.attention.MLP_TOKENS', N - 1)  # across the episodes
    torch.testing.assert_close(attend(attention, support, query, masks), whole)


def test_options_of_memory_attention():
    with pytest.raises(ValueError, match=r"checkpoint must be True or False, got 'yes'"):
        memory_attention(type='SAM2MemoryAttention', checkpoint='yes')
    with pytest.raises(ValueError, match=r'strength must be >= 0 \(paper: 10\), got -2'):
        memory_attention(type='SupportCalibratedMemoryAttention', strength=-2)
