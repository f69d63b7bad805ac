"""Support-calibrated memory attention: against explicit attention, and its properties."""

from __future__ import annotations

import math

import pytest
import torch
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from tiny_models import MEM, SIZE

from mmfss.methods.fssam.attention import SupportCalibratedAttention

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
    seen = []
    original = torch.Tensor.softmax

    def softmax(scores, dim):
        seen.append(scores.clone())
        return original(scores, dim)

    monkeypatch.setattr(torch.Tensor, 'softmax', softmax)
    module(q, *query, state)
    monkeypatch.setattr(module, 'strength', 0.0)
    module(q, *query, state)
    added = seen[0] - seen[1]
    assert added.shape == (2, 2, N, 2 * N + 4 * (shots + 1))  # the supports are one block for any K
    assert not added[..., :N].any() and not added[..., 2 * N :].any()
    bias = added[..., N : 2 * N]
    assert bias.max() <= 0 and bias.min() >= -10
    assert (bias < -1).float().mean() > 0.2


@pytest.mark.parametrize('heads', [1, 2])
@pytest.mark.parametrize('shots', [1, 3])
@torch.no_grad()
def test_number_of_rows_at_once_and_batch_change_nothing(heads, shots):
    whole = attention(heads=heads, rows=1000)
    q, (support, query, masks) = 3 * rand(2, N, 32), tokens(shots)
    want = whole(q, *query, whole.encode_support(*support, masks))
    for rows in (1, 5, N):
        module = attention(heads=heads, rows=rows)
        out = module(q, *query, module.encode_support(*support, masks))
        torch.testing.assert_close(out, want)
        one = module.encode_support(*(x[:1] for x in support), masks[:1])
        torch.testing.assert_close(module(q[:1], *(x[:1] for x in query), one), want[:1])


@pytest.mark.parametrize('heads', [1, 2])
def test_dropout_is_that_of_weights_on_projected_values(heads, monkeypatch):
    """The projection comes after the weighted sum, also where weights do not sum to 1."""
    module = attention(heads=heads, dropout=0.5).train()
    q, (support, query, masks) = rand(2, N, 32), tokens(2)
    state = module.encode_support(*support, masks)
    kept = []
    original = torch.nn.functional.dropout

    def dropout(weights, p, training):
        kept.append(original(weights, p, training))
        return kept[-1]

    monkeypatch.setattr('mmfss.methods.fssam.attention.F.dropout', dropout)
    out = module(q, *query, state)
    assert 0.3 < (kept[0] == 0).float().mean() < 0.7
    memory = torch.cat([state.v, query[1], state.pointer_v, query[3]], 1)
    read = kept[0] @ heads_of(module, module.v_proj(memory))
    torch.testing.assert_close(out, module.out_proj(read.transpose(1, 2).flatten(2)))


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
    c = module.resemblance(k, prototype)
    torch.testing.assert_close(c, torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2), atol=1e-6, rtol=0)
    scores = torch.tensor([[0.0, 4.0], [4.0, 0.0], [7.0, 7.0]]).reshape(1, 1, 3, 2)
    # g = rows rescaled: (0, 1), (1, 0), (0, 0)
    bias = torch.tensor([[0.0, 0.0], [0.0, -10.0], [0.0, -10.0]])
    calibrated = scores.clone()
    module.calibrate(calibrated, c)
    torch.testing.assert_close(calibrated[0, 0] - scores[0, 0], bias, atol=1e-5, rtol=0)


@pytest.mark.parametrize('rows', [5, 256])
def test_bias_carries_no_gradient(rows, monkeypatch):
    """The gradient is that of attention with the bias as a constant."""
    module = attention(rows=rows)
    q, (support, query, masks) = 3 * rand(2, N, 32), tokens(2)
    state = module.encode_support(*support, masks)
    assert state.prototypes.requires_grad
    module(q, *query, state).square().sum().backward()
    got = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    q_heads = rotated(module, heads_of(module, module.q_proj(q))) / 4
    k_heads = rotated(module, heads_of(module, module.k_proj(query[0])))
    own = (q_heads @ k_heads.transpose(-2, -1)).detach()
    calibrated = own.clone()
    module.calibrate(calibrated, module.resemblance(k_heads, state.prototypes).detach())
    bias = torch.nn.functional.pad(calibrated - own, (N, 12))
    state = module.encode_support(*support, masks)
    keys = torch.cat(
        [state.k, k_heads, state.pointer_k, heads_of(module, module.k_proj(query[2]))], 2
    )
    values = torch.cat([state.v, query[1], state.pointer_v, query[3]], 1)
    weights = (q_heads @ keys.transpose(-2, -1) + bias).softmax(-1)
    out = weights @ heads_of(module, module.v_proj(values))
    module.out_proj(out.transpose(1, 2).flatten(2)).square().sum().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize(('dtype', 'apart'), [(torch.bfloat16, 0.03), (torch.float16, 0.005)])
def test_half_precision_by_autocast_rounds_and_no_more(dtype, apart, bias):
    results = []
    for enabled in (False, True):
        module = attention(rows=5)
        module.v_proj.bias = module.v_proj.bias if bias else None
        q, (support, query, masks) = (3 * rand(2, N, 32)).requires_grad_(), tokens(3)
        with torch.autocast('cpu', dtype, enabled=enabled):
            out = module(q, *query, module.encode_support(*support, masks))
        out.float().square().sum().backward()
        results.append((out.detach().float(), q.grad, module.q_proj.weight.grad))
    for wide, half in zip(*results):
        assert (half - wide).abs().max() < apart * wide.abs().max()


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


def test_negative_strength_and_no_rows():
    with pytest.raises(ValueError, match='strength must be >= 0, got -1'):
        attention(strength=-1)
    with pytest.raises(ValueError, match='rows must be >= 1, got 0'):
        attention(rows=0)
