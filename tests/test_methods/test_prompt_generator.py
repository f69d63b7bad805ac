"""Pseudo prompts: against loops over shots, and their properties."""

from __future__ import annotations

import pytest
import torch

from mmfss.functional import cosine_map, masked_average, minmax, up
from mmfss.methods.fssam.prompts import OraclePromptGenerator, PseudoPromptGenerator


def case(batch: int = 2, shots: int = 3, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, 6, 5, 5, generator=g)
    support = torch.randn(batch, shots, 6, 5, 5, generator=g)
    masks = (torch.rand(batch, shots, 16, 16, generator=g) > 0.5).float()
    return query, support, masks


def generate(query, support, masks, size: int = 16):
    generator = PseudoPromptGenerator()
    return generator(query, generator.encode_support(support, masks), size)


def test_each_shot_alone_then_the_mean_without_rescaling():
    query, support, masks = case()
    out = generate(query, support, masks)
    for b in range(2):
        fgs, aes = [], []
        for k in range(3):
            soft = up(masks[b : b + 1, k : k + 1], (5, 5))[0, 0]
            maps = []
            for weight in (soft, 1 - soft):
                vector = masked_average(support[b, k], weight)
                similarity = minmax(cosine_map(query[b], vector))
                maps.append(up(similarity[None, None], (16, 16))[0, 0])
            fgs.append(maps[0])
            aes.append(minmax(torch.relu(maps[0] - maps[1])))
        torch.testing.assert_close(out.fg_per_shot[b], torch.stack(fgs))
        torch.testing.assert_close(out.ae_per_shot[b], torch.stack(aes))
        torch.testing.assert_close(out.fg[b, 0], sum(fgs) / 3)
        torch.testing.assert_close(out.ae[b, 0], sum(aes) / 3)
    assert out.ae.amax() < 0.99  # a mean of maps with peaks at different places stays below 1


@pytest.mark.parametrize('shots', [1, 2, 5])
def test_order_of_supports_does_not_matter(shots):
    query, support, masks = case(shots=shots)
    order = torch.randperm(shots, generator=torch.Generator().manual_seed(1))
    one, other = (
        generate(query, support, masks),
        generate(query, support[:, order], masks[:, order]),
    )
    torch.testing.assert_close(one.fg, other.fg)
    torch.testing.assert_close(one.ae, other.ae)


@pytest.mark.parametrize('kind', ['noise', 'constant query', 'constant support', 'zeros'])
@pytest.mark.parametrize('mask', ['some', 'empty', 'full'])
def test_finite_and_in_the_unit_interval(kind, mask):
    query, support, masks = case()
    query = torch.ones_like(query) if kind == 'constant query' else query
    support = torch.ones_like(support) if kind == 'constant support' else support
    if kind == 'zeros':
        query, support = query * 0, support * 0
    masks = {'some': masks, 'empty': masks * 0, 'full': masks * 0 + 1}[mask]
    out = generate(query, support, masks)
    for name in ('fg', 'ae', 'fg_per_shot', 'bg_per_shot', 'ae_per_shot'):
        value = getattr(out, name)
        assert torch.isfinite(value).all(), name
        assert value.min() >= 0 and value.max() <= 1, name
    if kind in ('constant query', 'zeros'):
        assert not out.fg.any()


def test_a_query_like_the_support_finds_its_object():
    support = torch.zeros(1, 1, 6, 8, 8)
    support[:, :, 0] = 1
    support[:, :, 0, 2:5, 3:6], support[:, :, 1, 2:5, 3:6] = 0.2, 1.0
    masks = torch.zeros(1, 1, 8, 8)
    masks[..., 2:5, 3:6] = 1
    query = support[:, 0].flip(-1)
    out = generate(query, support, masks, size=8)
    inside = masks.flip(-1) == 1
    assert out.ae[inside].min() > 0.99 and out.ae[~inside].max() < 0.01


def test_no_gradient():
    query, support, masks = case()
    out = generate(query.requires_grad_(), support.requires_grad_(), masks)
    assert not out.fg.requires_grad and not out.ae.requires_grad


def test_oracle_returns_the_truth():
    truth = (torch.rand(2, 1, 8, 8) > 0.5).float()
    oracle = OraclePromptGenerator()
    out = oracle(None, oracle.encode_support(None, truth), 8, truth)
    assert torch.equal(out.fg, truth) and torch.equal(out.ae, truth)


def test_oracle_without_truth():
    with pytest.raises(ValueError, match='needs the true mask of the query .* PseudoPromptGen'):
        OraclePromptGenerator()(None, None, 8, None)
