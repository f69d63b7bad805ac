"""The baseline gives the numbers of FSSAM, by formulas of its own."""

from __future__ import annotations

import pytest
import torch
from benchmark_cases import write_config
from benchmarks.naive import build_naive, explicit_prior, explicit_vit
from benchmarks.subject import Subject
from tiny_models import build, config, episodes, inputs_of, samples_of

CASES = {
    'as published': {},
    'refinement v2': dict(memory_refinement=dict(type='IterativeMemoryRefinement', version='v2')),
    'no refinement': dict(memory_refinement=None),
    "SAM 2's attention": dict(memory_attention=None),
    'oracle': dict(prompt_generator=dict(type='OraclePromptGenerator'), prior_encoder=None),
    'neck trained': dict(trainable=('sam2.image_encoder.neck', 'sam2.memory_encoder')),
    'support memory alone': dict(
        prompt_generator=None, prior_encoder=None, memory_refinement=None, memory_attention=None
    ),
}


def both(base='sam2_small', **changes):
    """Ours and the baseline with its weights."""
    ours = build(base, **changes)
    naive = build_naive(config(base, **changes))
    naive.load_state_dict(ours.state_dict())
    return ours, naive.eval()


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize(('base', 'shots'), [('sam2_small', 1), ('sam2.1_small', 3)])
@torch.no_grad()
def test_same_results(base, shots, case):
    ours, naive = both(base, **CASES[case])
    data = episodes(batch=2, shots=shots, seed=3)
    a, b = (model.run(inputs_of(data), samples_of(data)) for model in (ours, naive))
    torch.testing.assert_close(a.logits, b.logits, rtol=1e-4, atol=1e-4)
    if b.trace.pseudo_masks is not None:
        torch.testing.assert_close(a.maps['pseudo ae'], b.maps['pseudo ae'], rtol=1e-4, atol=1e-5)
    if b.trace.refined is not None:
        torch.testing.assert_close(
            a.trace.refined.memory, b.trace.refined.memory, rtol=1e-4, atol=1e-5
        )
    assert a.logits.std() > 1e-3  # not equal for want of anything to tell apart


@pytest.mark.parametrize('case', CASES)
def test_the_same_parameters_learn(case):
    for model in (models := both(**CASES[case])):
        model.train()
    ours, naive = (
        {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        for model in models
    )
    assert ours == naive and any(ours.values())
    ours, naive = ({name: m.training for name, m in model.named_modules()} for model in models)
    assert ours.items() >= naive.items()


@pytest.mark.parametrize('case', ['as published', 'neck trained', 'support memory alone'])
def test_same_gradients(case):
    data, found = episodes(batch=2, shots=2, seed=4), []
    for model in both(**CASES[case]):
        model.training = True  # the parts stay without dropout
        sum(model.loss(inputs_of(data), samples_of(data)).values()).backward()
        named = model.named_parameters()
        found.append({name: p.grad for name, p in named if p.grad is not None})
    ours, naive = found
    assert set(ours) == set(naive)
    assert any('image_encoder.neck' in name for name in ours) is (case == 'neck trained')
    largest = max(grad.abs().max() for grad in naive.values())
    for name, grad in naive.items():
        torch.testing.assert_close(ours[name], grad, rtol=0, atol=float(1e-4 * largest))


@torch.no_grad()
def test_prediction_of_the_baseline():
    ours, naive = both()
    data = episodes(shots=2)
    masks = [
        m.predict(inputs_of(data), samples_of(data))[0].pred_sem_seg.data for m in (ours, naive)
    ]
    assert torch.equal(*masks)


def test_all_layers_of_the_prior_encoder_are_kept():
    changes = dict(arch=dict(embed_dim=16, depth=3, num_heads=2), type='DINOv2', checkpoint=None)
    encoder = build(prior_encoder=dict(changes, image_size=70)).prior_encoder
    image = episodes()['query']
    x = encoder.normalise(torch.nn.functional.interpolate(image, (70, 70)))
    with torch.no_grad():
        layers = explicit_vit(encoder.vit, x)
        assert [tuple(layer.shape) for layer in layers] == [(1, 26, 16)] * 3
        torch.testing.assert_close(explicit_prior(encoder.vit, x), encoder.vit(x))


def test_both_are_drawn_with_the_same_weights(tmp_path):
    subject = Subject(write_config(tmp_path / 'tiny.py'), device='cpu', threads=1, seed=5)
    ours, naive = subject.build().state_dict(), subject.build_naive().state_dict()
    assert list(ours) == list(naive)
    assert all(torch.equal(ours[name], naive[name]) for name in ours)
    other = Subject(subject.config, device='cpu', threads=1, seed=6).build().state_dict()
    assert not all(torch.equal(ours[name], other[name]) for name in ours)


def test_options_of_speed_are_left_to_ours(tmp_path):
    cfg = dict(config(), feature_cache=dict(type='FeatureCache'), encode_batch=4)
    cfg['memory_attention'] = dict(cfg['memory_attention'], checkpoint=True, strength=3.0)
    cfg['sam2'] = dict(cfg['sam2'], channels_last=True)
    naive = build_naive(cfg)
    assert naive.encoding.cache is None and naive.encoding.chunk == 1
    assert naive.sam2.memory_attention.layers[0].cross_attn_image.strength == 3.0
    assert is_channels_last(naive) is False
    assert cfg['memory_attention']['type'] == 'SupportCalibratedMemoryAttention'
    assert cfg['sam2']['channels_last'] is True
    cfg['memory_attention'] = dict(type='SAM2MemoryAttention', checkpoint=True)
    assert build_naive(cfg).sam2.memory_attention.checkpoint is False


def is_channels_last(model) -> bool:
    weight = model.sam2.image_encoder.trunk.patch_embed.proj.weight
    return not weight.is_contiguous()


@pytest.mark.parametrize(('layout', 'last'), [(None, True), (True, True), (False, False)])
def test_memory_layout_is_an_option_of_ours(tmp_path, layout, last):
    config = write_config(tmp_path / 'tiny.py')
    subject = Subject(config, device='cpu', threads=1, channels_last=layout)
    assert is_channels_last(subject.build()) is last
    assert is_channels_last(subject.build_naive()) is False
