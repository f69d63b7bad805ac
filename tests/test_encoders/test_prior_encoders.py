"""Encoders other than DINOv2, alone and as prior encoders in FSSAM."""

from __future__ import annotations

import pytest
import torch
from mmseg.registry import MODELS
from tiny_models import DIM, SIZE, build, episodes, inputs_of
from torch import nn

from mmfss.encoders.base import Encoder, ImageNetNormalise

RESNET = dict(type='ResNet', depth=18)
BACKBONE = dict(type='BackboneEncoder', backbone=RESNET, image_size=128)


def images(size: int = SIZE) -> torch.Tensor:
    return episodes(2, size=size)['query']


def test_normalise_is_imagenets_and_without_state():
    normalise = ImageNetNormalise()
    out = normalise(torch.full((1, 3, 1, 1), 255.0)).flatten()
    want = [(1 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    torch.testing.assert_close(out, torch.tensor(want))
    assert not normalise.state_dict()


@pytest.mark.parametrize(
    ('index', 'shape'),
    [(-1, (2, 512, 16, 16)), (0, (2, 64, 32, 32)), (2, (2, 256, 16, 16)), (-3, (2, 128, 16, 16))],
)
@torch.no_grad()
def test_mmsegs_resnet(index, shape):
    """mmseg's default strides 1, 2, 1, 1 with dilation: stride 8 from the second stage on."""
    backbone = dict(RESNET, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    encoder = MODELS.build(dict(BACKBONE, backbone=backbone, out_index=index)).eval()
    (out,) = encoder(images())
    assert out.shape == shape
    resized = torch.nn.functional.interpolate(
        images(), (128, 128), mode='bilinear', align_corners=True
    )
    assert torch.equal(out, encoder.backbone(encoder.normalise(resized))[index])


@pytest.mark.parametrize('index', [4, -5])
def test_a_map_that_is_not_there(index):
    encoder = MODELS.build(dict(BACKBONE, out_index=index)).eval()
    message = f'out_index {index} is out of range: ResNet returns 4 feature maps'
    with pytest.raises(ValueError, match=message):
        encoder(images())


@pytest.mark.parametrize('size', [0, -3, 64.0, 'big'])
def test_image_size_out_of_range(size):
    with pytest.raises(ValueError, match=f'image_size must be a positive integer.*got {size!r}'):
        MODELS.build(dict(BACKBONE, image_size=size))


@MODELS.register_module()
class OneMapBackbone(nn.Conv2d):
    """A backbone that returns a tensor instead of a tuple, and has no ``init_weights``."""

    def __init__(self) -> None:
        super().__init__(3, 5, 8, stride=8)


@torch.no_grad()
def test_a_backbone_that_returns_one_tensor():
    encoder = MODELS.build(dict(BACKBONE, backbone=dict(type='OneMapBackbone')))
    encoder.init_weights()
    assert encoder(images())[0].shape == (2, 5, 16, 16)


@torch.no_grad()
def test_fssam_with_resnet():
    model = build(prior_encoder=BACKBONE)
    data = inputs_of(episodes(2, 2))
    features = model.encode_image(data['query'])
    alone = [model.prior_encoder(image)[0] for image in data['query'].split(1)]
    assert torch.equal(features.prior, torch.cat(alone))  # whatever batch it comes in
    assert torch.isfinite(model.run(data).logits).all()
    model.train()
    assert not any(module.training for module in model.prior_encoder.modules())  # batch norm too
    assert not any(p.requires_grad for p in model.prior_encoder.parameters())


@torch.no_grad()
def test_fssam_with_its_own_features():
    model = build(prior_encoder=dict(type='SAM2PriorEncoder'))
    assert not model.prior_encoder.state_dict()
    model.prior_encoder.init_weights()
    features = model.encode_image(images())
    assert features.prior.equal(features.sam2.top) and features.prior.shape == (2, DIM, 4, 4)
    other = build(prior_encoder=BACKBONE)
    data = inputs_of(episodes(1, 1))
    gap = model.run(data).trace.pseudo_masks.fg - other.run(data).trace.pseudo_masks.fg
    assert gap.abs().max() > 0.05  # another encoder, other pseudo masks


def test_the_interface_alone_does_nothing():
    with pytest.raises(NotImplementedError):
        Encoder()(images())
