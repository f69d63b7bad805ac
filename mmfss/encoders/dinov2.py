"""DINOv2 vision transformer as an encoder, with the parameter names of its official checkpoints.

Architecture: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (TMLR
2024), https://github.com/facebookresearch/dinov2 (Apache-2.0). Only the last block is returned.

Shapes: N images, T = 1 + R + h w tokens (class, R registers, patches), C channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmfss.checkpoints.official import OFFICIAL, checkpoint_file, official
from mmfss.checkpoints.weights import load_state, read_state

from .base import Encoder
from .kept_tables import KeptTables

ARCHS = {
    'small': dict(embed_dim=384, depth=12, num_heads=6),
    'base': dict(embed_dim=768, depth=12, num_heads=12),
    'large': dict(embed_dim=1024, depth=24, num_heads=16),
    'giant': dict(embed_dim=1536, depth=40, num_heads=24, ffn_layer='swiglu'),
}


class PatchEmbed(nn.Module):
    """(N, 3, H, W) -> (N, h w, C) patch tokens."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        # stride = kernel: patches do not overlap, h w = H W / p^2
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection for q, k and v."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        # softmax(q k^T / sqrt(d)) v, per head
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(*qkv.unbind(0))
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        # W_2 gelu(W_1 x)
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGLU(nn.Module):
    """Gated feed-forward of the giant model: two thirds of the width, rounded up to 8."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # two thirds: three matrices have then as many weights as the two of an Mlp
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        # W_3 (silu(W_1 x) * W_2 x); w12 holds W_1 and W_2
        return self.w3(F.silu(gate) * value)


class LayerScale(nn.Module):
    """Learned factor for each channel."""

    def __init__(self, dim: int, init: float = 1.0) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        # gamma x, per channel
        return x * self.gamma


FFN_LAYERS = {'mlp': Mlp, 'swiglu': SwiGLU}


class Block(nn.Module):
    """Pre-norm transformer block with layer scale.

    Args:
        dim: C.
        attn, mlp: its two layers, of (N, T, C) each.
        eps: of the norms.
    """

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attn
        self.ls1 = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = mlp
        self.ls2 = LayerScale(dim)

    def forward(self, x: Tensor, *position: Tensor) -> Tensor:
        # x <- x + gamma_1 attn(norm1(x)), x <- x + gamma_2 mlp(norm2(x))
        x = x + self.ls1(self.attn(self.norm1(x), *position))
        return x + self.ls2(self.mlp(self.norm2(x)))


class DINOv2ViT(nn.Module):
    """The transformer alone. State-dict keys are those of the official checkpoints.

    Args:
        embed_dim, depth, num_heads: size of the transformer.
        patch_size: pixels.
        img_size: side in pixels that the position table was trained for.
        mlp_ratio: width of the feed-forward layer over ``embed_dim``.
        ffn_layer: ``mlp`` or ``swiglu``.
        qkv_bias: whether the q, k, v projection has a bias.
        num_register_tokens: R (the official ``_reg`` models have 4).
        interpolate_antialias, interpolate_offset: how the position table is resized; official
            models without registers: False and 0.1.
    """

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int = 14,
        img_size: int = 518,
        mlp_ratio: float = 4.0,
        ffn_layer: str = 'mlp',
        qkv_bias: bool = True,
        num_register_tokens: int = 0,
        interpolate_antialias: bool = False,
        interpolate_offset: float = 0.1,
    ) -> None:
        super().__init__()
        if ffn_layer not in FFN_LAYERS:
            raise ValueError(f'ffn_layer must be one of {sorted(FFN_LAYERS)}, got {ffn_layer!r}')
        if embed_dim % num_heads:
            raise ValueError(f'embed_dim {embed_dim} is not divisible by num_heads {num_heads}')
        eps = 1e-6  # of the official code, not torch's 1e-5
        self.patch_size = patch_size
        self.interpolate_antialias = interpolate_antialias
        self.interpolate_offset = interpolate_offset
        # 518 / 14 = 37: a table of 37 x 37 patches, and one entry for the class token
        grid = img_size // patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, embed_dim))
        if num_register_tokens:
            self.register_tokens = nn.Parameter(torch.zeros(1, num_register_tokens, embed_dim))
        self.num_register_tokens = num_register_tokens
        self._tables = KeptTables()
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))  # in the checkpoints, unused
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                SelfAttention(embed_dim, num_heads, qkv_bias),
                FFN_LAYERS[ffn_layer](embed_dim, int(embed_dim * mlp_ratio)),
                eps,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=eps)
        for table in (self.pos_embed, self.cls_token):
            nn.init.trunc_normal_(table, std=0.02)

    def resized_pos_embed(self, height: int, width: int) -> Tensor:
        """Position table (1, 1 + height width, C) for a grid of patches; kept for each size.

        Bicubic with ``scale_factor = (side + offset) / trained side`` as the official code does;
        resizing by ``size`` gives other numbers.
        """
        # the class token has no place: only the patches are resized
        grid = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if (height, width) == (grid, grid):
            return self.pos_embed

        def make() -> Tensor:
            table = self.pos_embed.float()
            patches = table[:, 1:].transpose(1, 2).unflatten(-1, (grid, grid))
            # scale = (h + 0.1) / 37, of which bicubic resampling takes its step: 37 / (h + 0.1)
            offset = self.interpolate_offset
            target = (
                dict(scale_factor=((height + offset) / grid, (width + offset) / grid))
                if offset
                else dict(size=(height, width))
            )
            patches = F.interpolate(
                patches, mode='bicubic', antialias=self.interpolate_antialias, **target
            )
            patches = patches.flatten(2).transpose(1, 2)
            return torch.cat([table[:, :1], patches], 1).to(self.pos_embed.dtype)

        return self._tables.get((height, width), make, self.pos_embed)

    def forward(self, x: Tensor, final_norm: bool = True) -> Tensor:
        """Patch tokens of the last block.

        Args:
            x: (N, 3, H, W) normalised images, H and W multiples of ``patch_size``.
            final_norm: after the final norm, or as the block gives them.

        Returns:
            (N, C, H / patch_size, W / patch_size).
        """
        height, width = (side // self.patch_size for side in x.shape[-2:])
        tokens = self.patch_embed(x)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1)
        # positions before the registers are put in: registers have none
        tokens = tokens + self.resized_pos_embed(height, width)
        if self.num_register_tokens:
            registers = self.register_tokens.expand(len(x), -1, -1)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
        for block in self.blocks:
            tokens = block(tokens)
        # F = norm(x_L) of the patches, or x_L; class token and registers are dropped
        tokens = self.norm(tokens) if final_norm else tokens
        patches = tokens[:, 1 + self.num_register_tokens :]
        return patches.transpose(1, 2).unflatten(-1, (height, width))


class DINO(Encoder):
    """What DINOv2 and DINOv3 have in common: a transformer by arch, a side, official weights.

    Args:
        arch: a name of ``archs``, or a dict of arguments of ``network``.
        image_size: side in pixels to which images are resized; a multiple of the patch size.
        checkpoint: ``official`` (see :mod:`mmfss.checkpoints.official`), a path or URL, or None.
        final_norm: give the patches after the final norm, or as the last block leaves them.

    Attributes:
        kind: of :func:`mmfss.checkpoints.official.official`.
        archs: name -> arguments of ``network``.
        network: the transformer.

    Raises:
        ValueError: unknown arch, an arch without the official weights that are asked for, or a side
            that is not a multiple of the patch size.
    """

    kind: str
    archs: Mapping[str, dict]
    network: type[nn.Module]

    def __init__(
        self, arch: str | dict, image_size: int, checkpoint: str | None, final_norm: bool
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if isinstance(arch, str) and arch not in self.archs:
            raise ValueError(
                f'{name}.arch must be one of {list(self.archs)}, or a dict with '
                f'embed_dim, depth and num_heads, got {arch!r}'
            )
        if checkpoint == OFFICIAL:
            official(self.kind, arch)
        self.arch, self.checkpoint = arch, checkpoint
        self.vit = self.network(**(self.archs[arch] if isinstance(arch, str) else arch))
        if image_size < self.vit.patch_size or image_size % self.vit.patch_size:
            raise ValueError(
                f'{name}.image_size must be a multiple of the patch size '
                f'{self.vit.patch_size}, got {image_size!r}'
            )
        self.image_size, self.final_norm = image_size, final_norm

    def load_pretrained(self) -> None:
        """Load the checkpoint strictly; does nothing where it is None.

        Raises:
            FileNotFoundError, ValueError: see :func:`mmfss.checkpoints.official.official_file` and
                :func:`mmfss.checkpoints.weights.load_strict`.
        """
        if self.checkpoint is None:
            return
        with checkpoint_file(self.kind, self.arch, self.checkpoint) as path:
            what = f'{type(self).__name__} ({self.arch})'
            load_state(self.vit, self.named(read_state(path, what)), f'{what} from {path}')

    def named(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of a file under the official names; by default it has them."""
        return state

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """(N, 3, S, S) RGB 0..255 -> (N, C, h, w), a position for each patch of ``image_size``."""
        return (self.vit(self.prepared(images), self.final_norm),)

    def prepared(self, images: Tensor) -> Tensor:
        """RGB 0..255 as the transformer takes it."""
        raise NotImplementedError


