"""N classes around the one-class model."""

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from tiny_models import FULL, METHODS, SIZE

from mmfss.apis.nway import (
    class_logits,
    decide,
    encode_class,
    object_score_of,
    resemblance,
    segment_classes,
)
from mmfss.batching import take
from mmfss.functional import logits_to_mask
from mmfss.methods.fssam.model import ImageFeatures


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return MODELS.build(FULL).eval()


@pytest.fixture(scope='module')
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (4, 3, SIZE, SIZE), generator=generator).float()


def _box(top, left, side=20):
    mask = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def _features(model, images):
    with torch.no_grad():
        return model.encode_image(images)


def test_one_class_is_the_model_itself(model, images):
    masks = torch.stack([_box(4, 8), _box(30, 30)])
    state = encode_class(model, _features(model, images[:2]), masks)
    found = segment_classes(model, _features(model, images[3:]), [state])
    inputs = dict(query=images[3:], support=images[None, :2], support_mask=masks[None])
    with torch.no_grad():
        alone = model.run(inputs).logits[0]
    torch.testing.assert_close(found.logits[0], alone, rtol=0, atol=1e-5)
    size = (37, 91)
    labels = decide(found.logits[0], found.scores[0], 0.0, size)
    assert torch.equal(labels, logits_to_mask(found.logits, size)[0, 0])


def test_classes_do_not_touch_each_other(model, images):
    query = _features(model, images[3:])
    one = encode_class(model, _features(model, images[:1]), _box(4, 8)[None])
    other = encode_class(
        model, _features(model, images[:3]), torch.stack([_box(0, 0), _box(9, 30), _box(40, 40)])
    )
    both = segment_classes(model, query, [one, other])
    turned = segment_classes(model, query, [other, one])
    assert torch.equal(both.logits, turned.logits.flip(1))
    assert torch.equal(both.scores, turned.scores.flip(1))
    assert torch.equal(both.logits[:, :1], segment_classes(model, query, [one]).logits)


@pytest.mark.parametrize('pairs', [1, 2, 5, 16])
def test_masks_of_objects_are_those_of_their_image_and_class(images, pairs):
    """In whatever batches images and classes go through the model, and of whatever group."""
    torch.manual_seed(0)
    model = MODELS.build(METHODS['GFSAM']).eval()
    marks = [_box(4, 8), _box(30, 30), _box(10, 20)]
    states = [
        encode_class(
            model, model.encode_image(images[:shots], 'support'), torch.stack(marks[:shots])
        )
        for shots in (1, 3, 1)
    ]
    with torch.no_grad():
        query = model.encode_image(images)
        found = segment_classes(model, query, states, pairs)
        for i, by_class in enumerate(found.parts):
            for n, parts in enumerate(by_class):
                own = model.segment(take(query, slice(i, i + 1)), states[n].support).parts[0]
                torch.testing.assert_close(parts, own, rtol=1e-4, atol=1e-4)


def test_methods_without_objects_have_none(model, images):
    state = encode_class(model, _features(model, images[:1]), _box(4, 8)[None])
    found = segment_classes(model, _features(model, images[2:]), [state, state])
    assert found.parts == [[None, None], [None, None]]


def score_of(features, inside, prototypes):
    """Of one class in one image."""
    return float(resemblance(features[None], inside[None, None], prototypes[None])[0, 0])


def test_score_by_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(5, 4, 6, generator=generator)
    inside = torch.rand(4, 6, generator=generator)
    prototypes = torch.rand(3, 5, generator=generator)
    mean = np.zeros(5)
    for y in range(4):
        for x in range(6):
            mean += float(inside[y, x]) * features[:, y, x].numpy()
    cosines = [mean @ p / np.linalg.norm(mean) / np.linalg.norm(p) for p in prototypes.numpy()]
    assert score_of(features, inside, prototypes) == pytest.approx(np.mean(cosines), abs=1e-5)


def test_score_is_one_for_the_supports_own_object_and_zero_for_an_empty_mask():
    features = torch.rand(5, 4, 6, generator=torch.Generator().manual_seed(0))
    inside = torch.zeros(4, 6)
    inside[1:3, 2:5] = 1
    own = features[:, 1:3, 2:5].mean((1, 2))[None]
    assert score_of(features, inside, own) == pytest.approx(1, abs=1e-6)
    assert score_of(features, inside, -own) == 0
    assert score_of(features, torch.zeros(4, 6), own) == 0


