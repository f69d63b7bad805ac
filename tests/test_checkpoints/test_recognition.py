"""Weights of another encoder or size are told apart by their names and shapes."""

from __future__ import annotations

import re

import pytest
import torch
from tiny_models import TINY_DINO, tiny_arch

from mmfss.checkpoints.conversion import without_weights
from mmfss.checkpoints.recognition import dinov2_name, recognised, sam2_name
from mmfss.checkpoints.weights import check_state_dict, load_strict
from mmfss.encoders.dinov2 import ARCHS as DINOV2_ARCHS
from mmfss.encoders.dinov2 import DINOv2, DINOv2ViT
from mmfss.encoders.sam2.archs import ARCHS
from mmfss.encoders.sam2.model import build_sam2


def dinov2(arch):
    return without_weights(lambda: DINOv2ViT(**DINOV2_ARCHS[arch])).state_dict()


def dinov3(width, depth, names='its own'):
    """Some names of DINOv3's official checkpoints, of timm's or transformers' copies."""
    token, extra, block = {
        'its own': ('cls_token', 'storage_tokens', 'blocks.{}.attn.qkv.bias_mask'),
        'timm': ('cls_token', 'reg_token', 'blocks.{}.gamma_1'),
        'transformers': (
            'embeddings.cls_token',
            'embeddings.register_tokens',
            'layer.{}.norm1.weight',
        ),
    }[names]
    state = {token: torch.ones(1, 1, width), extra: torch.ones(1, 4, width)}
    return state | {block.format(i): torch.ones(width) for i in range(depth)}


def sam1(width, depth):
    state = {'image_encoder.patch_embed.proj.weight': torch.ones(width, 3, 16, 16)}
    return state | {f'image_encoder.blocks.{i}.norm1.weight': torch.ones(1) for i in range(depth)}


@pytest.mark.parametrize('arch', ARCHS)
def test_every_official_sam2(arch):
    state = without_weights(lambda: build_sam2(arch)).state_dict()
    assert sam2_name(state) == arch
    assert recognised(state) == f'SAM 2, arch {arch!r}'


@pytest.mark.parametrize('arch', DINOV2_ARCHS)
def test_every_official_dinov2(arch):
    state = dinov2(arch)
    assert dinov2_name(state) == arch and recognised(state) == f'DINOv2, arch {arch!r}'
    state['register_tokens'] = torch.ones(1)
    assert dinov2_name(state) is None
    assert recognised(state) == f'DINOv2, arch {arch!r} with register tokens'


@pytest.mark.parametrize(
    'state, said',
    [
        (dinov3(384, 12), "DINOv3, arch 'small'"),
        (dinov3(1024, 24), "DINOv3, arch 'large'"),
        (dinov3(4096, 40), 'DINOv3, 40 blocks of 4096 channels'),
        (dinov3(384, 12) | {'blocks.0.mlp.w1.weight': 0}, "DINOv3, arch 'small' plus"),
        (dinov3(768, 12, 'timm'), "DINOv3, arch 'base' under timm's names"),
        (dinov3(768, 12, 'transformers'), "DINOv3, arch 'base' under transformers' names"),
        (
            {
                'embeddings.cls_token': torch.ones(1, 1, 384),
                'embeddings.position_embeddings': 0,
            }
            | {f'encoder.layer.{i}.norm1.weight': 0 for i in range(12)},
            "DINOv2, arch 'small' under transformers' names",
        ),
        (sam1(768, 12), "SAM 1, arch 'vit_b'"),
        (sam1(1280, 32), "SAM 1, arch 'vit_h'"),
        (sam1(64, 2), 'SAM 1, 2 blocks of 64 channels'),
        ({'conv1.weight': torch.ones(1), 'pos_embed': torch.ones(1)}, ''),
        ({}, ''),
    ],
)
def test_others(state, said):
    assert recognised(state) == said


@pytest.mark.parametrize(
    'content, said',
    [
        (
            dinov3(384, 12),
            "these weights are of DINOv3, arch 'small', not of DINOv2, 1 blocks of 16",
        ),
        (sam1(768, 12), "these weights are of SAM 1, arch 'vit_b', not of DINOv2"),
        (
            dict(model=sam1(1280, 32)),
            "holds no state dict of .*; it holds weights of SAM 1, arch 'vi",
        ),
    ],
)
def test_a_file_of_another_encoder_under_dinov2s_name(tmp_path, content, said):
    path = str(tmp_path / 'dinov2_vits14_pretrain.pth')
    torch.save(content, path)
    with pytest.raises(ValueError, match=said):
        DINOv2(TINY_DINO, 70, checkpoint=path).load_pretrained()


def test_another_size_is_said_with_both_archs():
    large, base = ({k: torch.zeros(1).expand(v.shape) for k, v in dinov2(name).items()}
                   for name in ('large', 'base'))  # fmt: skip
    with pytest.raises(
        ValueError, match=r"of DINOv2, arch 'large', not of DINOv2, arch 'base'\. Use the checkp"
    ):
        check_state_dict(base, large, 'DINOv2 (base) from a.pth')


def test_what_is_of_the_same_arch_is_not_called_another(tmp_path):
    sam2 = build_sam2(tiny_arch(), 64, checkpoint=None)
    state = sam2.state_dict()
    state.pop('maskmem_tpos_enc')
    torch.save(state, tmp_path / 'x.pt')
    with pytest.raises(ValueError) as caught:
        load_strict(sam2, str(tmp_path / 'x.pt'), 'SAM 2')
    assert re.search(r'1 missing keys: maskmem_tpos_enc\. Use', str(caught.value))
