"""FS-SAM2: SAM 2's memory as few-shot segmentor, adapted by LoRA.

Forni et al., "FS-SAM2: Adapting Segment Anything Model 2 for Few-Shot Semantic Segmentation via
Low-Rank Adaptation", ICIAP 2025, arXiv 2509.12105.

    encode_image     image encoder, with LoRA
    encode_support   each support on its own: memory under its mask; no object pointer, no time
    segment          the query reads all memories -> mask decoder -> single mask

Written from the paper and from numbers: it holds none of the authors' code.

Shapes: B episodes, K shots, D channels of the image features, M of the memory, (h, w) their grid,
S image side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmfss.encoders.lora import add_lora, without_lora
from mmfss.encoders.sam2.memory_attention import MemoryFrames
from mmfss.encoders.sam2.model import SAM2, SAM2Features, build_sam2
from mmfss.encoders.sam2.prompts import PromptHeads, prompt_heads
from mmfss.features.images import DeferredBatch

from .base import FewShotModel, Prompter, Segmentation

LORA = dict(
    image_encoder=dict(targets=('qkv', 'proj'), rank=4),
    memory_attention=dict(targets=('q_proj', 'k_proj', 'v_proj', 'out_proj'), rank=32),
    memory_encoder=dict(targets=('out_proj',), rank=32),
)
"""What is adapted as published: 52, 32 and 1 layers of SAM 2.1 base plus, 750,732 parameters."""
_STABILITY_DELTA, _STABLE_FROM = 0.05, 0.98


@dataclass(frozen=True)
class Trace:
    """What :meth:`FSSAM2.segment` came through, for B queries.

    Attributes:
        attended: (B, D, h, w) query features after memory attention.
        masks, ious: (B, 4, S/4, S/4) float32 logits and (B, 4) predicted IoUs of the single mask
            and the three others.
        tokens: (B, 4, D) of the masks; object_score: (B, 1).
        stability: (B, 1) of the single mask in 0..1; best: (B,) of the three others.
        low_res: (B, 1, S/4, S/4) the mask that was taken.
    """

    attended: Tensor
    masks: Tensor
    ious: Tensor
    tokens: Tensor
    object_score: Tensor
    stability: Tensor
    best: Tensor
    low_res: Tensor

    @property
    def stable(self) -> Tensor:
        """(B, 1) bool: the single mask is taken, in eval mode."""
        return self.stability >= _STABLE_FROM


@MODELS.register_module()
class FSSAM2(FewShotModel):
    """SAM 2 with LoRA; all else of it is frozen.

    The order of the supports does not matter. Trained with one support, it is tested with any K.

    Args:
        sam2: ``dict(arch=..., checkpoint='official' | path | None)``, see
            :func:`mmfss.encoders.sam2.model.build_sam2`.
        lora: part of SAM 2 -> ``dict(targets=[...], rank=..., alpha=16.0, dropout=0.1)``, see
            :func:`mmfss.encoders.lora.add_lora`; by default as published, :data:`LORA`. A part
            that is None is not adapted. None adapts nothing: for weights into which LoRA was
            folded (``mmfss fold-lora``), which are tested and not trained.
        image_size: side S of the images.
        resize: of :class:`~mmfss.methods.base.FewShotModel`; as published by default.
        trainable: of :class:`~mmfss.methods.base.FewShotModel`; None for LoRA, all of it.
        loss_decode: loss on (B, S, S) logits and labels.
        common: other arguments of :class:`~mmfss.methods.base.FewShotModel`.

    Raises:
        ValueError: unknown arch or part, or a target that hits nothing.
    """

    builders = {'sam2': build_sam2}

    def __init__(
        self,
        sam2: dict,
        lora: Mapping[str, Mapping[str, Any] | None] | None = LORA,
        image_size: int = 1024,
        resize: str = 'pillow_bicubic',
        trainable: Sequence[str] | None = None,
        loss_decode: dict | None = None,
        **common: Any,
    ) -> None:
        if 'image_size' in sam2:
            raise ValueError(
                'model.sam2.image_size is not taken by FSSAM2: set the side of the images in '
                f'model.image_size, got {sam2["image_size"]!r}'
            )
        network = build_sam2(image_size=image_size, **sam2)
        adapted = _adapt(network, lora)
        if not adapted:
            trainable, loss_decode = (), None
        elif loss_decode is None:
            loss_decode = dict(type='BCEDiceLoss')
        super().__init__(
            dict(sam2=network),
            network.image_size,
            trainable=('sam2.*.lora',) if trainable is None else trainable,
            loss_decode=loss_decode,
            resize=resize,
            **common,
        )
        self.lora = adapted

    # ------------------------------------------------------------------ the method

    def encode_image(self, images: Tensor | DeferredBatch, role: str = 'query') -> SAM2Features:
        """Features of N images, see :meth:`FewShotModel.encode_image`."""
        return self.sam2.features(*super().encode_image(images, role)['sam2'])

    def encode_support(self, features: SAM2Features, masks: Tensor) -> MemoryFrames:
        """Memories of B K images under masks (B, K, S, S)."""
        shots = masks.shape[1]
        memory, pos = self.encode_memory(features, (masks == 1).flatten(0, 1).unsqueeze(1).float())

        def tokens(x: Tensor) -> Tensor:
            return x.flatten(2).transpose(1, 2).unflatten(0, (-1, shots))

        # bare positions: neither the temporal encoding of a frame nor any pointer
        none = memory.new_zeros(len(masks), shots, 0, memory.shape[1])
        frames = MemoryFrames(tokens(memory), tokens(pos.expand_as(memory)), none, none)
        return self.sam2.memory_attention.encode_support(frames, masks)

    def encode_memory(self, features: SAM2Features, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Memories of N images under masks (N, 1, S, S) in {0, 1}, and their position encoding,
        both (N, M, h, w). An empty mask is one as any other."""
        # m -> 20 m - 10, exactly -10 and 10; F without no_mem_embed
        out = self.sam2.memory_encoder(features.top, 20.0 * masks - 10.0, skip_mask_sigmoid=True)
        return out['vision_features'], out['vision_pos_enc'][-1].to(out['vision_features'].dtype)

    def segment(
        self, query: SAM2Features, state: MemoryFrames, truth: Tensor | None = None
    ) -> Segmentation:
        """Segment B queries given their supports, see :meth:`FewShotModel.segment`."""
        attended = self.sam2.memory_attention(*query.top_tokens(), None, state)
        attended = attended.transpose(1, 2).unflatten(-1, query.top.shape[-2:])
        sparse, dense, position = self.sam2.empty_prompt(len(attended))
        # the single mask first, then the three others
        masks, ious, tokens, score = self.sam2.sam_mask_decoder.predict_masks(
            image_embeddings=attended,
            image_pe=position[:1],
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=list(query.high_res),
        )
        masks = masks.float()
        single, others = masks[:, :1], masks[:, 1:]
        stability = _stability(single)
        # argmax of the predicted IoU over masks 1..3, which no loss has seen
        best = ious[:, 1:].argmax(-1)
        low = single
        if not self.training:
            fallback = others[torch.arange(len(best), device=best.device), best].unsqueeze(1)
            low = torch.where(stability[..., None, None] >= _STABLE_FROM, single, fallback)
        logits = F.interpolate(low, (self.image_size, self.image_size), mode='bilinear')
        trace = Trace(attended, masks, ious, tokens, score, stability, best, low)
        return Segmentation(logits, trace=trace)

    def compared(self, features: SAM2Features) -> Tensor:
        """SAM 2's stride-16 features (N, D, h, w)."""
        return features.top

    def not_static(self) -> dict[str, str]:
        """Nothing: both are static graphs."""
        return {}

    # ------------------------------------------------------------------ prompts and training

    @property
    def arch(self) -> dict[str, Any]:
        """With the layers that have LoRA: their targets, rank and alpha."""
        return dict(super().arch, lora=self.lora)

    @property
    def title(self) -> str:
        """Says where LoRA was folded into the weights."""
        return super().title if self.lora else f'{super().title}, LoRA folded'

    def prompter(self, checkpoint: str | None = None) -> Prompter:
        """SAM 2's prompt encoder and mask decoder, on the image encoder without LoRA: the official
        one, which they were trained with. See :func:`mmfss.encoders.sam2.prompts.prompt_heads`."""
        with without_lora(self.sam2):
            return _PlainSAM2Prompter(self.sam2, prompt_heads(self.sam2, checkpoint))

    def load_encoders(self) -> None:
        """As in the base; the weights of SAM 2 go below LoRA, which stays as it is."""
        with without_lora(self.sam2):
            super().load_encoders()

    def train(self, mode: bool = True) -> FSSAM2:
        """As in the base; SAM 2's own dropout in memory attention is on with LoRA's."""
        super().train(mode)
        if mode:
            for layer in self.sam2.memory_attention.layers:
                if any(parameter.requires_grad for parameter in layer.parameters()):
                    for part in layer.modules():
                        if isinstance(part, nn.Dropout) or hasattr(part, 'dropout_p'):
                            part.training = True
        return self

    @classmethod
    def trains_from_pixels(cls, trainable: Sequence[str] | None) -> bool:
        """Whether SAM 2's trunk has LoRA that is trained."""
        trunk = 'sam2.image_encoder.trunk'
        return trainable is None or any(
            fnmatchcase(f'{trunk}.blocks.0.attn.qkv.lora', pattern) or pattern.startswith(trunk)
            for pattern in trainable
        )


