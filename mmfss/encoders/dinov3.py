"""DINOv3 vision transformer as an encoder, with the parameter names of its official checkpoints.

Architecture: Siméoni et al., "DINOv3" (arXiv 2508.10104). Written from its description; its layers
are those of DINOv2 where these are the same. The weights are under Meta's DINOv3 License and are
handed out on request; a file is given by its path.

Shapes: N images, T = 1 + R + h w tokens (class, R storage tokens, patches), C channels, of which a
head has d.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmfss.functional import up

from .dinov2 import ARCHS as DINOV2_ARCHS
from .dinov2 import DINO, Block, Mlp, PatchEmbed, SelfAttention
from .kept_tables import KeptTables

ARCHS = {name: DINOV2_ARCHS[name] for name in ('small', 'base', 'large')}


class MaskedBiasLinear(nn.Linear):
    """Linear layer whose bias is multiplied by a stored mask: keys have none."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 3 * dim)
        self.register_buffer('bias_mask', torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(dim))

    def forward(self, x: Tensor) -> Tensor:
        # W x + m b, m = 1 for q and v, 0 for k
        return F.linear(x, self.weight, self.bias * self.bias_mask)


class RotaryAttention(SelfAttention):
    """Self-attention with rotary position on the queries and keys of patches."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)
        self.qkv = MaskedBiasLinear(dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(N, T, C); ``cos`` and ``sin`` (h w, d) of the patches, which are the last tokens."""
        # softmax(q k^T / sqrt(d)) v, per head
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the last tokens of (..., T, d), as many as ``cos`` and ``sin`` (n, d) have; those
    before, class and storage tokens, have no place and stay."""
    first = x.shape[-2] - len(cos)
    patches = x[..., first:, :]
    one, other = patches.chunk(2, -1)
    # q' = q cos + rot(q) sin, rot([a, b]) = [-b, a]
    turned = patches * cos + torch.cat([-other, one], -1) * sin
    return torch.cat([x[..., :first, :], turned.to(x.dtype)], -2)


class RotaryPosition(nn.Module):
    """Angles of the patches of an image, the same for all blocks and heads.

    Args:
        head_dim: d.
        base: the longest period is just below this.
    """

    def __init__(self, head_dim: int, base: float) -> None:
        super().__init__()
        # T_i = base^(2 i / (d / 2)), i = 0 .. d/4 - 1
        exponent = 2 * torch.arange(head_dim // 4) / (head_dim // 2)
        self.register_buffer('periods', base**exponent)
        self._tables = KeptTables()

    def forward(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (height width, d) float32; kept for each size."""

        def make() -> Tensor:
            # y = 2 (r + 1/2) / h - 1 and x likewise: in [-1, 1] for any size
            device = self.periods.device
            sides = [2 * (torch.arange(n, device=device) + 0.5) / n - 1 for n in (height, width)]
            places = torch.stack(torch.meshgrid(*sides, indexing='ij'), -1)
            # 2 pi y / T_i, then 2 pi x / T_i: d / 2 angles, which come twice
            angles = 2 * torch.pi * places[..., None] / self.periods.float()
            angles = angles.flatten(0, 1).flatten(1).repeat(1, 2)
            return torch.stack([angles.cos(), angles.sin()])

        cos, sin = self._tables.get((height, width), make, self.periods)
        return cos, sin


