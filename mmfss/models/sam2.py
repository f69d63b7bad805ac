"""SAM 2 as FSSAM uses it: build, load strictly, and four operations on top of the sam2 package.

    encode_image -> encode_memory / encode_pointer -> (memory attention) -> decode

Shapes: N images, S image side, D = 256 channels of the image features, M = 64 of the memory,
h = w = S / 16.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sam2
import torch
import torch.nn.functional as F
from hydra.utils import get_class, instantiate
from mmseg.registry import MODELS
from omegaconf import OmegaConf
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor

from .memory_attention import MemoryFrames
from .weights import load_strict

_URL = 'https://dl.fbaipublicfiles.com/segment_anything_2'
# name: (YAML in the sam2 package, official checkpoint)
ARCHS = {
    f'{version}_{size}': (
        f'configs/{version}/{version}_hiera_{letter}.yaml',
        f'{_URL}/{date}/{version}_hiera_{size}.pt',
    )
    for version, date in (('sam2', '072824'), ('sam2.1', '092824'))
    for size, letter in (('tiny', 't'), ('small', 's'), ('base_plus', 'b+'), ('large', 'l'))
}


@dataclass(frozen=True)
class SAM2Features:
    """What the image encoder gives for N images.

    Attributes:
        high_res: (N, D/8, S/4, S/4) and (N, D/4, S/8, S/8), for the mask decoder.
        top: (N, D, h, w).
        top_pos: (N, D, h, w) position encoding of ``top``.
    """

    high_res: tuple[Tensor, Tensor]
    top: Tensor
    top_pos: Tensor

    @staticmethod
    def cat(parts: list[SAM2Features]) -> SAM2Features:
        """Join the features of several images along N."""
        low, mid = (torch.cat(level) for level in zip(*(part.high_res for part in parts)))
        top, top_pos = (
            torch.cat([getattr(part, name) for part in parts]) for name in ('top', 'top_pos')
        )
        return SAM2Features((low, mid), top, top_pos)


@dataclass(frozen=True)
class DecodedMasks:
    """Output of the mask decoder for N images.

    Attributes:
        logits: (N, 1, S, S) of the candidate with the best predicted IoU.
        low_res: (N, 1, S/4, S/4) the same at stride 4.
        candidates: (N, 3, S/4, S/4); ious: (N, 3); tokens: (N, 3, D); best: (N,) int64.
        object_score: (N, 1) logit; > 0 where SAM 2 believes that the object is there.
    """

    logits: Tensor
    low_res: Tensor
    candidates: Tensor
    ious: Tensor
    tokens: Tensor
    best: Tensor
    object_score: Tensor


class SAM2(SAM2Base):
    """SAM 2 with one method for each use that FSSAM makes of it. No parameters added."""

    def encode_image(self, images: Tensor) -> SAM2Features:
        """Image encoder on (N, 3, S, S) normalised images; upstream's ``forward_image``."""
        return self.encode_neck(self.encode_trunk(images))

    def encode_trunk(self, images: Tensor) -> list[Tensor]:
        """Maps of the trunk, highest resolution first, for (N, 3, S, S) normalised images."""
        return list(self.image_encoder.trunk(images))

    def encode_neck(self, maps: list[Tensor]) -> SAM2Features:
        """Neck of the image encoder, and the projections of the mask decoder that belong to it.

        Args:
            maps: of :meth:`encode_trunk`.
        """
        levels, positions = self.image_encoder.neck(maps)
        scalp = self.image_encoder.scalp  # levels of lowest resolution that SAM 2 leaves out
        kept = len(levels) - scalp
        low, mid, top = levels[:kept]
        high_res = (self.sam_mask_decoder.conv_s0(low), self.sam_mask_decoder.conv_s1(mid))
        return SAM2Features(high_res, top, positions[kept - 1])

    def encode_memory(self, features: SAM2Features, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Memory of an image under a mask prompt.

        Args:
            features: of N images.
            masks: (N, 1, S, S) float in [0, 1].

        Returns:
            memory (N, M, h, w), and its position encoding (N, M, h, w) with the temporal
            encoding of a conditioning frame.
        """
        top = features.top
        memory, pos = self._encode_new_memory(
            current_vision_feats=[top.flatten(2).permute(2, 0, 1)],
            feat_sizes=[top.shape[-2:]],
            pred_masks_high_res=masks * 20.0 - 10.0,
            # present or absent is decided by the mask, as upstream does for mask prompts
            object_score_logits=masks.flatten(1).gt(0).any(1, keepdim=True) * 20.0 - 10.0,
            is_mask_from_pts=False,
        )
        temporal = self.maskmem_tpos_enc[self.num_maskmem - 1]
        return memory, pos[-1] + temporal.reshape(1, -1, 1, 1)

    def encode_pointer(self, features: SAM2Features, masks: Tensor) -> Tensor:
        """Object pointer (N, D) of N images under mask prompts (N, 1, S, S) in [0, 1]."""
        return self._use_mask_as_output(features.top, list(features.high_res), masks)[5]

    def memory_frames(
        self, memory: Tensor, pos: Tensor, pointers: Tensor, frames: int
    ) -> MemoryFrames:
        """Arrange B F memories, episode-major, for the memory attention.

        Pointers carry no position in SAM 2.0. SAM 2.1 encodes the distance in time to each
        pointer's frame; every frame here counts as one step away, in a video that is at least
        as long as the ``max_obj_ptrs_in_encoder`` frames that SAM 2.1 looks back on.

        Args:
            memory, pos: (B F, M, h, w).
            pointers: (B F, D).
            frames: F.
        """

        def tokens(x: Tensor) -> Tensor:
            return x.flatten(2).transpose(1, 2).unflatten(0, (-1, frames))

        split = pointers.reshape(-1, frames, self.hidden_dim // self.mem_dim, self.mem_dim)
        return MemoryFrames(
            spatial=tokens(memory),
            spatial_pos=tokens(pos.expand_as(memory)),
            pointers=split,
            pointer_pos=self._pointer_pos(split).expand_as(split),
        )

    def _pointer_pos(self, pointers: Tensor) -> Tensor:
        if not self.add_tpos_enc_to_obj_ptrs:
            return pointers.new_zeros(1)
        step = torch.ones(1, device=pointers.device) / (self.max_obj_ptrs_in_encoder - 1)
        dim = self.hidden_dim if self.proj_tpos_enc_in_obj_ptrs else self.mem_dim
        return self.obj_ptr_tpos_proj(get_1d_sine_pe(step, dim=dim))

    def decode(self, top: Tensor, high_res: tuple[Tensor, Tensor]) -> DecodedMasks:
        """Mask decoder with the empty prompt that SAM 2 uses while tracking.

        Unlike upstream's ``_forward_sam_heads`` the object score does not replace the masks.

        Args:
            top: (N, D, h, w) features after memory attention.
            high_res: of :class:`SAM2Features`.
        """
        n, device = top.shape[0], top.device
        empty = (
            torch.zeros(n, 1, 2, device=device),
            -torch.ones(n, 1, dtype=torch.int32, device=device),
        )
        sparse, dense = self.sam_prompt_encoder(points=empty, boxes=None, masks=None)
        candidates, ious, tokens, object_score = self.sam_mask_decoder(
            image_embeddings=top,
            image_pe=self.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=False,
            high_res_features=list(high_res),
        )
        candidates = candidates.float()
        best = ious.argmax(-1)
        low_res = candidates[torch.arange(n, device=device), best].unsqueeze(1)
        side = (self.image_size, self.image_size)
        logits = F.interpolate(low_res, size=side, mode='bilinear', align_corners=False)
        return DecodedMasks(logits, low_res, candidates, ious, tokens, best, object_score)


def build_sam2(
    arch: str | dict, image_size: int = 512, memory_attention: dict | None = None
) -> SAM2:
    """Build SAM 2 from the YAML files of the sam2 package, with random weights.

    Args:
        arch: a name of ``ARCHS``, or a dict: ``base`` names one of them and the other entries
            override its model section, e.g.
            ``dict(base='sam2_small', image_encoder=dict(trunk=dict(embed_dim=16)))``; arguments
            of the classes that the YAML leaves at their defaults may be set too, and an entry
            with a ``_target_`` of its own replaces the node instead of being merged into it.
        image_size: side S of the images in pixels, a multiple of 32.
        memory_attention: ``dict(type=..., ...)`` of a registered memory attention, by default
            SAM 2's own.

    Raises:
        ValueError: unknown arch or override, or a side that is not a multiple of 32.
    """
    if not isinstance(image_size, int) or image_size < 64 or image_size % 32:
        raise ValueError(
            f'image_size must be a multiple of 32 and at least 64 pixels, got {image_size!r}'
        )
    cfg = _arch_config(arch)
    grid = image_size // 16
    cfg['_target_'] = f'{SAM2.__module__}.{SAM2.__name__}'
    cfg['image_size'] = image_size
    for name in ('self_attention', 'cross_attention'):
        cfg['memory_attention']['layer'][name]['feat_sizes'] = [grid, grid]
    options = dict(memory_attention or dict(type='SAM2MemoryAttention'))
    kind = options.pop('type')
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    if cls is None or not hasattr(cls, 'retarget'):
        raise ValueError(
            "memory_attention must be dict(type='SupportCalibratedMemoryAttention') or "
            f"dict(type='SAM2MemoryAttention'), or a registered class like them, got {kind!r}"
        )
    cls.retarget(cfg['memory_attention'], **options)
    return instantiate(OmegaConf.create(cfg), _recursive_=True)


def _arch_config(arch: str | dict) -> dict:
    """The ``model`` section of a packaged YAML with the overrides of ``arch`` merged in."""
    overrides = _plain(arch) if isinstance(arch, dict) else {}
    name = overrides.pop('base', None) if isinstance(arch, dict) else arch
    if name not in ARCHS:
        raise ValueError(
            f'model.sam2.arch must be one of {sorted(ARCHS)}, or a dict whose "base" is one of '
            f'them, got {arch!r}'
        )
    if 'image_size' in overrides:
        raise ValueError('set the side of the images in model.sam2.image_size, not in its arch')
    path = Path(sam2.__file__).parent / ARCHS[name][0]
    cfg = OmegaConf.to_container(OmegaConf.load(path).model)
    _merge(cfg, overrides, ARCHS[name][0], 'model')
    return cfg


def _plain(value: Any) -> Any:
    """A copy with plain dicts and lists: OmegaConf refuses mmengine's ConfigDict."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value


def _merge(cfg: dict, overrides: dict, source: str, where: str) -> None:
    allowed = _options(cfg)
    for key, value in overrides.items():
        if key not in allowed:
            raise ValueError(
                f'model.sam2.arch sets {where}.{key}, which {source} of the sam2 package does '
                f'not have; allowed there: {sorted(allowed)}'
            )
        if isinstance(value, dict) and isinstance(cfg.get(key), dict) and '_target_' not in value:
            _merge(cfg[key], value, source, f'{where}.{key}')
        else:
            cfg[key] = value


def _options(cfg: dict) -> set[str]:
    """What a node of the YAML may set: its entries and the arguments of its ``_target_``."""
    names = set(cfg)
    for cls in inspect.getmro(get_class(cfg['_target_'])) if '_target_' in cfg else ():
        named = inspect.signature(cls.__init__).parameters.values()
        names |= {p.name for p in named if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return names - {'self', 'weights_path'}  # the latter is read without the checks of load_sam2


def load_sam2(model: SAM2, arch: str | dict, checkpoint: str) -> None:
    """Load an official SAM 2 checkpoint into ``model``, strictly.

    Args:
        model: of :func:`build_sam2`.
        arch: the one it was built with.
        checkpoint: ``official`` (the URL of ``arch``), a local path, or a URL.

    Raises:
        ValueError: keys missing, unexpected or of another shape, or values that are not finite.
        FileNotFoundError: the path is not there.
    """
    checkpoint = official_url(arch) if checkpoint == 'official' else checkpoint
    load_strict(model, checkpoint, key='model', what=f'SAM 2 ({arch})')


def official_url(arch: str | dict) -> str:
    """Where the official weights of an arch are; ValueError for an arch of your own."""
    if isinstance(arch, dict):
        raise ValueError(
            "checkpoint='official' needs an arch by name; an arch of your own (a dict) has no "
            'official weights. Give a path, or None to start from random weights.'
        )
    return ARCHS[arch][1]
