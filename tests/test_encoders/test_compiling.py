"""torch.compile by config: same numbers, no graph per shape, names of weights as they are."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from mmseg.registry import HOOKS, MODELS
from tiny_models import build, config, episodes, inputs_of

ALL = ('sam2', 'prior_encoder')


class Graphs:
    """A backend of torch.compile that runs what it is given and counts it."""

    def __init__(self) -> None:
        torch._dynamo.reset()
        self.count = 0

    def __call__(self, module, example_inputs):
        self.count += 1
        return module.forward


@torch.no_grad()
def test_same_numbers_and_names():
    model, plain = build(compile=dict(parts=ALL, backend=Graphs())), build()
    assert list(model.state_dict()) == list(plain.state_dict())
    data = inputs_of(episodes(2, 2))
    one, other = model.run(data).logits, plain.run(data).logits
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


@torch.no_grad()
def test_no_shape_is_compiled_anew():
    graphs = Graphs()
    model = build(compile=dict(parts=ALL, backend=graphs), encode_batch=2)
    model.run(inputs_of(episodes(2, 2)))
    after_first = graphs.count
    assert after_first == len(ALL)
    for batch, shots in ((3, 2), (2, 5), (5, 3), (7, 1), (3, 3)):
        model.run(inputs_of(episodes(batch, shots)))
    side = model.image_size
    model.encode_image(torch.rand(2, side, side, 3).permute(0, 3, 1, 2))  # as photos are labelled
    assert graphs.count == after_first


def test_warm_up_compiles_what_a_batch_needs_and_keeps_nothing():
    graphs = Graphs()
    model = build(
        compile=dict(parts=ALL, backend=graphs),
        feature_cache=dict(type='FeatureCache'),
    )
    assert model.warm_up(2, 2) > 0
    warmed = graphs.count
    with torch.no_grad():
        model.run(inputs_of(episodes(2, 2)))
    assert graphs.count == warmed
    assert model.encoding.cache.stats.misses == 12  # of two encoders in the run alone
    model.train()
    model.warm_up(2, 2)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize('parts', [(), ('neck',), ('sam2', 'decoder')])
def test_unknown_parts(parts):
    with pytest.raises(ValueError, match=r'model\.compile\.parts must be out of .*sam2.*got'):
        MODELS.build(config(compile=dict(parts=parts)))


@pytest.mark.parametrize('wrong', [True, ['sam2'], dict(parts='sam2'), dict(parts=3)])
def test_compile_of_another_form(wrong):
    with pytest.raises(ValueError, match=r"model.compile must be None or dict\(parts=\[...\]\)"):
        MODELS.build(config(compile=wrong))


def test_a_part_that_is_not_there():
    changes = dict(
        prior_encoder=None,
        prompt_generator=dict(type='OraclePromptGenerator'),
        compile=dict(parts=['prior_encoder']),
    )
    message = r"parts must be out of \['sam2'\], the encoders of the model, got \['prior_encoder'\]"
    with pytest.raises(ValueError, match=message):
        MODELS.build(config(**changes))


def test_hook_warms_up_once_for_each_kind_of_batch():
    model = build(compile=dict(parts=['prior_encoder'], backend=Graphs()))
    loader = SimpleNamespace(batch_size=2, dataset=SimpleNamespace(shots=1))
    runner = SimpleNamespace(
        model=model,
        train_dataloader=loader,
        val_dataloader=loader,
        test_dataloader=loader,
        val_loop=None,
        test_loop=None,
        optim_wrapper=SimpleNamespace(optim_context=lambda model: nullcontext()),
    )
    hook = HOOKS.build(dict(type='WarmUpHook'))
    said = []
    with patch('mmfss.engine.hooks.print_log', lambda text, logger: said.append(text)):
        hook.before_train(runner)
        assert model.training
        for _ in range(2):
            hook.before_val(runner)
            hook.before_test(runner)
    assert [text.split(':')[0] for text in said] == [
        'compiled prior_encoder for training',
        'compiled prior_encoder for evaluation',
    ]
    assert model.training


def test_hook_leaves_other_models_alone():
    runner = SimpleNamespace(model=build(), test_dataloader=None, test_loop=None)
    HOOKS.build(dict(type='WarmUpHook')).before_test(runner)
