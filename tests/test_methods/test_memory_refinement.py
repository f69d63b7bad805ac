"""Iterative memory refinement: against a plain loop, and its properties."""

from __future__ import annotations

import pytest
import torch

from mmfss.functional import cosine_map, masked_average, minmax, up
from mmfss.methods.fssam.refinement import IterativeMemoryRefinement


def case(batch: int = 2, shots: int = 3, side: int = 5):
    g = torch.Generator().manual_seed(0)
    memory_fg, memory_ae = torch.randn(2, batch, 6, side, side, generator=g)
    prior_fg, prior_ae = torch.rand(2, batch, 1, 16, 16, generator=g)
    support = torch.randn(batch, shots, 6, side, side, generator=g)
    masks = (torch.rand(batch, shots, 16, 16, generator=g) > 0.5).float()
    return memory_fg, memory_ae, prior_fg, prior_ae, support, masks


def refine(data, **options):
    *query, support, masks = data
    module = IterativeMemoryRefinement(**options)
    return module(*query, module.encode_support(support, masks))


@pytest.mark.parametrize('version', ['v1', 'v2'])
@pytest.mark.parametrize('num_iters', [0, 1, 3])
def test_is_the_plain_loop(version, num_iters):
    data = case()
    out = refine(data, num_iters=num_iters, version=version)
    memory_fg, memory_ae, prior_fg, prior_ae, support, masks = data
    for b in range(2):
        soft = up(masks[b : b + 1], (5, 5))[0]
        fg, ae = up(prior_fg, (5, 5))[b, 0], up(prior_ae, (5, 5))[b, 0]
        maps = [
            minmax(cosine_map(memory_fg[b], masked_average(support[b, k], soft[k])))
            for k in range(3)
        ]
        a, memory = sum(maps) / 3, memory_ae[b]
        for _ in range(num_iters):
            own = minmax(cosine_map(memory_fg[b], masked_average(memory, ae)))
            weight = torch.relu(own + a - 1)
            weight = minmax(weight) if version == 'v2' else weight
            memory = weight * memory_fg[b] + (1 - weight) * memory
            ae = minmax(weight * fg + (1 - weight) * ae)
        torch.testing.assert_close(out.support_relevance[b, 0], a)
        torch.testing.assert_close(out.memory[b], memory)
        torch.testing.assert_close(out.prior_ae[b, 0], ae)
    assert len(out.steps) == num_iters


def test_v1_and_v2_and_the_number_of_iterations_matter():
    data = case()
    v1, v2, one = (
        refine(data, version=v, num_iters=n).memory for v, n in (('v1', 3), ('v2', 3), ('v1', 1))
    )
    assert (v1 - v2).abs().max() > 0.1 and (v1 - one).abs().max() > 0.1


def test_every_step_is_between_the_two_memories():
    data = case()
    low, high = torch.minimum(*data[:2]), torch.maximum(*data[:2])
    for step in refine(data, version='v2').steps:
        assert (step.memory >= low - 1e-5).all() and (step.memory <= high + 1e-5).all()
        assert step.relevance.min() >= 0 and step.relevance.max() <= 1
        assert step.prior_ae.min() >= 0 and step.prior_ae.max() <= 1


def test_order_of_supports_does_not_matter_and_copies_change_nothing():
    *query, support, masks = case()
    out = refine((*query, support, masks))
    turned = refine((*query, support.flip(1), masks.flip(1)))
    torch.testing.assert_close(out.memory, turned.memory)
    one = refine((*query, support[:, :1], masks[:, :1]))
    three = refine((*query, *(x[:, :1].repeat_interleave(3, 1) for x in (support, masks))))
    torch.testing.assert_close(one.memory, three.memory)
    assert (one.memory - out.memory).abs().max() > 1e-2


def test_finite_on_constants_and_empty_masks():
    *query, support, masks = case()
    for data in (
        (*query, support, masks * 0),
        (*(torch.zeros_like(x) for x in query), support, masks),
        (*(torch.ones_like(x) for x in query), support * 0 + 1, masks),
    ):
        out = refine(data, version='v2')
        assert torch.isfinite(out.memory).all() and torch.isfinite(out.prior_ae).all()


def test_gradients_reach_both_memories_and_the_support():
    *query, support, masks = case()
    leaves = [query[0].requires_grad_(), query[1].requires_grad_(), support.requires_grad_()]
    refine((*query, support, masks)).memory.square().sum().backward()
    assert all(leaf.grad.abs().max() > 1e-4 for leaf in leaves)


@pytest.mark.parametrize('value', [-1, 1.5, '3', None])
def test_number_of_iterations_out_of_range(value):
    with pytest.raises(ValueError, match=r'num_iters must be an integer >= 0, got'):
        IterativeMemoryRefinement(num_iters=value)


def test_unknown_version():
    with pytest.raises(ValueError, match=r"version must be one of \['v1', 'v2'\], got 'v3'"):
        IterativeMemoryRefinement(version='v3')
