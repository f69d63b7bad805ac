"""Position tables: those of sam2, made once, and made anew when the weights change."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.position_encoding import PositionEmbeddingSine
from tiny_models import SIZE, randomised, tiny_arch

from mmfss.encoders.dinov2 import DINOv2ViT
from mmfss.encoders.kept_tables import KeptHiera, KeptSine, KeptTables, keep_tables
from mmfss.encoders.sam2.model import build_sam2

HIERA = dict(embed_dim=8, stages=[1, 1, 2, 1], global_att_blocks=[3])


def hiera() -> tuple[KeptHiera, Hiera]:
    """Ours and sam2's, with the same weights."""
    torch.manual_seed(0)
    ours, theirs = randomised(KeptHiera(**HIERA)).eval(), Hiera(**HIERA).eval()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def dino() -> tuple[DINOv2ViT, DINOv2ViT]:
    """Two with the same weights; nothing is kept by the second."""
    torch.manual_seed(0)
    ours = randomised(DINOv2ViT(16, 1, 2, img_size=56)).eval()
    return ours, copy.deepcopy(ours).requires_grad_(True)


def tables(pair, frozen: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Position tables of ours, as kept, and as it should be."""
    ours, theirs = pair
    if frozen:
        ours.requires_grad_(False)
    if isinstance(ours, DINOv2ViT):
        return ours.resized_pos_embed(5, 6), theirs.resized_pos_embed(5, 6)
    return ours._get_pos_embed((16, 16)), theirs._get_pos_embed((16, 16))


def add_one(pair) -> None:
    for module in pair:
        with torch.no_grad():
            module.pos_embed.add_(1.0)


def load(pair) -> None:
    for module in pair:
        module.load_state_dict({k: v * 2 for k, v in module.state_dict().items()})


def there_and_back(pair) -> None:
    for module in pair:
        module.to(torch.bfloat16).to(torch.float32)


def replace(pair) -> None:
    for module in pair:
        module.pos_embed = torch.nn.Parameter(torch.ones_like(module.pos_embed) * 3)


def to_double(pair) -> None:
    for module in pair:
        module.to(torch.float64)


@pytest.mark.parametrize('make', [hiera, dino])
@pytest.mark.parametrize('change', [add_one, load, there_and_back, replace, to_double])
def test_a_table_is_made_anew_when_the_weights_change(make, change):
    pair = make()
    first, want = tables(pair)
    assert torch.equal(first, want) and not first.requires_grad
    assert tables(pair)[0] is first
    change(pair)
    second, want = tables(pair)
    assert torch.equal(second, want) and second.dtype == want.dtype
    assert not torch.equal(second, first.to(second.dtype)) or change is to_double


@pytest.mark.parametrize('make', [hiera, dino])
def test_each_size_has_its_own(make):
    pair = make()
    table = tables(pair)[0]
    for module in pair:
        other = (
            module.resized_pos_embed(7, 3)
            if isinstance(module, DINOv2ViT)
            else module._get_pos_embed((24, 24))
        )
        assert other.shape != table.shape
    assert tables(pair)[0] is table


@pytest.mark.parametrize('make', [hiera, dino])
def test_weights_that_learn_get_their_gradient(make):
    pair = make()
    grads = []
    for table, module in zip(tables(pair, frozen=False), pair):
        table.square().sum().backward()
        grads.append(module.pos_embed.grad)
    assert torch.equal(*grads) and grads[0].any()
    with torch.no_grad():  # kept in evaluation between two steps, and not over one
        before = tables(pair, frozen=False)[0]
        assert tables(pair, frozen=False)[0] is before
    torch.optim.SGD(pair[0].parameters(), 0.1).step()
    with torch.no_grad():
        assert not torch.equal(tables(pair, frozen=False)[0], before)


@pytest.mark.parametrize('make', [hiera, dino])
def test_a_table_made_in_inference_mode_serves_training_of_the_rest(make):
    pair = make()
    with torch.inference_mode():
        tables(pair)
    table = tables(pair)[0]
    assert not table.is_inference()
    x = torch.ones((), requires_grad=True)
    (x * table).sum().backward()
    assert torch.isclose(x.grad, table.sum(), rtol=1e-3)


@pytest.mark.parametrize('make', [hiera, dino])
def test_tables_are_no_state_and_are_not_copied(make):
    pair = make()
    keys = set(pair[0].state_dict())
    tables(pair)
    assert set(pair[0].state_dict()) == keys
    for twin in (copy.deepcopy(pair[0]), pickle.loads(pickle.dumps(pair[0]))):
        kept = [value for value in vars(twin).values() if isinstance(value, KeptTables)]
        assert len(kept) == 1 and not kept[0]._kept
        assert torch.equal(tables((twin, pair[1]))[0], tables(pair)[1])


def test_outputs_of_the_trunk():
    ours, theirs = hiera()
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        for _ in range(2):
            for mine, want in zip(ours(images), theirs(images)):
                assert torch.equal(mine, want)


def test_sine_positions_are_shared_and_equal():
    ours, theirs = KeptSine(8), PositionEmbeddingSine(8)
    x = torch.zeros(3, 8, 4, 5)
    for _ in range(2):
        assert torch.equal(ours(x), theirs(x)) and ours(x).shape == (3, 8, 4, 5)
    assert ours(x).stride(0) == 0 and ours(x).data_ptr() == ours(x[:1]).data_ptr()
    assert ours(x.to('meta')).device.type == 'meta'


def test_every_table_of_sam2_is_kept_and_other_classes_stay():
    model = build_sam2(tiny_arch(), SIZE)
    assert type(model.image_encoder.trunk) is KeptHiera
    assert type(model.image_encoder.neck.position_encoding) is KeptSine
    assert type(model.memory_encoder.position_encoding) is KeptSine
    cfg = dict(trunk=dict(_target_='my.Trunk', parts=[dict(_target_='my.Part')]))
    keep_tables(cfg)
    assert cfg == dict(trunk=dict(_target_='my.Trunk', parts=[dict(_target_='my.Part')]))