class DINOv3ViT(nn.Module):
    """The transformer alone. State-dict keys are those of the official checkpoints.

    Args:
        embed_dim, depth, num_heads: size of the transformer.
        patch_size: pixels.
        mlp_ratio: width of the feed-forward layer over ``embed_dim``.
        num_storage_tokens: R.
        rope_base: of :class:`RotaryPosition`.

    Raises:
        ValueError: channels that cannot be divided into heads and these into four.
    """

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
        num_storage_tokens: int = 4,
        rope_base: float = 100.0,
    ) -> None:
        super().__init__()
        if embed_dim % (4 * num_heads):
            raise ValueError(
                f'embed_dim must be a multiple of 4 num_heads (two axes, sine and cosine), got '
                f'{embed_dim} and {num_heads} heads'
            )
        eps = 1e-5  # DINOv2 has 1e-6
        self.patch_size = patch_size
        self.num_storage_tokens = num_storage_tokens
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.storage_tokens = nn.Parameter(torch.zeros(1, num_storage_tokens, embed_dim))
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))  # in the checkpoints, unused
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.rope_embed = RotaryPosition(embed_dim // num_heads, rope_base)
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                RotaryAttention(embed_dim, num_heads),
                Mlp(embed_dim, int(embed_dim * mlp_ratio)),
                eps,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=eps)
        for table in (self.cls_token, self.storage_tokens):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, x: Tensor, final_norm: bool = True) -> Tensor:
        """Patch tokens of the last block.

        Args:
            x: (N, 3, H, W) normalised images, H and W multiples of ``patch_size``.
            final_norm: after the final norm, or as the block gives them.

        Returns:
            (N, C, H / patch_size, W / patch_size).
        """
        height, width = (side // self.patch_size for side in x.shape[-2:])
        first = torch.cat([self.cls_token, self.storage_tokens], 1).expand(len(x), -1, -1)
        tokens = torch.cat([first, self.patch_embed(x)], 1)
        cos, sin = self.rope_embed(height, width)
        for block in self.blocks:
            tokens = block(tokens, cos, sin)
        # F = norm(x_L) of the patches, or x_L
        tokens = self.norm(tokens) if final_norm else tokens
        patches = tokens[:, 1 + self.num_storage_tokens :]
        return patches.transpose(1, 2).unflatten(-1, (height, width))


@MODELS.register_module()
class DINOv3(DINO):
    """DINOv3: patch features of the last block, (N, C, image_size / 16, image_size / 16).

    Args:
        arch: ``small``, ``base``, ``large``, or a dict of arguments of :class:`DINOv3ViT`.
        image_size, final_norm: see :class:`~mmfss.encoders.dinov2.DINO`.
        checkpoint: path of a file: the official one, or a copy under the names of timm or of
            transformers, ``.safetensors`` too. None for random weights; ``official`` for the file
            that a person put among the official weights, :mod:`mmfss.checkpoints.official`.

    Raises:
        ValueError: see :class:`~mmfss.encoders.dinov2.DINO`.
    """

    kind, archs, network = 'dinov3', ARCHS, DINOv3ViT

    def __init__(
        self,
        arch: str | dict = 'large',
        image_size: int = 1024,
        checkpoint: str | None = 'official',
        final_norm: bool = True,
    ) -> None:
        super().__init__(arch, image_size, checkpoint, final_norm)

    def named(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict under the official names, see :func:`official_names`."""
        return official_names(state, self.vit.state_dict())

    def prepared(self, images: Tensor) -> Tensor:
        """RGB 0..255 as the transformer takes it."""
        size = (self.image_size, self.image_size)
        return self.normalise(images if tuple(images.shape[-2:]) == size else up(images, size))


#: of timm and transformers: pattern -> official name
_NAMES = (
    (r'reg_token', 'storage_tokens'),
    (r'(blocks\.\d+)\.gamma_([12])', r'\1.ls\2.gamma'),
    (r'embeddings\.(cls_token|mask_token)', r'\1'),
    (r'embeddings\.register_tokens', 'storage_tokens'),
    (r'embeddings\.patch_embeddings\.(weight|bias)', r'patch_embed.proj.\1'),
    (r'(?:model\.)?layer\.(\d+\.norm[12]\..+)', r'blocks.\1'),
    (r'(?:model\.)?layer\.(\d+)\.layer_scale([12])\.lambda1', r'blocks.\1.ls\2.gamma'),
    (r'(?:model\.)?layer\.(\d+)\.attention\.o_proj\.(.+)', r'blocks.\1.attn.proj.\2'),
    (r'(?:model\.)?layer\.(\d+)\.mlp\.up_proj\.(.+)', r'blocks.\1.mlp.fc1.\2'),
    (r'(?:model\.)?layer\.(\d+)\.mlp\.down_proj\.(.+)', r'blocks.\1.mlp.fc2.\2'),
    (r'(?:model\.)?layer\.(\d+)\.attention\.([qkv])_proj\.(.+)', r'blocks.\1.attn.\2.\3'),
    (r'(blocks\.\d+\.attn)\.([qkv])_bias', r'\1.\2.bias'),
)


def official_names(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A state dict of DINOv3 under its official names.

    Args:
        state: official, which is given back as it is, or of timm or transformers: these lack
            constants and biases that are 0, and have q, k and v or their biases apart.
        expected: state dict of the model, whose constants are taken for those that lack.

    Raises:
        ValueError: two keys for one official name.
    """
    if not {'reg_token', 'embeddings.register_tokens'} & set(state):
        return dict(state)
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        for pattern, name in _NAMES:
            key = re.sub(f'^{pattern}$', name, key)
        if key in named:
            raise ValueError(f'two entries of the checkpoint are {key} of DINOv3')
        named[key] = value
    for key, wanted in expected.items():
        at, _, kind = key.rpartition('qkv.')
        parts = {one: named.get(f'{at}{one}.{kind}') for one in 'qkv'}
        if key.endswith(('bias_mask', 'periods')):
            named.setdefault(key, wanted)
        elif key in named or kind not in ('weight', 'bias'):
            continue
        elif kind == 'bias' and 'reg_token' in state and parts['q'] is None and parts['v'] is None:
            named[key] = torch.zeros_like(wanted)
        elif all(part is not None or (kind, one) == ('bias', 'k') for one, part in parts.items()):
            zero = wanted.new_zeros(len(wanted) // 3)  # keys have no bias
            found = [named.pop(f'{at}{one}.{kind}', zero).float() for one in 'qkv']
            named[key] = torch.cat(found)
    named['mask_token'] = named.get('mask_token', expected['mask_token']).reshape(1, -1)
    return named
