"""SAM 2: build, load strictly, and four operations on top of the sam2 package.

    forward (image encoder) -> encode_memory / encode_pointer -> (memory attention) -> decode

Shapes: N images, S image side, D = 256 channels of the image features, M = 64 of the memory,
h = w = S / 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from mmseg.registry import MODELS
from omegaconf import OmegaConf
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor

from mmfss.checkpoints.official import checkpoint_file
from mmfss.checkpoints.weights import load_strict
from mmfss.encoders.base import Encoder, Step
from mmfss.encoders.kept_tables import KeptTables, keep_tables
from mmfss.encoders.sam2.adapters import adapt_trunk, is_of_adapter
from mmfss.encoders.sam2.archs import OF_OBJECT_SCORE, arch_config
from mmfss.encoders.sam2.memory_attention import MemoryFrames, start_at_same_place
from mmfss.encoders.sam2.native_norm import use_native_norms


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

    def top_tokens(self) -> tuple[Tensor, Tensor]:
        """``top`` and ``top_pos`` as tokens, both (N, h w, D)."""
        return self.top.flatten(2).transpose(1, 2), self.top_pos.flatten(2).transpose(1, 2)


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


class SAM2(SAM2Base, Encoder):
    """SAM 2 with one method for each use that is made of it. No parameters added.

    As an encoder it is the image encoder with the two projections of the mask decoder that belong
    to it, in two steps: trunk and neck.

    Attributes:
        checkpoint: 'official', path or URL that :meth:`load_pretrained` loads, or None; a file of
            tools/train.py too, of a method whose SAM 2 is of this arch.
        same_place: of :func:`~mmfss.encoders.sam2.memory_attention.start_at_same_place`; 0 leaves
            random weights as they are.
        adapters: of :func:`build_sam2`.
    """

    checkpoint: str | None = None
    adapters: dict | None = None
    same_place: float = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tables = KeptTables()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, S, S) RGB 0..255 -> (N, D/8, S/4, S/4), (N, D/4, S/8, S/8), (N, D, h, w); images
        of another side are resized to S: bilinear, antialiased."""
        return self._neck(*self._trunk(images))

    def steps(self) -> tuple[Step, Step]:
        """Trunk, and neck."""
        encoder, decoder = self.image_encoder, self.sam_mask_decoder
        neck = dict(neck=encoder.neck, conv_s0=decoder.conv_s0, conv_s1=decoder.conv_s1)
        return (
            Step(dict(trunk=encoder.trunk, normalise=self.normalise), self._trunk),
            Step(neck, self._neck),
        )

    def _trunk(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = self.normalise(images)
        size = (self.image_size, self.image_size)
        if pixels.shape[-2:] != size:
            pixels = F.interpolate(pixels, size, mode='bilinear', antialias=True)
        return tuple(self.image_encoder.trunk(pixels))

    def _neck(self, *maps: Tensor) -> tuple[Tensor, ...]:
        levels, _ = self.image_encoder.neck(list(maps))
        scalp = self.image_encoder.scalp  # levels of lowest resolution that SAM 2 leaves out
        # conv_s0, conv_s1 here, once per image: upstream runs them in its image encoder too
        low, mid, top = levels[: len(levels) - scalp]
        return self.sam_mask_decoder.conv_s0(low), self.sam_mask_decoder.conv_s1(mid), top

    def features(self, low: Tensor, mid: Tensor, top: Tensor) -> SAM2Features:
        """What :meth:`forward` gave, with the position encoding of ``top``."""
        position = self.image_encoder.neck.position_encoding(top).to(top.dtype)
        return SAM2Features((low, mid), top, position)

    def load_pretrained(self) -> None:
        """Load ``checkpoint``, strictly; random weights start at the same place where asked to.

        Raises:
            ValueError: keys missing, unexpected or of another shape, or values that are not finite.
            FileNotFoundError: see :func:`mmfss.checkpoints.official.official_file`.
        """
        if self.checkpoint is not None:
            with checkpoint_file('sam2', self.arch, self.checkpoint) as path:
                what = f'SAM 2 ({self.arch})'
                load_strict(self, path, what, key='model', part='sam2.', fit=self.fitting)
        elif self.same_place:
            start_at_same_place(self.memory_attention, self.same_place)

    def fitting(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a file without those of the object score, where this SAM 2 has none, and with
        its own adapters, where the file has none."""
        own = {key: value for key, value in self.state_dict().items() if is_of_adapter(key)}
        if not self.pred_obj_scores:
            state = {key: value for key, value in state.items() if not OF_OBJECT_SCORE.match(key)}
        return {**own, **state}

    def compile(self, **options: Any) -> None:
        """``torch.compile`` of the trunk, which takes nearly all the time."""
        self.image_encoder.trunk.compile(**options)

    def record(self) -> Any:
        """The arch alone, where a checkpoint of SAM 2 is of nothing else."""
        more = dict(adapters=self.adapters, object_score=self.pred_obj_scores)
        return self.arch if list(more.values()) == [None, True] else dict(arch=self.arch, **more)

    def encode_memory(
        self, features: SAM2Features, masks: Tensor, logits: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Memory of images under mask prompts.

        Args:
            features: of N images.
            masks: (m N, 1, S, S) float in [0, 1]: the first mask of each image, then the second of
                each, and so on.
            logits: (m N, 1, S, S) to be encoded in the place of ``20 m - 10``, as those of a frame
                with user input: cut at 0 where ``binarize_mask_from_pts_for_mem_enc`` is set, a
                switch of sam2 that is off in its YAML files.

        Returns:
            memory (m N, M, h, w), and its position encoding (m N, M, h, w) with the temporal
            encoding of a conditioning frame.
        """
        # F without memory and without no_mem_embed: the raw stride-16 feature
        top = features.top.repeat(len(masks) // len(features.top), 1, 1, 1)
        memory, pos = self._encode_new_memory(
            current_vision_feats=[top.flatten(2).permute(2, 0, 1)],
            feat_sizes=[top.shape[-2:]],
            # z = 20 m - 10; upstream encodes 20 sigmoid(z) - 10, so that m = 0, 1 are about -10, 10
            pred_masks_high_res=masks * 20.0 - 10.0 if logits is None else logits,
            # present or absent is decided by the mask, as upstream does for mask prompts
            object_score_logits=appears(masks) * 20.0 - 10.0,
            is_mask_from_pts=logits is not None,
        )
        # pos + tpos[num_maskmem - 1], the entry of a conditioning frame, for query memory too
        temporal = self.maskmem_tpos_enc[self.num_maskmem - 1]
        return memory, pos[-1] + temporal.reshape(1, -1, 1, 1)

    def encode_pointer(self, features: SAM2Features, masks: Tensor) -> Tensor:
        """Object pointer (N, D) of N images under mask prompts (N, 1, S, S) in [0, 1].

        That of upstream's ``_use_mask_as_output``, without the masks that nobody reads there: only
        the tokens that come out of the mask decoder's transformer are needed.
        """
        top, decoder = features.top, self.sam_mask_decoder
        if not self.use_obj_ptrs_in_encoder:
            return top.new_zeros(len(top), self.hidden_dim)
        sparse, _, position = self.empty_prompt(len(top))
        _, dense = self.sam_prompt_encoder(
            points=None, boxes=None, masks=self.mask_downsample(masks.float())
        )
        # tokens: [object score] | IoU | masks | prompt, in the order of upstream
        learned = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if self.pred_obj_scores:
            learned.insert(0, decoder.obj_score_token.weight)
        tokens = torch.cat([torch.cat(learned).expand(len(top), -1, -1), sparse], 1)
        tokens, _ = decoder.transformer(top + dense, position, tokens)
        pointer = self.obj_ptr_proj(tokens[:, len(learned) - 1])  # token of the single mask
        if not self.pred_obj_scores:
            return pointer
        # no_obj_ptr where the object score is <= 0, and again where the mask is empty
        score = decoder.pred_obj_score_head(tokens[:, 0])
        pointer = self._gate(pointer, score.sigmoid() if self.soft_no_obj_ptr else (score > 0))
        return self._gate(pointer, appears(masks))

    def empty_prompt(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The prompt of tracking, one point of label -1, for N images: its tokens (N, 2, D), what
        stands for no mask (N, D, h, w), and the position encoding (N, D, h, w) of the decoder."""
        encoder = self.sam_prompt_encoder
        weights = [*encoder.parameters(), *encoder.buffers()]
        device = weights[0].device
        cast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)

        def prompt(which: int) -> Tensor:
            # a point of label -1 is no point; upstream pads it with a second one: two tokens
            labels = -torch.ones(1, 1, dtype=torch.int32, device=device)
            points = torch.zeros(1, 1, 2, device=device), labels
            return encoder(points=points, boxes=None, masks=None)[which]

        made = (lambda: prompt(0), lambda: prompt(1), encoder.get_dense_pe)
        kept = [self._tables.get((i, cast), make, *weights) for i, make in enumerate(made)]
        return tuple(table.expand(count, *table.shape[1:]) for table in kept)

    def _gate(self, pointer: Tensor, present: Tensor) -> Tensor:
        """Mix ``no_obj_ptr`` into pointers (N, D) where ``present`` (N, 1), in [0, 1], is not 1."""
        # present pointer + (1 - present) no_obj_ptr   (fixed_no_obj_ptr)
        present = present.float()
        kept = present * pointer if self.fixed_no_obj_ptr else pointer
        return kept + (1 - present) * self.no_obj_ptr

    def memory_frames(
        self,
        memory: Tensor,
        pos: Tensor,
        pointers: Tensor,
        frames: int,
        times: Tensor | None = None,
    ) -> MemoryFrames:
        """Arrange B F memories, episode-major, for the memory attention.

        Pointers carry no position in SAM 2.0. SAM 2.1 encodes the distance in time to each
        pointer's frame; without ``times`` every frame counts as one step away, in a video that is
        at least as long as the ``max_obj_ptrs_in_encoder`` frames that SAM 2.1 looks back on.

        Args:
            memory, pos: (B F, M, h, w).
            pointers: (B F, D).
            frames: F.
            times: (F,) distance of each frame, as a share of the furthest that SAM 2.1 looks back.
        """

        def tokens(x: Tensor) -> Tensor:
            return x.flatten(2).transpose(1, 2).unflatten(0, (-1, frames))

        # D = 256 channels are D / M = 4 tokens of the width of the memory
        split = pointers.reshape(-1, frames, self.hidden_dim // self.mem_dim, self.mem_dim)
        return MemoryFrames(
            spatial=tokens(memory),
            spatial_pos=tokens(pos.expand_as(memory)),
            pointers=split,
            pointer_pos=self._pointer_pos(split, times).expand_as(split),
        )

    def _pointer_pos(self, pointers: Tensor, times: Tensor | None) -> Tensor:
        if not self.add_tpos_enc_to_obj_ptrs:
            return pointers.new_zeros(1)
        if times is None:
            # t = 1 / (max_obj_ptrs - 1): one frame away, as a share of the most   (SAM 2.1)
            times = torch.ones(1, device=pointers.device) / (self.max_obj_ptrs_in_encoder - 1)
        dim = self.hidden_dim if self.proj_tpos_enc_in_obj_ptrs else self.mem_dim
        # sine(t), the same for all tokens of a pointer: (F or 1, 1, M)
        return self.obj_ptr_tpos_proj(get_1d_sine_pe(times, dim=dim)).unsqueeze(1)

    def decode(self, top: Tensor, high_res: tuple[Tensor, Tensor]) -> DecodedMasks:
        """Mask decoder with the empty prompt that SAM 2 uses while tracking.

        Unlike upstream's ``_forward_sam_heads`` the object score does not replace the masks.

        Args:
            top: (N, D, h, w) features after memory attention.
            high_res: of :class:`SAM2Features`.
        """
        sparse, dense, position = self.empty_prompt(len(top))
        candidates, ious, tokens, object_score = self.sam_mask_decoder(
            image_embeddings=top,
            image_pe=position[:1],
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=False,
            high_res_features=list(high_res),
        )
        # z = candidate of argmax IoU; the score is returned, and no mask set to -1024 by it
        candidates = candidates.float()
        best = ious.argmax(-1)
        low_res = candidates[torch.arange(len(top), device=top.device), best].unsqueeze(1)
        side = (self.image_size, self.image_size)
        # align_corners=False from stride 4 to S, as in SAM 2; up (True) is for the label only
        logits = F.interpolate(low_res, size=side, mode='bilinear', align_corners=False)
        return DecodedMasks(logits, low_res, candidates, ious, tokens, best, object_score)


def appears(masks: Tensor) -> Tensor:
    """Whether masks (N, 1, S, S) have a positive pixel: (N, 1) bool."""
    return masks.flatten(1).gt(0).any(1, keepdim=True)


def build_sam2(
    arch: str | dict | None = None,
    image_size: int = 512,
    memory_attention: dict | None = None,
    channels_last: bool = True,
    checkpoint: str | None = 'official',
    same_place: float = 0.0,
    adapters: dict | None = None,
    object_score: bool = True,
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
        channels_last: memory layout of the convolutions' weights, and norms over channels that
            take it as it is (:class:`~mmfss.encoders.sam2.native_norm.NativeLayerNorm2d`). SAM 2's
            trunk gives maps with channels last; so they stay (sam2_small, 2 CPU threads: image
            encoder 5 %, mask decoder 12 % faster). The same numbers up to rounding.
        checkpoint: what :meth:`SAM2.load_pretrained` is to load: ``official`` (of ``arch``,
            see :mod:`mmfss.checkpoints.official`), a path or URL, or None to start from random
            weights.
        same_place: for these, see
            :func:`~mmfss.encoders.sam2.memory_attention.start_at_same_place`; 0 for nothing.
        adapters: of :func:`mmfss.encoders.sam2.adapters.adapt_trunk`; None for no adapters.
        object_score: whether SAM 2 tells if the object is there at all; without, its 8 tensors are
            left out, of files that are loaded too.

    Raises:
        ValueError: unknown arch, override or adapters, a side that is not a multiple of 32, a
            switch that is no bool, or ``same_place`` is set for weights that are loaded.
    """
    if not isinstance(image_size, int) or image_size < 64 or image_size % 32:
        raise ValueError(
            f'image_size must be a multiple of 32 and at least 64 pixels, got {image_size!r}'
        )
    for name, value in dict(channels_last=channels_last, object_score=object_score).items():
        if not isinstance(value, bool):
            raise ValueError(f'{name} must be True or False, got {value!r}')
    if same_place and checkpoint is not None:
        raise ValueError(
            'model.sam2.same_place is a start for random weights; with '
            f'checkpoint={checkpoint!r} it would spoil the loaded ones. Leave it out.'
        )
    cfg = arch_config(arch)
    grid = image_size // 16
    cfg['_target_'] = f'{SAM2.__module__}.{SAM2.__name__}'
    cfg['image_size'] = image_size
    # theta p of the rotary encoding for the grid S / 16 of this model
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
    if adapters is not None:
        adapt_trunk(cfg['image_encoder']['trunk'], adapters)
    if not object_score:
        cfg.update(pred_obj_scores=False, pred_obj_scores_mlp=False, fixed_no_obj_ptr=False)
    keep_tables(cfg)
    try:
        model: SAM2 = instantiate(OmegaConf.create(cfg), _recursive_=True)
    except InstantiationException as error:  # around what one of the classes says
        raise error.__cause__ or error from None
    model.arch, model.checkpoint, model.same_place = arch, checkpoint, same_place
    model.adapters = adapters and dict(adapters, stages=list(adapters['stages']))
    if channels_last:
        use_native_norms(model)
        model.to(memory_format=torch.channels_last)
    return model
