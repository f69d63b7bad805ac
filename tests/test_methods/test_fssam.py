"""FSSAM as a whole on tiny random weights: properties that hold for any weights."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from tiny_models import SIZE, build, episodes, inputs_of, samples_of

from mmfss.batching import cat
from mmfss.functional import logits_to_mask


@pytest.fixture(scope='module', params=['sam2_small', 'sam2.1_small'])
def model(request):
    return build(request.param)


@pytest.fixture(scope='module')
def published():
    """SAM 2.0 with all parts."""
    return build()


@torch.no_grad()
def logits(model, data) -> torch.Tensor:
    return model.run(inputs_of(data)).logits


@pytest.mark.parametrize('shots', [1, 2, 3, 4, 5])
def test_shots_come_from_the_shape(model, shots):
    out = logits(model, episodes(2, shots))
    assert out.shape == (2, 1, SIZE, SIZE) and out.dtype == torch.float32
    assert torch.isfinite(out).all() and out.std() > 0.1


@pytest.mark.parametrize('shots', [2, 5])
def test_order_of_supports_does_not_matter(model, shots):
    data = episodes(2, shots)
    out = logits(model, data)
    order = torch.tensor([1, 0, 4, 2, 3])[:shots]
    turned = {key: data[key][:, order] for key in ('support', 'support_mask')}
    torch.testing.assert_close(out, logits(model, {**data, **turned}), atol=2e-4, rtol=1e-4)


def test_masks_belong_to_their_supports(published):
    data = episodes(1, 2)
    out = logits(published, data)
    swapped = {**data, 'support_mask': data['support_mask'].flip(1)}
    assert (out - logits(published, swapped)).abs().max() > 1e-2


def test_query_and_supports_matter(published):
    data, other = episodes(1, 1), episodes(1, 1, seed=9)
    out = logits(published, data)
    for key in ('query', 'support', 'support_mask'):
        assert (out - logits(published, {**data, key: other[key]})).abs().max() > 1e-2, key


def test_a_batch_is_its_episodes_one_by_one(model):
    data = episodes(2, 2)
    both = logits(model, data)
    for b in range(2):
        one = logits(model, {key: value[b : b + 1] for key, value in data.items()})
        torch.testing.assert_close(both[b : b + 1], one, atol=2e-4, rtol=1e-4)


def test_two_runs_are_equal_to_the_bit(model):
    data = episodes(1, 2)
    assert torch.equal(logits(model, data), logits(model, data))


def test_255_of_a_support_mask_counts_as_0(published):
    data = episodes(1, 1)
    assert (data['support_mask'] == 255).any()
    cleared = torch.where(data['support_mask'] == 255, 0, data['support_mask'])
    assert torch.equal(
        logits(published, data), logits(published, {**data, 'support_mask': cleared})
    )


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int64, torch.float32])
def test_dtype_of_the_masks_does_not_matter(published, dtype):
    data = episodes(1, 1)
    same = {**data, 'support_mask': data['support_mask'].to(dtype)}
    assert torch.equal(logits(published, data), logits(published, same))


@torch.no_grad()
def test_empty_masks_and_constant_images_stay_finite(model):
    data = episodes(1, 2)
    for changed in (
        {'support_mask': data['support_mask'] * 0},
        {'query': data['query'] * 0 + 127},
        {'support': data['support'] * 0, 'query': data['query'] * 0},
    ):
        result = model.run(inputs_of({**data, **changed}))
        assert torch.isfinite(result.logits).all()
        for mask in (result.trace.pseudo_masks.fg, result.trace.pseudo_masks.ae):
            assert torch.isfinite(mask).all() and mask.min() >= 0 and mask.max() <= 1


@torch.no_grad()
def test_the_three_steps_are_one_run(published):
    """Features and support state may be kept and used again for other queries."""
    data, other = episodes(2, 3), episodes(2, 3, seed=5)
    supports = published.encode_image(data['support'].flatten(0, 1))
    state = published.encode_support(supports, data['support_mask'])
    for query in (data['query'], other['query']):
        kept = published.segment(published.encode_image(query), state).logits
        whole = published.run(inputs_of({**data, 'query': query})).logits
        assert torch.equal(kept, whole)


@torch.no_grad()
def test_features_may_be_joined_and_come_without_gradient(published):
    images = episodes(3)['query']
    whole = published.encode_image(images)
    parts = cat([published.encode_image(image[None]) for image in images])
    torch.testing.assert_close(whole.prior, parts.prior, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole.sam2.top, parts.sam2.top, atol=1e-4, rtol=1e-4)
    assert torch.equal(whole.sam2.top_pos[:1], parts.sam2.top_pos[:1])
    for one, other in zip(whole.sam2.high_res, parts.sam2.high_res):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_copies_of_one_support_change_what_holds_pointers_alone(published):
    data = episodes(1, 1)
    three = {key: data[key].repeat_interleave(3, 1) for key in ('support', 'support_mask')}
    one, copies = published.run(inputs_of(data)), published.run(inputs_of({**data, **three}))
    torch.testing.assert_close(one.trace.pseudo_masks.fg, copies.trace.pseudo_masks.fg)
    torch.testing.assert_close(one.trace.pseudo_masks.ae, copies.trace.pseudo_masks.ae)
    torch.testing.assert_close(one.trace.refined.memory, copies.trace.refined.memory)
    torch.testing.assert_close(one.trace.query_frames.pointers, copies.trace.query_frames.pointers)
    # twice as many pointer tokens again: attention as a whole may differ
    assert (one.trace.attended - copies.trace.attended).abs().max() > 1e-4


@torch.no_grad()
def test_bfloat16_autocast_is_close(model):
    data = inputs_of(episodes(2, 2))
    exact = model.run(data)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = model.run(data)
    assert rough.logits.dtype == torch.float32 and torch.isfinite(rough.logits).all()
    assert rough.trace.decoded.ious.dtype == torch.bfloat16  # it did run in it
    # candidates, not the chosen one: IoUs near 1 may tie in bfloat16
    for name, one, other in (
        ('fg', rough.trace.pseudo_masks.fg, exact.trace.pseudo_masks.fg),
        ('memory', rough.trace.refined.memory, exact.trace.refined.memory),
        ('attended', rough.trace.attended, exact.trace.attended),
        ('candidates', rough.trace.decoded.candidates, exact.trace.decoded.candidates),
    ):
        assert (one - other).abs().mean() < 0.05 * other.std(), name


# ---------------------------------------------------------------- mmseg's interface


@pytest.mark.parametrize('label_size', [(SIZE, SIZE), (37, 90)])
@torch.no_grad()
def test_predict_at_the_size_of_the_label(published, label_size):
    data = episodes(2, 1)
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(ori_shape=(5, 6)))
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, *label_size, dtype=torch.uint8))
        samples.append(sample)
    out = published(inputs_of(data), samples, mode='predict')
    result = published.run(inputs_of(data))
    assert len(out) == 2
    for b, sample in enumerate(out):
        pred = sample.pred_sem_seg.data
        assert pred.shape == (1, *label_size) and pred.dtype == torch.uint8
        assert set(pred.unique().tolist()) <= {0, 1}
        assert torch.equal(pred, logits_to_mask(result.logits[b : b + 1], label_size)[0])
        assert torch.equal(sample.seg_logits.data, result.logits[b])
        assert list(sample.maps) == ['pseudo fg', 'pseudo ae', 'refined prior']
        assert torch.equal(sample.maps['pseudo fg'], result.trace.pseudo_masks.fg[b, 0])
        assert torch.equal(sample.maps['pseudo ae'], result.trace.pseudo_masks.ae[b, 0])
        assert torch.equal(sample.maps['refined prior'], result.trace.refined.prior_ae[b, 0])


@torch.no_grad()
def test_predict_of_an_unlabelled_query_has_its_original_size(published):
    sample = SegDataSample(metainfo=dict(ori_shape=(33, 21)))
    (out,) = published.predict(inputs_of(episodes()), [sample])
    assert out.pred_sem_seg.data.shape == (1, 33, 21)
    assert out.seg_logits.data.shape == (1, SIZE, SIZE)


@torch.no_grad()
def test_the_truth_of_the_query_is_not_looked_at(published):
    data = episodes(2, 1)
    one = published.predict(inputs_of(data), samples_of(data))
    other = published.predict(inputs_of(data), samples_of({**data, 'truth': 1 - data['truth'] % 2}))
    assert all(torch.equal(a.seg_logits.data, b.seg_logits.data) for a, b in zip(one, other))


@torch.no_grad()
def test_tensor_mode_gives_logits(published):
    data = inputs_of(episodes(2, 1))
    assert torch.equal(published(data, mode='tensor'), published.run(data).logits)
    assert torch.equal(published.encode_decode(data, []), published.run(data).logits)
    features = published.extract_feat(data['query'])
    assert torch.equal(features.prior, published.encode_image(data['query']).prior)


def test_loss_is_dice_of_the_logits(published):
    data = episodes(2, 1)
    losses = published(inputs_of(data), samples_of(data), mode='loss')
    assert list(losses) == ['loss_dice']
    out = logits(published, data)[:, 0]
    each = []
    for b in range(2):
        p, t = out[b].sigmoid(), (data['truth'][b] == 1).float()
        each.append(1 - 2 * (p * t).sum() / (p.square().sum() + t.square().sum()))
    torch.testing.assert_close(losses['loss_dice'], sum(each) / 2)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize('key', ['query', 'support', 'support_mask'])
def test_inputs_of_another_size(published, key):
    data = inputs_of(episodes())
    data[key] = data[key][..., :48, :48]
    message = rf'{key} is \(48, 48\) pixels, but the model takes \({SIZE}, {SIZE}\)'
    with pytest.raises(ValueError, match=message):
        published.run(data)


def test_loss_of_labels_of_another_size(published):
    data = episodes(2, 1)
    samples = samples_of({**data, 'truth': data['truth'][:, :40]})
    with pytest.raises(ValueError, match=rf'labels of a training batch are \[\(40, {SIZE}\)\]'):
        published.loss(inputs_of(data), samples)


def test_state_dict_is_the_two_encoders_alone(model):
    prefixes = {key.split('.')[0] for key in model.state_dict()}
    assert prefixes == {'sam2', 'prior_encoder'}
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict(), strict=True)
