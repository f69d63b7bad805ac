"""LoRA: its formula by hand, what it wraps, folding, what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmfss.checkpoints.conversion import without_weights
from mmfss.encoders.lora import LoRA, add_lora, fold_lora, layers_with_lora, without_lora
from mmfss.encoders.sam2.model import build_sam2
from mmfss.methods.fs_sam2 import LORA


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(6, 12), nn.Linear(12, 6)
        self.conv = nn.Conv2d(3, 6, 7, stride=4, padding=3)

    def forward(self, image):
        return self.proj(self.qkv(self.conv(image).permute(0, 2, 3, 1)).relu())


@pytest.fixture
def net():
    """Two blocks with LoRA that is not zero."""
    torch.manual_seed(0)
    net = nn.ModuleDict(dict(one=Block(), two=Block()))
    add_lora(net, ['qkv', 'two.conv'], rank=2, alpha=5.0)
    for layer in layers_with_lora(net).values():
        nn.init.normal_(layer.lora.up)
    return net.eval()


def test_linear_by_hand(net):
    layer, x = net['one'].qkv, torch.randn(2, 5, 6)
    down, up = layer.lora.down, layer.lora.up
    for row in x.reshape(-1, 6):
        low = [sum(down[r, i] * row[i] for i in range(6)) for r in range(2)]
        plain = F.linear(row, layer.weight, layer.bias)
        added = torch.stack([5.0 / 2 * sum(up[o, r] * low[r] for r in range(2)) for o in range(12)])
        torch.testing.assert_close(layer(row), plain + added)


def test_convolution_has_the_steps_of_its_layer(net):
    layer, image = net['two'].conv, torch.randn(1, 3, 33, 30)
    down, up = layer.lora.down, layer.lora.up
    assert down.shape == (2, 3, 7, 7) and up.shape == (6, 2, 1, 1)
    plain = F.conv2d(image, layer.weight, layer.bias, 4, 3)
    low = F.conv2d(image, down, None, 4, 3)
    added = 2.5 * torch.einsum('or,brhw->bohw', up[..., 0, 0], low)
    torch.testing.assert_close(layer(image), plain + added)


def test_a_network_starts_as_it_was_and_keeps_its_names():
    torch.manual_seed(1)
    plain, image = Block().eval(), torch.randn(1, 3, 20, 20)
    adapted = copy.deepcopy(plain)
    assert add_lora(adapted, ['*'], rank=3) == ['qkv', 'proj', 'conv']
    assert torch.equal(adapted(image), plain(image))
    names = {name for name in adapted.state_dict() if '.lora.' not in name}
    assert names == set(plain.state_dict())
    # D is Kaiming-uniform with a = sqrt 5: in +- 1 / sqrt(fan in)
    down = adapted.conv.lora.down
    assert 0.9 < down.abs().max() * (3 * 49) ** 0.5 <= 1 and not adapted.conv.lora.up.any()


def test_dropout_in_training_alone(net):
    x = torch.ones(1000, 6)
    lora = net['one'].qkv.lora
    assert torch.equal(lora(x)[0], lora(x)[1])
    lora.train()
    assert len(lora(x).unique(dim=0)) > 10
    kept = [(nn.functional.dropout(x, 0.1) > 0).float().mean() for _ in range(5)]
    assert torch.stack(kept).mean().item() == pytest.approx(0.9, abs=0.02)


def test_without_it_and_back(net):
    image = torch.randn(1, 3, 20, 20)
    before, names = net['two'](image), set(net.state_dict())
    with without_lora(net):
        inside = net['two'](image)
        assert not layers_with_lora(net) and not any('lora' in name for name in net.state_dict())
    assert not torch.allclose(before, inside)
    assert torch.equal(net['two'](image), before) and set(net.state_dict()) == names
    with pytest.raises(RuntimeError, match='here'), without_lora(net):
        raise RuntimeError('here')
    assert set(net.state_dict()) == names


def test_folded_is_equal_within_rounding(net):
    image, copied = torch.randn(2, 3, 40, 40), copy.deepcopy(net)
    before = net['two'](image)
    assert fold_lora(net) == ['one.qkv', 'two.qkv', 'two.conv']
    torch.testing.assert_close(net['two'](image), before, rtol=1e-5, atol=1e-5)
    assert not layers_with_lora(net) and fold_lora(net) == []
    assert torch.equal(copied['two'](image), before)  # nothing is shared with a copy


@pytest.mark.parametrize(
    ('targets', 'options', 'message'),
    [
        (['qkv', 'key'], {}, "lora.net.targets has 'key', and no linear .*end in conv, proj, qkv"),
        ('qkv', {}, r"lora.net.targets must be a list of names .*got 'qkv'"),
        (['qkv'], dict(rank=0), 'lora.net.rank must be .*1'),
        (['qkv'], dict(alpha=0), 'lora.net.alpha must be a number > 0, got 0'),
        (
            ['qkv'],
            dict(dropout=1.0),
            'lora.net.dropout must be a number from 0 to below 1, got 1.0',
        ),
    ],
)
def test_what_is_refused(targets, options, message):
    with pytest.raises(ValueError, match=message):
        add_lora(Block(), targets, **{'rank': 2, **options}, name='net')


def test_layers_that_cannot_have_it():
    with pytest.raises(ValueError, match='without groups .*groups=2'):
        LoRA(nn.Conv2d(4, 4, 3, groups=2), 2)
    with pytest.raises(ValueError, match='takes nn.Linear and nn.Conv2d, got LayerNorm'):
        LoRA(nn.LayerNorm(3), 2)
    block = Block()
    add_lora(block, ['qkv'], 2)
    with pytest.raises(ValueError, match='net.qkv has LoRA already'):
        add_lora(block, ['qkv'], 2, name='net')


def test_published_layers_and_counts():
    """52, 32 and 1 layers of SAM 2.1 base plus, 750,732 parameters."""
    sam2 = without_weights(lambda: build_sam2('sam2.1_base_plus', 1024, checkpoint=None))
    plain = sum(p.numel() for p in sam2.parameters())
    expected = dict(
        image_encoder=(52, 265_356), memory_attention=(32, 475_136), memory_encoder=(1, 10_240)
    )
    for part, (layers, parameters) in expected.items():
        network = getattr(sam2, part)
        before = sum(p.numel() for p in network.parameters())
        names = add_lora(network, **LORA[part], name=part)
        assert len(names) == layers
        assert sum(p.numel() for p in network.parameters()) - before == parameters
    assert sam2.image_encoder.trunk.patch_embed.proj.lora.down.shape == (4, 3, 7, 7)
    widths = [n for n in layers_with_lora(sam2) if n.count('.') == 4 and n.endswith('.proj')]
    assert widths == [f'image_encoder.trunk.blocks.{i}.proj' for i in (2, 5, 21)]
    assert sum(p.numel() for p in sam2.parameters()) == plain + 750_732 == 81_600_910