#: how images are resized -> arguments of torch's ``interpolate``
_RESIZES = {
    'corners': dict(align_corners=True),
    'centres': dict(align_corners=False),
    'antialias': dict(align_corners=False, antialias=True),
}


@MODELS.register_module()
class DINOv2(DINO):
    """DINOv2: patch features of the last block, (N, C, image_size / 14, image_size / 14).

    Args:
        arch: ``small``, ``base``, ``large``, ``giant``, or a dict of arguments of
            :class:`DINOv2ViT`.
        image_size, checkpoint, final_norm: see :class:`DINO`.
        resize: how images are resized to it, bilinear: ``corners`` puts the middles of the corner
            pixels on each other (FSSAM), ``centres`` the images' borders (GF-SAM), ``antialias``
            also looks at all pixels where it shrinks.

    Raises:
        ValueError: unknown way of resizing, or see :class:`DINO`.
    """

    kind, archs, network = 'dinov2', ARCHS, DINOv2ViT

    def __init__(
        self,
        arch: str | dict = 'base',
        image_size: int = 560,
        checkpoint: str | None = 'official',
        final_norm: bool = True,
        resize: str = 'corners',
    ) -> None:
        if resize not in _RESIZES:
            raise ValueError(f'DINOv2.resize must be one of {list(_RESIZES)}, got {resize!r}')
        super().__init__(arch, image_size, checkpoint, final_norm)
        self.resize = resize

    def prepared(self, images: Tensor) -> Tensor:
        """RGB 0..255 as the transformer takes it: resized at 0..255 and normalised after it, in the
        order of the methods."""
        size = (self.image_size, self.image_size)
        return self.normalise(F.interpolate(images, size, mode='bilinear', **_RESIZES[self.resize]))
