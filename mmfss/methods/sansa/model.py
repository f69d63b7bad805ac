"""SANSA: SAM 2 as a few-shot segmentor, with adapters that turn its features to classes.

Cuttano et al., "SANSA: Unleashing the Hidden Semantics in SAM2 for Few-Shot Segmentation",
NeurIPS 2025, arXiv 2505.21795.

Supports and query are the frames of a short video: the first support is its annotated frame, the
others and the query are tracked. SAM 2 is frozen but for bottleneck adapters in the last stages of
its trunk (:mod:`mmfss.encoders.sam2.adapters`), and has no object score.

    encode_support   each support: prompt -> mask decoder -> pointer, memory
    segment          the query reads memories and pointers by their place in the clip, decodes

Shapes: B episodes, K shots, F frames, H side of images and masks, S side of SAM 2's, D channels of
image features, M of the memory, (h, w) the grid, h = S / 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmfss.arguments import integer
from mmfss.batching import cat, take
from mmfss.encoders.sam2.adapters import Adapter
from mmfss.encoders.sam2.memory_attention import MemoryFrames
from mmfss.encoders.sam2.model import DecodedMasks, SAM2Features, build_sam2
from mmfss.encoders.sam2.prompts import PromptHeads, prompt_heads
from mmfss.features.images import DeferredBatch
from mmfss.methods.base import FewShotModel, Segmentation

from .prompts import KINDS, PointPrompt, draw_prompt


@dataclass(frozen=True)
class Clip:
    """F frames of each of B episodes.

    Attributes:
        memory: (B, F, M, h, w), without positions.
        pointers: (B, F, D).
    """

    memory: Tensor
    pointers: Tensor


@dataclass(frozen=True)
class Trace:
    """What :meth:`SANSA.segment` came through, for B queries.

    Attributes:
        frames: what the memory attention read.
        attended: (B, D, h, w) query features after it.
        decoded: all outputs of the mask decoder.
        supports: (B, K, S/4, S/4) its logits of the supports, in training where the loss has them.
    """

    frames: MemoryFrames
    attended: Tensor
    decoded: DecodedMasks
    supports: Tensor | None = None


@dataclass(frozen=True)
class _Shown:
    """Of N supports: logits (N, 1, S/4, S/4) that become memory, pointers (N, D), and the mask
    decoder's logits (N, 1, S/4, S/4), None where nobody asks for them."""

    low: Tensor
    pointers: Tensor
    logits: Tensor | None


