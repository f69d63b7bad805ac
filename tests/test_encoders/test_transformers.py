"""DINOv2 and DINOv3 with the same random weights in transformers' own models."""

from __future__ import annotations

import re

import pytest
import torch
from tiny_models import randomised
from torch import Tensor

from mmfss.encoders.dinov2 import DINOv2ViT
from mmfss.encoders.dinov3 import DINOv3ViT, official_names

transformers = pytest.importorskip('transformers', reason='mmfss[sam1] has it')
SIDES = (64, 96, 160)
"""Of patches of 16 px; both were made for the first."""


def images(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))


@torch.no_grad()
def test_dinov3():
    options = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=3)
    config = transformers.DINOv3ViTConfig(
        **options, intermediate_size=192, num_register_tokens=4, image_size=SIDES[0]
    )
    theirs = randomised(transformers.DINOv3ViTModel(config)).eval()
    ours = DINOv3ViT(48, 3, 3).eval()
    state = theirs.state_dict()
    # as they are in its models, and in files of the hub
    of_hub = {key.removeprefix('model.'): value for key, value in state.items()}
    for names in (state, of_hub):
        ours.load_state_dict(official_names(names, ours.state_dict()))
        for side in SIDES:
            want = theirs(images(side)).last_hidden_state[:, 5:]
            got = ours(images(side)).flatten(2).transpose(1, 2)
            torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4)


def of_dinov2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names of DINOv2 to the official ones."""
    plain = {
        r'embeddings\.(cls_token|mask_token)': r'\1',
        r'embeddings\.position_embeddings': 'pos_embed',
        r'embeddings\.patch_embeddings\.projection': 'patch_embed.proj',
        r'encoder\.layer\.(\d+)': r'blocks.\1',
        r'layer_scale([12])\.lambda1': r'ls\1.gamma',
        r'attention\.o_proj': 'attn.proj',
        r'^layernorm': 'norm',
    }
    named = {}
    for key, value in state.items():
        for pattern, name in plain.items():
            key = re.sub(pattern, name, key)
        named[key] = value
    for i in range(3):
        for kind in ('weight', 'bias'):
            at = f'blocks.{i}.attention'
            parts = [named.pop(f'{at}.{one}_proj.{kind}') for one in 'qkv']
            named[f'blocks.{i}.attn.qkv.{kind}'] = torch.cat(parts)
    return named


@torch.no_grad()
def test_dinov2_before_and_after_the_final_norm():
    options = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=3)
    config = transformers.Dinov2Config(**options, image_size=SIDES[0], patch_size=16)
    theirs = randomised(transformers.Dinov2Model(config)).eval()
    # it resizes the position table by size, without the official code's offset
    ours = DINOv2ViT(48, 3, 3, patch_size=16, img_size=SIDES[0], interpolate_offset=0.0).eval()
    ours.load_state_dict(of_dinov2(theirs.state_dict()))
    for side in SIDES:
        found = theirs(images(side), output_hidden_states=True)
        for final_norm, want in ((True, found.last_hidden_state), (False, found.hidden_states[-1])):
            got = ours(images(side), final_norm).flatten(2).transpose(1, 2)
            torch.testing.assert_close(got, want[:, 1:], atol=5e-5, rtol=1e-4)
        assert not torch.allclose(found.last_hidden_state, found.hidden_states[-1], atol=1e-2)
