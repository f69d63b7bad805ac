"""Frozen encoders: each image once, chunks, what is kept in which mode, and never a stale entry."""

from __future__ import annotations

import copy

import pytest
import torch
from mmseg.registry import MODELS
from tiny_models import build, config, episodes, inputs_of, samples_of

from mmfss.encoders.frozen import FrozenEncoding

CACHE = dict(type='FeatureCache', memory_bytes=2**26)


class Counted:
    """Counts the images that an encoder of a model sees."""

    def __init__(self, model) -> None:
        self.sizes: list[int] = []
        model.prior_encoder.register_forward_pre_hook(
            lambda module, args: self.sizes.append(len(args[0]))
        )

    @property
    def images(self) -> int:
        return sum(self.sizes)


def levels(features) -> list[torch.Tensor]:
    return [*features.sam2.high_res, features.sam2.top, features.sam2.top_pos, features.prior]


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(levels(one), levels(other), strict=True))


@torch.no_grad()
def test_an_image_gives_the_same_in_any_batch():
    model = build()
    images = episodes(3)['query']
    together = model.encode_image(images)
    for i in range(3):
        alone = model.encode_image(images[i : i + 1])
        assert all(torch.equal(a[i : i + 1], b) for a, b in zip(levels(together), levels(alone)))


@torch.no_grad()
@pytest.mark.parametrize(('chunk', 'sizes'), [(1, [1] * 5), (2, [2, 2, 1]), (8, [5])])
def test_chunks(chunk, sizes):
    model = build(encode_batch=chunk)
    seen = Counted(model)
    images = episodes(5)['query']
    together = model.encode_image(images)
    assert seen.sizes == sizes
    for a, b in zip(levels(together), levels(build().encode_image(images))):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


def test_training_encodes_a_batch_at_once():
    model = build(encode_batch=1).train()
    seen = Counted(model)
    data = episodes(2, 2)
    model.loss(inputs_of(data), samples_of(data))
    assert seen.sizes == [2, 4]


@torch.no_grad()
def test_cached_features_are_those_that_are_computed_bit_for_bit(tmp_path):
    data = inputs_of(episodes(3, 2))
    plain = build().run(data).logits
    model = build(feature_cache=dict(CACHE, directory=str(tmp_path)))
    seen = Counted(model)
    first = model.run(data).logits
    assert seen.images == 9
    again = model.run(data).logits
    assert seen.images == 9  # nothing was encoded
    other = build(feature_cache=dict(CACHE, directory=str(tmp_path), memory_bytes=0))
    from_disk = Counted(other)
    later = other.run(data).logits
    assert from_disk.images == 0
    assert all(torch.equal(plain, logits) for logits in (first, again, later))


@torch.no_grad()
def test_an_image_that_comes_twice_is_encoded_once():
    model = build(feature_cache=CACHE, encode_batch=4)
    seen = Counted(model)
    images = episodes(2)['query'][[0, 1, 0, 0, 1]]
    features = model.encode_image(images)
    assert seen.sizes == [2]
    alone = build(encode_batch=4).encode_image(images[:2])
    for one, both in zip(levels(features), levels(alone), strict=True):
        assert torch.equal(one, both[[0, 1, 0, 0, 1]])


@torch.no_grad()
def test_other_weights_other_pixels_other_dtype_are_encoded_anew():
    model = build(feature_cache=CACHE)
    seen = Counted(model)
    images = episodes(1)['query']
    model.encode_image(images)
    model.encode_image(images + 1e-3)
    assert seen.images == 2
    with torch.autocast('cpu', torch.bfloat16):
        model.encode_image(images)
    assert seen.images == 3
    model.prior_encoder.vit.norm.weight[0] += 1  # in place
    features = model.encode_image(images)
    assert seen.images == 4
    model.load_state_dict(build(seed=1).state_dict())
    loaded = model.encode_image(images)
    assert seen.images == 5 and not equal(features, loaded)
    assert equal(loaded, build(seed=1).encode_image(images))
    model.encode_image(images)
    assert seen.images == 5


@torch.no_grad()
def test_other_arithmetic_is_encoded_anew():
    model = build(feature_cache=CACHE)
    seen = Counted(model)
    images = episodes(1)['query']
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ('highest', 'high', 'highest'):
            torch.set_float32_matmul_precision(precision)
            model.encode_image(images)
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen.images == 2