@MODELS.register_module()
class SANSA(FewShotModel):
    """Few-shot segmentor with one class at a time.

    Args:
        sam2: ``dict(arch=..., image_size=1024, adapters=dict(stages=(2, 3), channel_factor=0.3),
            checkpoint='official' | path | None)``, see
            :func:`mmfss.encoders.sam2.model.build_sam2`.
        image_size: side H of images and masks; SAM 2 resizes the images to its own S.
        prompt: what is shown of a support: its ``mask``; a ``box``, 20 ``point`` clicks or a
            ``scribble`` that are drawn from the mask; ``multi``: any of them at random. Without
            training they are a function of the mask.
        shots_in_order: the supports are a video: the first is its annotated frame, and the last
            ones are nearest, so that their order matters; of K > 7 the memories of supports
            1 .. K - 7 are left out. Else all count as annotated frames.
        attention_dropout: in training SAM 2's dropout in the memory attention is on, though it is
            frozen, as in the published program.
        trainable: of :class:`~mmfss.methods.base.FewShotModel`; None trains the adapters.
        loss_decode: :class:`~mmfss.methods.losses.FocalDiceLoss`, or a loss on (B, F, H, H) logits
            and labels of F frames.
        resize: of :class:`~mmfss.methods.base.FewShotModel`; Pillow's as published.
        common: other arguments of :class:`~mmfss.methods.base.FewShotModel`.

    Raises:
        ValueError: no adapters, unknown arch or prompt, a switch that is no bool.
    """

    builders = {'sam2': build_sam2}

    def __init__(
        self,
        sam2: dict,
        image_size: int = 640,
        prompt: str = 'mask',
        shots_in_order: bool = True,
        attention_dropout: bool = True,
        trainable: Sequence[str] | None = None,
        loss_decode: dict | None = None,
        resize: str = 'pillow_bilinear',
        **common: Any,
    ) -> None:
        if sam2.get('adapters') is None:
            raise ValueError(
                'SANSA learns in adapters of SAM 2, and model.sam2.adapters is None: set '
                'dict(stages=(2, 3), channel_factor=0.3), or take SAM2Memory, which learns nothing'
            )
        for name, value in dict(
            shots_in_order=shots_in_order, attention_dropout=attention_dropout
        ).items():
            if not isinstance(value, bool):
                raise ValueError(f'model.{name} must be True or False, got {value!r}')
        if prompt not in (*KINDS, 'multi'):
            raise ValueError(
                f'model.prompt must be one of {[*KINDS, "multi"]}, what is shown of a support, got '
                f'{prompt!r}'
            )
        network = build_sam2(**{'image_size': 1024, 'object_score': False, **sam2})
        super().__init__(
            dict(sam2=network),
            integer('model.image_size', image_size, 16),
            trainable=trainable,
            loss_decode=loss_decode or dict(type='FocalDiceLoss'),
            resize=resize,
            **common,
        )
        self.prompt, self.shots_in_order = prompt, shots_in_order
        self.attention_dropout = attention_dropout

    # ------------------------------------------------------------------ the method

    def encode_image(self, images: Tensor | DeferredBatch, role: str = 'query') -> SAM2Features:
        """Features of N images, see :meth:`FewShotModel.encode_image`."""
        return self.sam2.features(*super().encode_image(images, role)['sam2'])

    def encode_support(self, features: SAM2Features, masks: Tensor) -> Clip:
        """Encode supports once, by the model's ``prompt``, see
        :meth:`FewShotModel.encode_support`."""
        return self._clip(features, self._shown(features, masks), masks.shape[1])

    def encode_prompts(
        self, features: SAM2Features, masks: Tensor, prompts: Sequence[PointPrompt | None]
    ) -> Clip:
        """Encode supports by given prompts.

        Args:
            features: of the B K support images, episode-major.
            masks: (B, K, H, W) in {0, 1, 255} of any size, read where there is no prompt.
            prompts: B K, None for the mask.
        """
        return self._clip(features, self._encode(features, masks, prompts), masks.shape[1])

    def _shown(self, features: SAM2Features, masks: Tensor, with_logits: bool = False) -> _Shown:
        if self.prompt == 'mask':
            return self._encode(features, masks, None, with_logits)
        drawn = [
            draw_prompt(mask, self.prompt, self.training) for mask in (masks == 1).flatten(0, 1)
        ]
        return self._encode(features, masks, drawn, with_logits)

    def _encode(
        self,
        features: SAM2Features,
        masks: Tensor,
        prompts: Sequence[PointPrompt | None] | None,
        with_logits: bool = False,
    ) -> _Shown:
        """The frames of B K supports, in their order."""
        flat = (masks == 1).flatten(0, 1).float().unsqueeze(1)
        if prompts is None or all(prompt is None for prompt in prompts):
            return self._of_masks(features, flat, with_logits)
        shown = []
        for i, prompt in enumerate(prompts):  # alone: prompts have different numbers of tokens
            one = take(features, slice(i, i + 1))
            if prompt is None:
                shown.append(self._of_masks(one, flat[i : i + 1], with_logits))
            else:
                found = self._of_points(one, prompt)
                shown.append(found if with_logits else replace(found, logits=None))
        return cat(shown)

    def _of_masks(self, features: SAM2Features, masks: Tensor, with_logits: bool) -> _Shown:
        """Frames that are given with their masks (N, 1, H, W) in {0, 1}."""
        side = self.sam2.image_size
        # M = aa(m, S) > 0: greater than zero, not than one half
        if masks.shape[-2:] != (side, side):
            masks = F.interpolate(masks, (side, side), mode='bilinear', antialias=True)
        masks = (masks > 0).float()
        # L = aa(20 M - 10, S/4)
        low = F.interpolate(
            20.0 * masks - 10.0, (side // 4, side // 4), mode='bilinear', antialias=True
        )
        if not with_logits:
            return _Shown(low, self.sam2.encode_pointer(features, masks), None)
        nowhere = masks.new_zeros(len(masks), 1, 2), -torch.ones_like(masks[:, 0, 0, :1]).int()
        logits, token = self._decode(features, features.top, nowhere, masks)
        return _Shown(low, self.sam2.obj_ptr_proj(token), logits)

    def _of_points(self, features: SAM2Features, prompt: PointPrompt) -> _Shown:
        """A frame that is given with points; they are read on ``F + no_mem_embed``."""
        top = features.top + self.sam2.no_mem_embed.reshape(1, -1, 1, 1)
        points = prompt.at(self.sam2.image_size, top.device)
        logits, token = self._decode(features, top, points)
        return _Shown(logits, self.sam2.obj_ptr_proj(token), logits)

    def _decode(
        self,
        features: SAM2Features,
        top: Tensor,
        points: tuple[Tensor, Tensor],
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Single-mask output of the mask decoder: logits (N, 1, S/4, S/4) float32 and its token
        (N, D)."""
        encoder = self.sam2.sam_prompt_encoder
        sparse, dense = encoder(
            points=points,
            boxes=None,
            masks=None if masks is None else self.sam2.mask_downsample(masks),
        )
        logits, _, tokens, _ = self.sam2.sam_mask_decoder(
            image_embeddings=top,
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            repeat_image=False,
            high_res_features=list(features.high_res),
        )
        return logits.float(), tokens[:, 0]

    def _clip(self, features: SAM2Features, shown: _Shown, frames: int) -> Clip:
        memory = self._memory(features, shown.low)
        return Clip(memory.unflatten(0, (-1, frames)), shown.pointers.unflatten(0, (-1, frames)))

    def _memory(self, features: SAM2Features, low: Tensor) -> Tensor:
        """Memory (N, M, h, w) of images under logits (N, 1, S/4, S/4)."""
        side = self.sam2.image_size
        # 20 sigmoid(lin(L, S)) - 10; nothing is gated, an empty mask neither
        logits = F.interpolate(low, (side, side), mode='bilinear')
        there = torch.ones_like(logits[..., :1, :1])
        return self.sam2.encode_memory(features, there, logits)[0]

    def segment(
        self, query: SAM2Features, state: Clip, truth: Tensor | None = None
    ) -> Segmentation:
        """Segment B queries given their supports, see :meth:`FewShotModel.segment`."""
        frames = self._frames(state)
        attended = self.sam2.memory_attention(*query.top_tokens(), None, frames)
        attended = attended.transpose(1, 2).unflatten(-1, query.top.shape[-2:])
        decoded = self.sam2.decode(attended, query.high_res)
        logits = F.interpolate(decoded.low_res, (self.image_size,) * 2, mode='bilinear')
        return Segmentation(logits, trace=Trace(frames, attended, decoded))

    def _frames(self, clip: Clip) -> MemoryFrames:
        """What frame F, which comes after those of a clip, reads of them."""
        sam2, count = self.sam2, clip.memory.shape[1]
        if self.shots_in_order:
            # the annotated frame 0, then the last 6; of pointers 0, F-1, ..., 1, at most 15 more
            recent = range(max(1, count - sam2.num_maskmem + 1), count)
            spatial = [0, *recent]
            # tpos[6] for frame 0, tpos[F - j - 1] for frame j
            temporal = [sam2.num_maskmem - 1, *(count - j - 1 for j in recent)]
            pointed = [0, *range(count - 1, max(0, count - sam2.max_obj_ptrs_in_encoder), -1)]
        else:
            spatial = pointed = list(range(count))
            temporal = [sam2.num_maskmem - 1] * count
        furthest = max(1, min(count + 1, sam2.max_obj_ptrs_in_encoder) - 1)
        ago = [count - j if self.shots_in_order else 1 for j in range(count)]
        times = torch.tensor(ago, device=clip.memory.device) / furthest  # of SAM 2.1 alone
        position = sam2.memory_encoder.position_encoding(clip.memory[:1, 0]).to(clip.memory.dtype)
        every = sam2.memory_frames(
            clip.memory.flatten(0, 1), position, clip.pointers.flatten(0, 1), count, times
        )
        pos = every.spatial_pos[:, spatial] + sam2.maskmem_tpos_enc[temporal, 0]
        return MemoryFrames(
            every.spatial[:, spatial],
            pos,
            every.pointers[:, pointed],
            every.pointer_pos[:, pointed],
        )

    def track(self, queries: Sequence[SAM2Features], state: Clip) -> list[Segmentation]:
        """Segment one query after the other as frames of the clip: each becomes a memory for those
        after it. Training and evaluation, as published, have one query."""
        found = []
        for query in queries:
            found.append(self.segment(query, state))
            decoded = found[-1].trace.decoded
            rows = torch.arange(len(decoded.best), device=decoded.best.device)
            pointers = self.sam2.obj_ptr_proj(decoded.tokens[rows, decoded.best])
            memory = self._memory(query, decoded.low_res)
            state = Clip(
                torch.cat([state.memory, memory.unsqueeze(1)], 1),
                torch.cat([state.pointers, pointers.unsqueeze(1)], 1),
            )
        return found

    def compared(self, features: SAM2Features) -> Tensor:
        """SAM 2's stride-16 features (N, D, h, w)."""
        return features.top

    def not_static(self) -> dict[str, str]:
        """Prompts that are drawn; the mask itself is static."""
        return {} if self.prompt == 'mask' else dict(encode_support='its prompts are drawn')

    # ------------------------------------------------------------------ prompts and training

    def prompter(self, checkpoint: str | None = None) -> ScaledHeads:
        """SAM 2's prompt encoder and mask decoder, see
        :func:`mmfss.encoders.sam2.prompts.prompt_heads`."""
        heads = prompt_heads(self.sam2, checkpoint)
        return ScaledHeads(heads, self.sam2.image_size / self.image_size)

    def set_trainable(self, patterns: Sequence[str] | None) -> None:
        """As in the base; None stands for the adapters."""
        if patterns is None:
            patterns = [name for name, p in self.named_modules() if isinstance(p, Adapter)]
        super().set_trainable(patterns)

    @classmethod
    def trains_from_pixels(cls, trainable: Sequence[str] | None) -> bool:
        """True: the adapters are in the trunk, the first step."""
        return True

    def train(self, mode: bool = True) -> SANSA:
        """As in the base; with ``attention_dropout`` the frozen memory attention too."""
        super().train(mode)
        if self.attention_dropout:
            self.sam2.memory_attention.train(mode)
        return self

    def run_episode(
        self, query: SAM2Features, supports: SAM2Features, masks: Tensor, truth: Any = None
    ) -> Segmentation:
        """Segment B queries by supports that serve nobody else; in training with the mask decoder's
        logits of the supports that the loss counts."""
        counted = self.training and (masks.shape[1] > 1 or self.prompt != 'mask')
        shown = self._shown(supports, masks, counted)
        found = self.segment(query, self._clip(supports, shown, masks.shape[1]))
        if shown.logits is None:
            return found
        logits = shown.logits.squeeze(1).unflatten(0, masks.shape[:2])
        return replace(found, trace=replace(found.trace, supports=logits))

    def loss(self, inputs: dict, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Loss of a batch of episodes: of the queries and all supports but the first, where masks
        are shown, and of all frames with other prompts.

        Raises:
            ValueError: labels of another size than the images.
        """
        found = self.run(inputs, data_samples)
        target = self.labels_of(data_samples, found.logits)
        return self.loss_of(found.trace, inputs['support_mask'], target)

    def loss_of(self, trace: Trace, masks: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Loss of B episodes with masks (B, K, H, W) and labels (B, H, W) in {0, 1, 255}."""
        size = target.shape[-2:]
        low, labels = [trace.decoded.low_res], [target[:, None]]
        if trace.supports is not None:
            first = 1 if self.prompt == 'mask' else 0
            low.insert(0, trace.supports[:, first:])
            labels.insert(0, masks[:, first:])
        logits = F.interpolate(torch.cat(low, 1), size, mode='bilinear')
        return self.decoded_loss(logits, torch.cat(labels, 1))


@dataclass(frozen=True)
class ScaledHeads:
    """Prompt heads for images of another side than SAM 2's: coordinates are times ``scale``."""

    heads: PromptHeads
    scale: float

    def encode(self, images: Tensor) -> SAM2Features:
        """Features of (N, 3, H, H) RGB 0..255."""
        return self.heads.encode(images)

    def __call__(
        self, features: SAM2Features, coords: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :class:`mmfss.methods.base.Prompter`."""
        return self.heads(features, coords * self.scale, labels)
