"""The eight published architectures, overrides of them, and errors of building."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import sam2
import torch
from hydra.utils import instantiate
from mmengine.registry import MODELS as ROOT_MODELS
from omegaconf import OmegaConf
from sam2.modeling.sam2_utils import LayerNorm2d
from tiny_models import SIZE, encoded, tiny_arch

from mmfss.checkpoints.official import WEIGHTS
from mmfss.encoders.sam2.archs import ARCHS
from mmfss.encoders.sam2.model import build_sam2
from mmfss.encoders.sam2.native_norm import NativeLayerNorm2d

#: entries of the state dict, parameters
COUNTS = {
    'sam2_tiny': (468, 38_946_242),
    'sam2_small': (516, 46_044_098),
    'sam2_base_plus': (612, 80_833_922),
    'sam2_large': (900, 224_430_386),
    'sam2.1_tiny': (471, 38_962_754),
    'sam2.1_small': (519, 46_060_610),
    'sam2.1_base_plus': (615, 80_850_434),
    'sam2.1_large': (903, 224_446_898),
}


@pytest.fixture
def without_memory(monkeypatch):
    """Modules built within take no memory; Hiera reads numbers of a linspace, which stays real."""
    linspace = torch.linspace
    monkeypatch.setattr(torch, 'linspace', functools.partial(linspace, device='cpu'))
    with torch.device('meta'):
        yield


def shapes(model) -> dict:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize('name', sorted(COUNTS))
def test_keys_are_those_of_the_package(without_memory, name):
    path = Path(sam2.__file__).parent / ARCHS[name]
    theirs = shapes(instantiate(OmegaConf.load(path).model, _recursive_=True))
    calibrated = dict(type='SupportCalibratedMemoryAttention')
    ours = shapes(build_sam2(name, memory_attention=calibrated))
    assert ours == theirs
    numbers = sum(torch.Size(shape).numel() for shape in ours.values())
    assert (len(ours), numbers) == COUNTS[name]


@pytest.mark.smoke
def test_each_name_has_official_weights():
    assert sorted(ARCHS) == sorted(COUNTS)
    assert [one.arch for one in WEIGHTS.values() if one.kind == 'sam2'] == list(ARCHS)


@pytest.mark.parametrize('name', ['sam2_medium', 'small', None, 3, dict(image_encoder={})])
def test_unknown_arch_prints_the_allowed_ones(name):
    with pytest.raises(ValueError, match=r"must be one of \['sam2.1_base_plus', .*'sam2_tiny'\]"):
        build_sam2(name)


def test_unknown_override_names_its_place_and_what_is_allowed():
    arch = dict(base='sam2_small', image_encoder=dict(trunk=dict(embed_dims=16)))
    message = r'sets model\.image_encoder\.trunk\.embed_dims, .*sam2_hiera_s\.yaml .*embed_dim.*'
    with pytest.raises(ValueError, match=message + r'window_spec'):
        build_sam2(arch)
    with pytest.raises(ValueError, match=r'sets model\.encoder, '):
        build_sam2(dict(base='sam2_small', encoder={}))


def test_image_size_has_one_place():
    with pytest.raises(ValueError, match=r'in model\.sam2\.image_size, not in its arch'):
        build_sam2(dict(base='sam2_small', image_size=64))


@pytest.mark.parametrize('size', [0, 32, 100, 512.0, '512', None])
def test_image_size_out_of_range(size):
    with pytest.raises(ValueError, match=f'multiple of 32 and at least 64 pixels, got {size!r}'):
        build_sam2('sam2_small', image_size=size)


@pytest.mark.parametrize('kind', ['MemoryAttention', 'ResNet', 7])
def test_unknown_memory_attention(kind):
    message = "type='SupportCalibratedMemoryAttention.*type='SAM2MemoryAttention"
    with pytest.raises(ValueError, match=message):
        build_sam2(tiny_arch(), 64, dict(type=kind))


def test_overrides_reach_the_model_and_leave_the_rest():
    arch = tiny_arch(num_layers=3)
    arch['image_encoder']['trunk']['window_spec'] = [
        8,
        4,
        4,
        2,
    ]  # not in the YAML
    given = copy.deepcopy(arch)
    model = build_sam2(arch, 96, dict(type='SupportCalibratedMemoryAttention', strength=3.0))
    assert len(model.memory_attention.layers) == 3
    assert model.image_encoder.trunk.window_spec == [8, 4, 4, 2]
    assert model.image_size == 96 and model.sam_image_embedding_size == 6
    attention = model.memory_attention.layers[0].cross_attn_image
    assert attention.strength == 3.0 and attention.freqs_cis.shape[0] == 36
    assert model.num_maskmem == 7 and model.sigmoid_scale_for_mem_enc == 20.0
    assert arch == given
    assert ROOT_MODELS.get('SAM2MemoryAttention') is None  # registered in mmseg's registry alone


@torch.no_grad()
def test_memory_layout_is_an_option_and_changes_no_number():
    torch.manual_seed(0)
    models = [build_sam2(tiny_arch(), SIZE, channels_last=value).eval() for value in (True, False)]
    models[1].load_state_dict(models[0].state_dict())
    images, masks = torch.rand(2, 3, SIZE, SIZE), torch.rand(2, 1, SIZE, SIZE)
    outs = []
    for model, last in zip(models, (True, False)):
        weight = model.sam_mask_decoder.output_upscaling[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) is last
        assert weight.is_contiguous() is not last
        norms = {type(m) for m in model.modules() if isinstance(m, LayerNorm2d)}
        assert norms == {NativeLayerNorm2d if last else LayerNorm2d}
        features = encoded(model, images)
        decoded = model.decode(features.top, features.high_res)
        outs.append((*model.encode_memory(features, masks), features.top, decoded.logits))
    for one, other in zip(*outs):
        torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match='channels_last must be True or False, got 1'):
        build_sam2(tiny_arch(), SIZE, channels_last=1)
