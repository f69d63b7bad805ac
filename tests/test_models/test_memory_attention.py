"""Support-calibrated memory attention: against explicit attention, and its properties."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from tiny_models import DIM, MEM, SIZE, tiny_arch

from mmfss.models.memory_attention import MemoryFrames, SupportCalibratedAttention
from mmfss.models.sam2 import build_sam2

GRID = SIZE // 16
N = GRID * GRID


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attention(kind: type = SupportCalibratedAttention, heads: int = 2, **options):
    torch.manual_seed(0)
    sizes = dict(embedding_dim=32, num_heads=heads, kv_in_dim=MEM, feat_sizes=(GRID, GRID))
    return kind(rope_k_repeat=True, **sizes, **options).eval()


def tokens(shots: int, batch: int = 2):
    """k, v, pointer_k, pointer_v of the supports and of the query, and masks."""
    support = [rand(batch, shots, N, MEM, seed=i) for i in (1, 2)]
    support += [rand(batch, 4 * shots, MEM, seed=i) for i in (3, 4)]
    query = [rand(batch, N, MEM, seed=i) for i in (5, 6)]
    query += [rand(batch, 4, MEM, seed=i) for i in (7, 8)]
    masks = (rand(batch, shots, GRID, GRID, seed=9) > 0).float()
    return support, query, masks


def heads_of(module, x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (module.num_heads, -1)).transpose(1, 2)


def rotated(module, x: torch.Tensor) -> torch.Tensor:
    return apply_rotary_enc(x, x, freqs_cis=module.freqs_cis.cpu())[0]


def explicit(module, q, support, query, masks) -> torch.Tensor:
    """The method's formulas, one episode, head and shot at a time."""
    (sk, sv, spk, spv), (qk, qv, qpk, qpv) = support, query
    batch, shots = sk.shape[:2]
    out = torch.zeros(batch, module.num_heads, N, 32 // module.num_heads)
    qs = rotated(module, heads_of(module, module.q_proj(q)))
    for b in range(batch):
        ks = [
            rotated(module, heads_of(module, module.k_proj(sk[b, i : i + 1])))[0]
            for i in range(shots)
        ]
        vs = list(heads_of(module, module.v_proj(sv[b])))
        kq = rotated(module, heads_of(module, module.k_proj(qk[b : b + 1])))[0]
        vq = heads_of(module, module.v_proj(qv[b : b + 1]))[0]
        pk = heads_of(module, module.k_proj(torch.cat([spk, qpk], 1)[b : b + 1]))[0]
        pv = heads_of(module, module.v_proj(torch.cat([spv, qpv], 1)[b : b + 1]))[0]
        for h in range(module.num_heads):
            c = torch.zeros(N)
            for i in range(shots):
                weight = masks[b, i].flatten()
                proto = (ks[i][h] * weight[:, None]).sum(0) / (weight.sum() + 0.0005)
                cos = (kq[h] @ proto) / (kq[h].norm(dim=-1) * proto.norm() + 1e-7)
                c += (cos - cos.min()) / (cos.max() - cos.min() + 1e-7) / shots
            own = qs[b, h] @ kq[h].T / math.sqrt(qs.shape[-1])
            for row in own:
                g = (row - row.min()) / (row.max() - row.min() + 1e-7)
                row += module.strength * torch.clamp(g + c - 1, max=0)
            scale = math.sqrt(qs.shape[-1])
            mean_k = sum(k[h] for k in ks) / shots
            scores = [qs[b, h] @ mean_k.T / scale, own, qs[b, h] @ pk[h].T / scale]
            values = [sum(v[h] for v in vs) / shots, vq[h], pv[h]]
            out[b, h] = torch.cat(scores, 1).softmax(-1) @ torch.cat(values)
    return module.out_proj(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize('heads', [1, 2])
@pytest.mark.parametrize('shots', [1, 3])
@torch.no_grad()
def test_is_the_explicit_attention(heads, shots):
    module = attention(heads=heads)
    q, (support, query, masks) = 3 * rand(2, N, 32), tokens(shots)
    state = module.encode_support(*support, masks)
    out = module(q, *query, state)
    torch.testing.assert_close(out, explicit(module, q, support, query, masks))
    off = attention(heads=heads, strength=0.0)
    assert (out - off(q, *query, off.encode_support(*support, masks))).abs().max() > 1e-3


@pytest.mark.parametrize('shots', [1, 5])
@torch.no_grad()
def test_bias_is_never_positive_and_of_the_query_block_alone(shots, monkeypatch):
    module = attention()
    q, (support, query, masks) = 3 * rand(2, N, 32), tokens(shots)
    state = module.encode_support(*support, masks)
    seen = {}
    original_bias, original_softmax = module.bias, torch.Tensor.softmax

    def bias(scores, k, prototypes):
        seen['bias'] = original_bias(scores, k, prototypes)
        return seen['bias']

    def softmax(scores, dim):
        seen['scores'] = scores
        return original_softmax(scores, dim)

    monkeypatch.setattr(module, 'bias', bias)
    monkeypatch.setattr(torch.Tensor, 'softmax', softmax)
    module(q, *query, state)
    with_bias = seen['scores']
    monkeypatch.setattr(module, 'bias', lambda scores, k, prototypes: torch.zeros_like(scores))
    module(q, *query, state)
    added = with_bias - seen['scores']
    assert added.shape == (2, 2, N, 2 * N + 4 * (shots + 1))  # the supports are one block for any K
    assert not added[..., :N].any() and not added[..., 2 * N :].any()
    torch.testing.assert_close(added[..., N : 2 * N], seen['bias'], atol=1e-5, rtol=0)
    assert seen['bias'].max() <= 0 and seen['bias'].min() >= -module.strength
    assert (seen['bias'] < -1).float().mean() > 0.2


@pytest.mark.parametrize('shots', [1, 3])
@torch.no_grad()
def test_strength_0_is_plain_attention_over_the_averaged_supports(shots):
    module = attention(strength=0.0)
    q, (support, query, masks) = rand(2, N, 32), tokens(shots)
    out = module(q, *query, module.encode_support(*support, masks))
    plain = attention(RoPEAttention)
    keys = [plain.k_proj(support[0]).mean(1), plain.k_proj(query[0])]
    # projections are linear and the rotation is one for all shots: average before them
    sk, sv = support[0].mean(1), support[1].mean(1)
    torch.testing.assert_close(keys[0], plain.k_proj(sk))
    k = torch.cat([sk, query[0], support[2], query[2]], 1)
    v = torch.cat([sv, query[1], support[3], query[3]], 1)
    torch.testing.assert_close(out, plain(q, k, v, num_k_exclude_rope=4 * (shots + 1)))


@torch.no_grad()
def test_bias_matches_c_and_g_by_hand():
    """One head, two query-memory tokens: one like the support and one opposite to it."""
    module = attention(heads=1)
    prototype = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    k = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).reshape(1, 1, 2, 2)
    scores = torch.tensor([[0.0, 4.0], [4.0, 0.0], [7.0, 7.0]]).reshape(1, 1, 3, 2)
    # c = (1, 0); g = rows rescaled: (0, 1), (1, 0), (0, 0)
    expected = torch.tensor([[0.0, 0.0], [0.0, -10.0], [0.0, -10.0]])
    torch.testing.assert_close(module.bias(scores, k, prototype)[0, 0], expected, atol=1e-5, rtol=0)


def test_bias_carries_no_gradient():
    module = attention()
    q, (support, query, masks) = 3 * rand(2, N, 32), tokens(2)
    state = module.encode_support(*support, masks)
    assert state.prototypes.requires_grad
    assert not module.bias(
        rand(2, 2, N, N).requires_grad_(), rand(2, 2, N, 16), state.prototypes
    ).requires_grad
    # the gradient is that of attention with the bias as a constant
    out = module(q, *query, state)
    out.square().sum().backward()
    got = module.k_proj.weight.grad.clone()
    module.zero_grad()
    constants = []
    original = module.bias

    def keep(scores, k, prototypes):
        constants.append(original(scores, k, prototypes))
        return constants[-1]

    module.bias = keep
    module(q, *query, module.encode_support(*support, masks))
    module.bias = lambda scores, k, prototypes: constants[0]
    module(q, *query, module.encode_support(*support, masks)).square().sum().backward()
    torch.testing.assert_close(got, module.k_proj.weight.grad)


@torch.no_grad()
def test_empty_masks_and_constant_memories_stay_finite():
    module = attention()
    q, (support, query, masks) = rand(2, N, 32), tokens(2)
    for s, m, qry in (
        (support, masks * 0, query),
        ([x * 0 for x in support], masks, query),
        (support, masks, [x * 0 for x in query]),
    ):
        assert torch.isfinite(module(q, *qry, module.encode_support(*s, m))).all()


def test_negative_strength():
    with pytest.raises(ValueError, match='strength must be >= 0, got -1'):
        attention(strength=-1)


# ---------------------------------------------------------------- all layers


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
            torch.testing.assert_close(one.pointer_v, three.pointer_v[:, :, 4 * k : 4 * k + 4])
        # with the pointers of one copy the whole layer agrees
        kept = dict(pointer_k=three.pointer_k[:, :, :4], pointer_v=three.pointer_v[:, :, :4])
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
