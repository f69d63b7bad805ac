"""Segment Anything (SAM 1) as an encoder, with the parameter names of its official checkpoints.

Architecture: Kirillov et al., "Segment Anything" (ICCV 2023),
https://github.com/facebookresearch/segment-anything (Apache-2.0). The image encoder is that of the
``transformers`` package, an optional dependency (``pip install "mmfss[sam1]"``); prompt encoder and
mask decoder are those of the ``sam2`` package, which took them over from SAM 1.

Shapes: N images, S image side, D = 256 channels of the image features, h = w = S / 16; Q prompts,
P points, a box being two of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor, nn

from mmfss.arguments import integer
from mmfss.checkpoints.official import OFFICIAL, official, official_file
from mmfss.checkpoints.weights import load_strict

from .base import Encoder

ARCHS = {
    'vit_b': dict(embed_dim=768, depth=12, num_heads=12, global_attn_indexes=(2, 5, 8, 11)),
    'vit_l': dict(embed_dim=1024, depth=24, num_heads=16, global_attn_indexes=(5, 11, 17, 23)),
    'vit_h': dict(embed_dim=1280, depth=32, num_heads=16, global_attn_indexes=(7, 15, 23, 31)),
}
#: what an arch that is a dict may set beside embed_dim, depth, num_heads and global_attn_indexes
_DEFAULTS = dict(
    img_size=1024, patch_size=16, window_size=14, mlp_ratio=4.0, qkv_bias=True, use_rel_pos=True,
    out_chans=256, mask_in_chans=16, num_multimask_outputs=3, iou_head_depth=3,
    iou_head_hidden_dim=256, transformer_depth=2, transformer_mlp_dim=2048, transformer_num_heads=8,
)  # fmt: skip
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

#: names of a parameter here (those of transformers and sam2) -> in official checkpoints
_NAMES = (
    (r'^image_encoder\.patch_embed\.projection\.', 'image_encoder.patch_embed.proj.'),
    (r'^image_encoder\.layers\.(\d+)\.layer_norm(\d)\.', r'image_encoder.blocks.\1.norm\2.'),
    (r'^image_encoder\.layers\.', 'image_encoder.blocks.'),
    (r'^image_encoder\.neck\.conv1\.', 'image_encoder.neck.0.'),
    (r'^image_encoder\.neck\.layer_norm1\.', 'image_encoder.neck.1.'),
    (r'^image_encoder\.neck\.conv2\.', 'image_encoder.neck.2.'),
    (r'^image_encoder\.neck\.layer_norm2\.', 'image_encoder.neck.3.'),
    (r'(transformer\.layers\.\d+\.mlp)\.layers\.0\.', r'\1.lin1.'),
    (r'(transformer\.layers\.\d+\.mlp)\.layers\.1\.', r'\1.lin2.'),
)


class PixelNormalise(nn.Module):
    """RGB 0..255 (N, 3, H, W) less SAM's mean, over its deviation. No state in checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        for name, values in (('mean', PIXEL_MEAN), ('std', PIXEL_STD)):
            values = torch.tensor(values).reshape(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        # y = (x - mean) / std
        return (images - self.mean) / self.std


@MODELS.register_module()
class SAM1(Encoder):
    """SAM 1: features of the image encoder, and masks of prompts on them.

    Its state dict has the official names (``image_encoder.blocks.0.norm1.weight``, ...); attributes
    have those of transformers and sam2.

    Args:
        arch: ``vit_b``, ``vit_l``, ``vit_h``, or a dict with embed_dim, depth, num_heads and
            global_attn_indexes of the image encoder, and what else differs from ViT-H (img_size,
            out_chans, transformer_mlp_dim, ...). Its ``img_size`` is the side of the images that
            the network takes: those of another side are resized.
        checkpoint: ``official`` (see :mod:`mmfss.checkpoints.official`), a path or URL, or None.

    Attributes:
        image_size: side S of the images that the network takes.
        image_encoder, prompt_encoder, mask_decoder: the three networks.

    Raises:
        ValueError: unknown arch, or an entry of it.
        ImportError: transformers is not installed.
    """

    def __init__(
        self, arch: str | Mapping[str, Any] = 'vit_h', checkpoint: str | None = 'official'
    ) -> None:
        super().__init__()
        needed = ('embed_dim', 'depth', 'num_heads', 'global_attn_indexes')
        if isinstance(arch, Mapping):
            entries, known = dict(arch), {*needed, *_DEFAULTS}
            if set(entries) - known or set(needed) - set(entries):
                raise ValueError(
                    f'SAM1.arch must have {list(needed)}, and may have {sorted(_DEFAULTS)}; got '
                    f'{sorted(entries)}'
                )
        elif arch in ARCHS:
            entries = ARCHS[arch]
        else:
            raise ValueError(
                f'SAM1.arch must be one of {list(ARCHS)}, or a dict with {", ".join(needed)}, got '
                f'{arch!r}'
            )
        cfg = {**_DEFAULTS, **entries}
        side, patch = cfg['img_size'], cfg['patch_size']
        if integer('SAM1.arch.img_size', side, patch) % patch:
            raise ValueError(f'SAM1.arch.img_size must be a multiple of {patch}, got {side!r}')
        self.arch = dict(arch) if isinstance(arch, Mapping) else arch
        if checkpoint == OFFICIAL:
            official('sam1', arch)
        self.checkpoint = checkpoint
        self.image_size, grid, dim = side, side // patch, cfg['out_chans']
        self.normalise = PixelNormalise()
        self.image_encoder = _image_encoder(cfg)
        self.prompt_encoder = PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(grid, grid),
            input_image_size=(side, side),
            mask_in_chans=cfg['mask_in_chans'],
        )
        self.mask_decoder = MaskDecoder(
            transformer_dim=dim,
            transformer=TwoWayTransformer(
                depth=cfg['transformer_depth'],
                embedding_dim=dim,
                num_heads=cfg['transformer_num_heads'],
                mlp_dim=cfg['transformer_mlp_dim'],
            ),
            num_multimask_outputs=cfg['num_multimask_outputs'],
            iou_head_depth=cfg['iou_head_depth'],
            iou_head_hidden_dim=cfg['iou_head_hidden_dim'],
        )
        self.register_state_dict_post_hook(_to_official)
        self.register_load_state_dict_pre_hook(_from_official)

    def load_pretrained(self) -> None:
        """Load the checkpoint strictly; does nothing where it is None."""
        if self.checkpoint is not None:
            own = self.checkpoint != OFFICIAL
            path = self.checkpoint if own else official_file('sam1', self.arch)
            load_strict(self, path, what=f'SAM 1 ({self.arch})')

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """(N, 3, H, W) RGB 0..255 -> (N, D, h, w); images of another side are resized to S x S."""
        size = (self.image_size, self.image_size)
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images, size, mode='bilinear', align_corners=False)
        return (self.image_encoder(self.normalise(images)).last_hidden_state,)

    def decode(
        self,
        features: Tensor,
        coords: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        multimask: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Masks of Q prompts on one image: points, boxes, masks, or several of these.

        Args:
            features: (1, D, h, w) of :meth:`forward`.
            coords: (Q, P, 2) x, y in pixels of the S x S image.
            labels: (Q, P): 1 on the object, 0 off it, -1 for no point.
            boxes: (Q, 4) x0, y0, x1, y1.
            masks: (Q, 1, S/4, S/4) logits of earlier masks.
            multimask: give the three candidates, or the mask of the single-mask token.

        Returns:
            (Q, 3 or 1, S/4, S/4) float32 logits and (Q, 3 or 1) predicted IoUs.
        """
        points = None if coords is None else (coords, labels)
        sparse, dense = self.prompt_encoder(points=points, boxes=boxes, masks=masks)
        logits, ious, _, _ = self.mask_decoder(
            image_embeddings=features,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            repeat_image=True,
        )
        return logits.float(), ious.float()


def _image_encoder(cfg: Mapping[str, Any]) -> nn.Module:
    """The image encoder of transformers, with random weights."""
    try:
        from transformers import SamVisionConfig
        from transformers.models.sam.modeling_sam import SamVisionEncoder
    except ImportError as error:
        raise ImportError(
            "SAM 1's image encoder is that of the transformers package, 4.56 or newer: "
            'pip install "transformers>=4.56,<6" (or pip install "mmfss[sam1]")'
        ) from error
    config = SamVisionConfig(
        hidden_size=cfg['embed_dim'],
        num_hidden_layers=cfg['depth'],
        num_attention_heads=cfg['num_heads'],
        global_attn_indexes=list(cfg['global_attn_indexes']),
        image_size=cfg['img_size'],
        patch_size=cfg['patch_size'],
        window_size=cfg['window_size'],
        mlp_dim=int(cfg['embed_dim'] * cfg['mlp_ratio']),
        qkv_bias=cfg['qkv_bias'],
        use_rel_pos=cfg['use_rel_pos'],
        output_channels=cfg['out_chans'],
        layer_norm_eps=1e-6,
        initializer_range=0.02,  # its default of 1e-10 gives random weights without any features
    )
    # softmax(q k^T / sqrt(d) + r) v without the attention matrix of each head in memory
    config._attn_implementation = 'sdpa'
    return SamVisionEncoder(config)


def _official(name: str) -> str:
    """Official name of a parameter of :class:`SAM1`."""
    for here, there in _NAMES:
        name = re.sub(here, there, name)
    return name


def _to_official(module: nn.Module, state: dict, prefix: str, *_: Any) -> None:
    """Hook of ``state_dict``."""
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + _official(key[len(prefix) :])] = state.pop(key)


def _from_official(module: nn.Module, state: dict, prefix: str, *_: Any) -> None:
    """Hook of ``load_state_dict``, which removes the names that it finds itself."""
    names = [name for name, _ in module.named_parameters()]
    names += [name for name, _ in module.named_buffers()]
    for name in names:
        official = prefix + _official(name)
        if official in state:
            state[prefix + name] = state.pop(official)


class SAM1Prompter:
    """Turns points and boxes on single images into masks, see
    :class:`mmfss.methods.base.Prompter`.

    Args:
        sam: in eval mode.
        image_size: side in pixels of the images that the prompts are on.
        checkpoint: of other heads, which are refused: SAM 1 has its own.

    Raises:
        ValueError: a checkpoint.
    """

    def __init__(self, sam: SAM1, image_size: int, checkpoint: str | None = None) -> None:
        if checkpoint is not None:
            raise ValueError(
                f'SAM 1 takes prompts with its own heads, not with those of {checkpoint}; leave it '
                'out'
            )
        self.sam, self.scale = sam, sam.image_size / image_size

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Features (N, D, h, w) of (N, 3, S, S) RGB 0..255."""
        return self.sam(images)[0]

    @torch.no_grad()
    def __call__(self, features: Tensor, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of one prompt an image: three candidates for a single point, else one.

        Args:
            features: (N, D, h, w).
            coords: (N, P, 2) x, y in pixels of the images.
            labels: (N, P): 1 on the object, 0 off it, 2 and 3 the corners of a box, -1 for none.

        Returns:
            (N, M, S/4, S/4) float32 logits and (N, M) predicted IoUs.
        """
        found = [
            self.sam.decode(
                features[i : i + 1],
                coords[i : i + 1] * self.scale,
                labels[i : i + 1],
                multimask=labels.shape[1] == 1,
            )
            for i in range(len(features))
        ]
        return torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found])