def test_rule_by_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 8, 8, generator=generator)
    scores = torch.tensor([0.9, 0.4, 0.6])
    labels = decide(logits, scores, 0.5, (8, 8)).numpy()
    channels = class_logits(logits, scores, 0.5)
    for y in range(8):
        for x in range(8):
            best, label = -1.0, 0
            for c in (0, 2):  # class 1 is absent
                value = float(logits[c, y, x]) * float(scores[c])
                if value >= 0 and value > best:
                    best, label = value, c + 1
            assert labels[y, x] == label
    assert (channels.argmax(0).numpy() == labels).all()
    assert set(np.unique(labels)) == {0, 1, 3}


def test_threshold_per_class():
    logits = torch.ones(2, 4, 4)
    scores = torch.tensor([0.6, 0.5])
    assert (decide(logits, scores, torch.tensor([0.7, 0.5]), (9, 5)) == 2).all()
    assert (decide(logits, scores, torch.tensor([0.7, 0.6]), (9, 5)) == 0).all()
    assert (decide(logits, scores, 0.6, (9, 5)) == 1).all()  # a score at the threshold is enough
    assert decide(logits, scores, 0.6, (9, 5)).dtype == torch.uint8


def test_score_without_prior_encoder_is_of_sam2_features(images):
    torch.manual_seed(0)
    plain = dict(
        FULL,
        prior_encoder=None,
        prompt_generator=None,
        memory_refinement=None,
        memory_attention=None,
    )
    model = MODELS.build(plain).eval()
    features = _features(model, images[:1])
    mask = _box(16, 16, 32)
    state = encode_class(model, features, mask[None])
    inside = features.sam2.top[0, :, 1:3, 1:3].mean((1, 2))
    assert torch.cosine_similarity(state.prototypes[0], inside, 0) > 0.9
    found = segment_classes(model, ImageFeatures(features.sam2, None), [state])
    assert found.logits.shape == (1, 1, SIZE, SIZE) and 0 <= float(found.scores[0, 0]) <= 1


def _plain_decision(logits, scores, threshold, size):
    """The rule, spelled out over all pixels at full size."""
    weighted = class_logits(logits, scores, threshold)[1:]
    full = torch.nn.functional.interpolate(
        weighted[None], size, mode='bilinear', align_corners=True
    )[0]
    full[scores < threshold] = -np.inf
    labels = torch.where(full.amax(0) >= 0, full.argmax(0) + 1, 0)
    return labels.to(torch.uint8)


@pytest.mark.parametrize('size', [(8, 8), (37, 91), (5, 3), (1, 1), (1, 40), (300, 200)])
def test_decision_is_that_of_the_whole_stack_byte_for_byte(size):
    generator = torch.Generator().manual_seed(size[0])
    logits = torch.randn(7, 8, 8, generator=generator)
    logits[3] = -logits[3].abs() - 0.1  # a class that is there, and nowhere
    logits[4] = 0.0  # on the border between it and the background
    logits[5, :3] = -0.0
    logits[6] = -torch.rand(8, 8, generator=generator) * 1e-31
    scores = torch.tensor([0.9, 0.4, 0.6, 0.8, 0.7, 0.7, 0.9])
    for threshold in (0.5, 0.65, 0.95):
        expected = _plain_decision(logits, scores, threshold, size)
        assert torch.equal(decide(logits, scores, threshold, size), expected)


def test_decision_leaves_the_logits_as_they_are():
    logits, scores = torch.randn(2, 8, 8), torch.tensor([1.0, 1.0])
    before = logits.clone()
    decide(logits, scores, 0.5, (8, 8))
    assert torch.equal(logits, before)


def test_an_object_between_the_positions_of_the_grid_has_a_score():
    """It would have no prototype, and so never be there."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(METHODS['DensityMatcher']).eval()  # 5 x 5 positions
    image = torch.randint(0, 255, (1, 3, SIZE, SIZE)).float()
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    mask[:, 3:9, 3:9] = 1
    features = model.encode_image(image)
    state = encode_class(model, features, mask)
    inside = (mask == 1).float()[None] - 0.5
    cell = model.compared(features)[0, :, 0, 0]
    assert torch.cosine_similarity(state.prototypes[0], cell, dim=0) > 0.9999
    assert object_score_of(model, features, inside[0], state) > 0.9999