@dataclass(frozen=True)
class _PlainSAM2Prompter:
    """A :class:`~mmfss.methods.base.Prompter`, see :meth:`FSSAM2.prompter`."""

    sam2: SAM2
    heads: PromptHeads

    def encode(self, images: Tensor) -> SAM2Features:
        with without_lora(self.sam2):
            return self.heads.encode(images)

    def __call__(
        self, features: SAM2Features, coords: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.heads(features, coords, labels)


def _stability(logits: Tensor) -> Tensor:
    """Of masks (B, 1, h, w): (B, 1), the share of the area above -0.05 that is above 0.05; 1 where
    there is none."""
    inside = (logits > _STABILITY_DELTA).flatten(2).sum(-1).float()
    around = (logits > -_STABILITY_DELTA).flatten(2).sum(-1).float()
    return torch.where(around > 0, inside / around, 1.0)


def _adapt(network: SAM2, lora: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give LoRA to parts of SAM 2; what was done, of JSON types."""
    done: dict[str, Any] = {}
    for part, options in (lora or {}).items():
        if part not in LORA:
            raise ValueError(
                f'model.lora must name parts out of {list(LORA)}, each with None or dict(targets='
                f'[...], rank=...), got {part!r}'
            )
        if options is None:
            continue
        unknown = set(options) - {'targets', 'rank', 'alpha', 'dropout'}
        missing = {'targets', 'rank'} - set(options)
        if unknown or missing:
            raise ValueError(
                f'model.lora.{part} takes targets and rank, and may set alpha and dropout; '
                + (f'unknown: {sorted(unknown)}' if unknown else f'missing: {sorted(missing)}')
            )
        add_lora(getattr(network, part), name=part, **options)
        done[part] = dict(
            targets=list(options['targets']),
            rank=options['rank'],
            alpha=float(options.get('alpha', 16.0)),
        )
    return done
