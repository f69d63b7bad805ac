"""All foreground, and the pseudo mask cut at one half: their numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from plain_loops import average, cosines, resized
from tiny_models import FULL, METHODS, SIZE, episodes, inputs_of, randomised, samples_of

from mmfss.apis import FewShotInferencer
from mmfss.methods import AllForeground, Segmentation


def build(name: str, **changes):
    torch.manual_seed(0)
    return randomised(MODELS.build(copy.deepcopy({**METHODS[name], **changes}))).eval()


# -------------------------------------------------------------------------------- all foreground
def test_every_pixel_is_foreground():
    model, data = build('AllForeground'), episodes(2, 3)
    samples = model.predict(inputs_of(data), samples_of(data))
    for sample, truth in zip(samples, data['truth'], strict=True):
        assert torch.equal(sample.pred_sem_seg.data, torch.ones(1, SIZE, SIZE, dtype=torch.uint8))
        # what a benchmark gives for nothing: the share of the object among what is not ignored
        valid = (truth != 255).numpy()
        found, wanted = sample.pred_sem_seg.data[0].numpy()[valid], truth.numpy()[valid]
        iou = (found & wanted).sum() / (found | wanted).sum()
        assert iou == pytest.approx((truth == 1).sum().item() / valid.sum())
        assert sample.maps == {}


def test_every_class_is_in_every_image():
    """Object scores of 1, also for a class whose supports have the object in a corner; the first
    class wins where all have equal claims."""
    inferencer = FewShotInferencer(build('AllForeground'), threshold=0.9)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    first, second = np.zeros((40, 50), bool), np.zeros((40, 50), bool)
    first[10:20, 30:40] = second[30:, 40:] = True
    inferencer.set_support({'middle': [(image, first)], 'corner': [(image, second)] * 2})
    found = inferencer(image)
    np.testing.assert_allclose(found.scores, 1, atol=1e-4)
    assert found.present == ('middle',) and (found.labels == 1).all()


# ----------------------------------------------------------------------------------- pseudo mask
def scaled(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min() + 1e-7)


@torch.no_grad()
@pytest.mark.parametrize('shots', [1, 3])
def test_pseudo_mask_in_plain_loops(shots):
    model, data = build('PseudoMask'), inputs_of(episodes(1, shots))
    found = model.run(data)
    (query,) = model.encoder(data['query'])[-1].double().numpy()
    supports = model.encoder(data['support'][0])[-1].double().numpy()
    fg, ae = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE))
    for support, mask in zip(supports, data['support_mask'][0].numpy()):
        inside = resized((mask == 1).astype(float), support.shape[1:])
        like = scaled(cosines(query, average(support, inside)))
        unlike = scaled(cosines(query, average(support, 1 - inside)))
        fg += resized(like, (SIZE, SIZE)) / shots
        ae += scaled(np.maximum(resized(like - unlike, (SIZE, SIZE)), 0)) / shots
    np.testing.assert_allclose(found.maps['pseudo fg'][0, 0], fg, atol=1e-4)
    np.testing.assert_allclose(found.maps['pseudo ae'][0, 0], ae, atol=1e-4)
    np.testing.assert_allclose(found.logits[0, 0], ae - 0.5, atol=1e-4)
    assert (ae >= 0.5).any() and (ae < 0.4).any()


@torch.no_grad()
def test_pseudo_mask_is_what_fssam_gives_sam2():
    torch.manual_seed(1)
    fssam = randomised(MODELS.build(copy.deepcopy(FULL)), seed=1).eval()
    alone = build('PseudoMask')
    alone.encoder.load_state_dict(fssam.prior_encoder.state_dict())
    data = inputs_of(episodes(2, 2))
    one, other = alone.run(data), fssam.run(data)
    for name in ('pseudo fg', 'pseudo ae'):
        assert torch.equal(one.maps[name], other.maps[name])
    assert torch.equal(one.logits >= 0, other.maps['pseudo ae'] >= 0.5)


@pytest.mark.parametrize(
    'name, changes, message',
    [
        ('PseudoMask', dict(encoder=None), 'needs an encoder and a prompt_generator; one is None'),
        ('PseudoMask', dict(prompt_generator=None), 'needs an encoder and a prompt_generator'),
        ('PseudoMask', dict(image_size=-1), 'model.image_size must be an integer >= 1, got -1'),
        ('AllForeground', dict(image_size='64'), "image_size must be an integer >= 1, got '64'"),
        (
            'PseudoMask',
            dict(prompt_generator=dict(type='DINOv2')),
            r"model.prompt_generator must be None or .*'PseudoPromptGenerator'.*got 'DINOv2'",
        ),
        (
            'PseudoMask',
            dict(prompt_generator=dict(type='OraclePromptGenerator')),
            'PseudoMask is given no true mask, which OraclePromptGenerator needs; '
            'take PseudoPromptGenerator',
        ),
    ],
)
def test_wrong_arguments(name, changes, message):
    with pytest.raises(ValueError, match=message):
        build(name, **changes)


@pytest.mark.parametrize('wrong', ['a tensor', 'another side'])
def test_a_method_that_returns_something_else_is_named(monkeypatch, wrong):
    model = AllForeground(image_size=SIZE)
    logits = torch.ones(1, 1, SIZE, SIZE)
    given = logits if wrong == 'a tensor' else Segmentation(logits[..., :8, :8])
    monkeypatch.setattr(AllForeground, 'segment', lambda *args, **kwargs: given)
    message = (
        rf'AllForeground.segment must return a Segmentation with logits \(1, 1, {SIZE}, {SIZE}\)'
    )
    with pytest.raises(ValueError, match=message):
        model.run(inputs_of(episodes()))