def test_features_of_training_are_those_of_evaluation(tmp_path):
    cache = dict(CACHE, directory=str(tmp_path), training=True)
    images = episodes(1)['query']
    model = build(feature_cache=cache)
    model.train().encode_image(images)
    assert not any(part.training for m in model.encoding.modules.values() for part in m.modules())
    later = build(feature_cache=cache)
    seen = Counted(later)
    later.eval().encode_image(images)
    assert seen.images == 0 and len(list(tmp_path.iterdir())) == 1


def test_frozen_parts_are_in_eval_mode_from_the_start():
    model = MODELS.build(config())
    assert model.training and model.sam2.memory_attention.training
    assert not any(part.training for m in model.encoding.modules.values() for part in m.modules())


@torch.no_grad()
def test_trained_parts_do_not_make_new_entries():
    model = build(feature_cache=CACHE)
    seen = Counted(model)
    data = inputs_of(episodes())
    before = model.run(data).logits
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.01
    after = model.run(data).logits
    assert seen.images == 2 and not torch.equal(before, after)


@pytest.mark.parametrize(('training', 'expected'), [(False, 4), (True, 2)])
def test_pixels_are_kept_in_training_only_where_told(training, expected):
    model = build(feature_cache=dict(CACHE, training=training)).train()
    seen = Counted(model)
    data = episodes()
    for _ in range(2):
        model.loss(inputs_of(data), samples_of(data))
    assert seen.images == expected


@pytest.mark.parametrize('prior', ['own', 'sam2', 'none'])
@pytest.mark.parametrize('trained', ['image_encoder', 'image_encoder.neck', 'sam_mask_decoder'])
def test_each_stage_of_training_gives_what_it_gives_without_a_cache(trained, prior):
    changes = dict(trainable=(trained,))
    if prior == 'sam2':
        changes['prior_encoder'] = dict(type='SAM2PriorEncoder')
    elif prior == 'none':
        changes.update(
            prior_encoder=None,
            prompt_generator=dict(type='OraclePromptGenerator'),
        )
    plain = build(**changes).train()
    kept = build(**changes, feature_cache=dict(CACHE, training=True)).train()
    data = episodes()
    for _ in range(2):  # the second time from the cache
        gradients = []
        for model in (plain, kept):
            model.zero_grad()
            torch.manual_seed(0)
            model.loss(inputs_of(data), samples_of(data))['loss_dice'].backward()
            gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * one.abs().max().item())
    part = plain.sam2.get_submodule(trained)
    assert any(p.grad is not None and p.grad.any() for p in part.parameters())


def test_a_copy_of_a_model_has_an_encoding_of_its_own():
    model = build(feature_cache=CACHE)
    other = copy.deepcopy(model)
    images = episodes()['query']
    with torch.no_grad():
        first = other.encode_image(images)
        other.prior_encoder.vit.norm.weight += 1
        assert not equal(first, other.encode_image(images))
        assert equal(first, model.encode_image(images))


@pytest.mark.parametrize('chunk', [0, -1, True, 2.0])
def test_wrong_chunk(chunk):
    with pytest.raises(
        ValueError, match=f'model.encode_batch must be an integer >= 1, got {chunk}'
    ):
        MODELS.build(config(encode_batch=chunk))


@pytest.mark.parametrize('cached', [False, True])
@pytest.mark.parametrize('training', [False, True])
def test_a_compiled_encoder_may_write_over_what_it_gave(cached, training):
    """As those with CUDA graphs do (``mode='max-autotune'``)."""
    net, buffer = torch.nn.Conv2d(3, 3, 1), torch.zeros(2, 3, 4, 4)

    def encode(images):
        buffer[: len(images)] = 2 * images
        return [buffer[: len(images)]]

    cache = MODELS.build({**CACHE, 'training': True}) if cached else None
    encoding = FrozenEncoding(dict(net=net), {}, cache, 2, fixed=True)
    one, other = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    first = encoding(encode, one, training)[0]
    encoding(encode, other, training)
    assert torch.equal(first, 2 * one)
    assert not cached or torch.equal(encoding(encode, one, training)[0], 2 * one)
    many = torch.rand(5, 3, 4, 4)
    assert training or torch.equal(encoding(encode, many)[0], 2 * many)
