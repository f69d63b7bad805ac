"""Which encoder a state dict is of, told by its names and shapes, for messages."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

#: (channels of the first stage, number of blocks) -> size, of SAM 2's image encoder
SAM2_SIZES = {(96, 12): 'tiny', (96, 16): 'small', (112, 24): 'base_plus', (144, 48): 'large'}
#: (channels, number of blocks) -> arch, of DINOv2 and DINOv3
DINO_SIZES = {(384, 12): 'small', (768, 12): 'base', (1024, 24): 'large', (1536, 40): 'giant'}
#: the same of SAM 1's image encoder
SAM1_SIZES = {(768, 12): 'vit_b', (1024, 24): 'vit_l', (1280, 32): 'vit_h'}
#: names that tell a family of vision transformers, the family, and whose names they are, '' for its
#: own; the first that is there counts
_DINO_KEYS = (
    ('storage_tokens', 'DINOv3', ''),
    ('rope_embed.periods', 'DINOv3', ''),
    ('reg_token', 'DINOv3', "timm's"),
    ('embeddings.position_embeddings', 'DINOv2', "transformers'"),
    ('embeddings.register_tokens', 'DINOv3', "transformers'"),
    ('pos_embed', 'DINOv2', ''),
)


def sam2_name(state: Mapping[str, Tensor]) -> str | None:
    """Name in :data:`mmfss.encoders.sam2.archs.ARCHS` of weights of SAM 2 under their official
    names; None for another size, or others."""
    trunk = 'image_encoder.trunk.'
    size = SAM2_SIZES.get(_size(state, f'{trunk}patch_embed.proj.weight', 0, f'{trunk}blocks.'))
    version = 'sam2.1' if 'no_obj_embed_spatial' in state else 'sam2'
    return None if size is None else f'{version}_{size}'


def dinov2_name(state: Mapping[str, Tensor]) -> str | None:
    """Name in :data:`mmfss.encoders.dinov2.ARCHS` of weights of DINOv2 under their official names;
    None for another size, for models with register tokens, or others."""
    if 'register_tokens' in state or 'pos_embed' not in state:
        return None
    return DINO_SIZES.get(_size(state, 'cls_token', -1, 'blocks.'))


def recognised(state: Mapping[str, Tensor]) -> str:
    """What weights are of, in words, with the encoder's type and arch; '' where nobody knows.

    Args:
        state: names and tensors, official ones or, of DINOv2 and DINOv3, those of timm and
            transformers.
    """
    if 'image_encoder.trunk.patch_embed.proj.weight' in state:
        name = sam2_name(state)
        return f'SAM 2, arch {name!r}' if name else 'SAM 2, of a size that is not official'
    if 'image_encoder.patch_embed.proj.weight' in state:
        size = _size(state, 'image_encoder.patch_embed.proj.weight', 0, 'image_encoder.blocks.')
        return f'SAM 1, {_arch(SAM1_SIZES, size)}'
    marker = next((one for one in _DINO_KEYS if one[0] in state), None)
    if marker is None or not {'cls_token', 'embeddings.cls_token'} & set(state):
        return ''
    key, family, names = marker
    ours = not key.startswith('embeddings')
    token = 'cls_token' if ours else 'embeddings.cls_token'
    blocks = r'blocks\.' if ours else r'(?:model\.|encoder\.)?layer\.'
    said = f'{family}, {_arch(DINO_SIZES, _size(state, token, -1, blocks))}'
    if family == 'DINOv2' and {'register_tokens', 'embeddings.register_tokens'} & set(state):
        said += ' with register tokens'
    if 'blocks.0.mlp.w1.weight' in state:
        said += ' plus'  # DINOv3's name for gated feed-forward layers
    return said + (f' under {names} names' if names else '')


def _arch(sizes: Mapping[tuple[int, int], str], size: tuple[int, int]) -> str:
    width, depth = size
    return f'arch {sizes[size]!r}' if size in sizes else f'{depth} blocks of {width} channels'


def _size(state: Mapping[str, Tensor], key: str, axis: int, blocks: str) -> tuple[int, int]:
    """Length of an axis of a tensor (0 where it is absent), and the number of blocks.

    Args:
        blocks: pattern of what stands before the number of a block.
    """
    width = state[key].shape[axis] if key in state and state[key].ndim else 0
    found = (re.match(rf'{blocks}(\d+)\.', name) for name in state)
    return int(width), len({match[1] for match in found if match})
