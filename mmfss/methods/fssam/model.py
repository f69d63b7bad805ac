"""FSSAM: few-shot segmentation with SAM 2, top to bottom as in the paper.

Xu et al., "Unlocking the Power of SAM 2 for Few-Shot Segmentation", ICML 2025, arXiv 2505.14100.

Call chain (B episodes, K shots, S image side):

    encode_image(images)              encoders: SAM 2 features, prior features
    encode_support(features, masks)   prototypes, memories, pointers, keys of each layer
    segment(query, support)           pseudo prompts -> query memories -> refinement
                                      -> calibrated memory attention -> mask decoder

K is read from the shape of the support; parts that are None in the config are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from mmfss.encoders.base import Encoder, Step, build_encoder, build_part
from mmfss.encoders.sam2.memory_attention import MemoryFrames
from mmfss.encoders.sam2.model import DecodedMasks, SAM2Features, build_sam2
from mmfss.encoders.sam2.prompts import PromptHeads, prompt_heads
from mmfss.features.images import DeferredBatch
from mmfss.functional import resize_mask
from mmfss.methods.base import FewShotModel, Segmentation

from .prompts import PromptGenerator, Prototypes, PseudoMasks
from .refinement import MemoryRefinement, RefinedMemory


@dataclass(frozen=True)
class ImageFeatures:
    """Features of N images.

    Attributes:
        sam2: SAM 2's.
        prior: (N, C, h, w) of the prior encoder, None without one.
        tokens: (N, n, D) what the memory attention makes of them before it reads any memory; None
            where it has not been asked yet.
    """

    sam2: SAM2Features
    prior: Tensor | None
    tokens: Tensor | None = None


@dataclass(frozen=True)
class SupportState:
    """All that a query needs to know of the K supports of B episodes.

    Attributes:
        prototypes: of the prompt generator.
        refinement: (B, K, M) memory prototypes, None without refinement.
        frames: memories and pointers of the supports, for whoever wants to look at them.
        attention: what the memory attention keeps of them.
    """

    prototypes: Prototypes | None
    refinement: Tensor | None
    frames: MemoryFrames
    attention: Any


@dataclass(frozen=True)
class Trace:
    """What :meth:`FSSAM.segment` came through, for B queries.

    Attributes:
        decoded: all outputs of the mask decoder.
        attended: (B, D, h, w) query features after memory attention.
        pseudo_masks, query_frames, refined: what led there; None where the part is absent.
    """

    decoded: DecodedMasks
    attended: Tensor
    pseudo_masks: PseudoMasks | None
    query_frames: MemoryFrames | None
    refined: RefinedMemory | None


@MODELS.register_module()
class SAM2PriorEncoder(Encoder):
    """In the place of a prior encoder: SAM 2's own stride-16 features, and no second network."""

    def steps(self) -> tuple[Step, ...]:
        """None of its own."""
        return ()


@MODELS.register_module()
class FSSAM(FewShotModel):
    """Few-shot segmentor with one class at a time.

    Args:
        sam2: ``dict(arch=..., image_size=512, checkpoint='official' | path | None)``, see
            :func:`mmfss.encoders.sam2.model.build_sam2`.
        prior_encoder: config of an :class:`~mmfss.encoders.base.Encoder`, whose last map the
            prompt generator matches; may be None where that needs none, and is not run then.
        prompt_generator: makes the pseudo masks; None uses the support memory alone.
        memory_refinement: mends the query memory; None leaves it as encoded.
        memory_attention: ``dict(type='SupportCalibratedMemoryAttention', strength=10.0)``, or
            None for SAM 2's own.
        trainable: of :class:`~mmfss.methods.base.FewShotModel`. The decoder's ``conv_s0`` and
            ``conv_s1`` run inside the image encoder and are trained with its neck, and only so.
        loss_decode: loss on (B, S, S) logits and labels.
        common: other arguments of :class:`~mmfss.methods.base.FewShotModel`.

    Raises:
        ValueError: unknown arch or module, or parts that need one that is None.
    """

    builders = {'sam2': build_sam2}
    map_texts = {
        'pseudo fg': "similarity to the supports' objects, mean over shots",
        'pseudo ae': "the same less what the supports' backgrounds explain",
        'refined prior': 'pseudo ae after the iterations of memory refinement',
    }

    def __init__(
        self,
        sam2: dict,
        prior_encoder: dict | None = None,
        prompt_generator: dict | None = None,
        memory_refinement: dict | None = None,
        memory_attention: dict | None = None,
        trainable: Sequence[str] = (
            'sam2.sam_mask_decoder',
            'sam2.memory_encoder',
            'sam2.memory_attention',
        ),
        loss_decode: dict | None = None,
        **common: Any,
    ) -> None:
        network = build_sam2(memory_attention=memory_attention, **sam2)
        super().__init__(
            dict(sam2=network, prior_encoder=build_encoder('prior_encoder', prior_encoder)),
            network.image_size,
            trainable=trainable,
            loss_decode=loss_decode or dict(type='SquaredDiceLoss'),
            **common,
        )
        self.prompt_generator = build_part('prompt_generator', prompt_generator, PromptGenerator)
        self.memory_refinement = build_part(
            'memory_refinement', memory_refinement, MemoryRefinement
        )
        generator = self.prompt_generator
        needs_prior = generator is not None and generator.needs_prior
        self.needs_truth = generator is not None and generator.needs_truth
        if needs_prior and prior_encoder is None:
            raise ValueError(
                f'{type(generator).__name__} needs a prior_encoder, and it is None. Set '
                "prior_encoder=dict(type='DINOv2') or dict(type='SAM2PriorEncoder')."
            )
        if generator is None:
            kind = (memory_attention or {}).get('type')
            for name, idle in (
                ('memory_refinement', memory_refinement is not None),
                ('memory_attention', kind == 'SupportCalibratedMemoryAttention'),
            ):
                if idle:
                    raise ValueError(
                        f'{name} works on the memory of the pseudo masks, and there is none '
                        f'without a prompt_generator. Set {name}=None too, or a prompt_generator.'
                    )
        self.reads_sam2 = needs_prior and isinstance(self.prior_encoder, SAM2PriorEncoder)
        names = ('sam2', 'prior_encoder') if needs_prior and not self.reads_sam2 else ('sam2',)
        self.query_encoders = self.support_encoders = names

    # ------------------------------------------------------------------ the method

    def encode_image(self, images: Tensor | DeferredBatch, role: str = 'query') -> ImageFeatures:
        """Features of N images, see :meth:`FewShotModel.encode_image`."""
        levels = super().encode_image(images, role)
        sam2 = self.sam2.features(*levels['sam2'])
        if self.reads_sam2:
            # PPG is without gradient, also where the neck is trained
            return ImageFeatures(sam2, sam2.top.detach())
        return ImageFeatures(
            sam2, levels['prior_encoder'][-1] if 'prior_encoder' in levels else None
        )

    def encode_support(self, features: ImageFeatures, masks: Tensor) -> SupportState:
        """Encode supports once, see :meth:`FewShotModel.encode_support`."""
        masks = (masks == 1).float()
        flat = masks.flatten(0, 1).unsqueeze(1)
        # M_s and its pointer: each support frame with its true mask
        memory, pos = self.sam2.encode_memory(features.sam2, flat)
        pointers = self.sam2.encode_pointer(features.sam2, flat)
        prototypes = self._prototypes(features, masks)
        return self._support_state(masks, prototypes, memory, pos, pointers)

    def _prototypes(self, features: ImageFeatures, masks: Tensor) -> Prototypes | None:
        if self.prompt_generator is None:
            return None
        prior = features.prior
        prior = prior.unflatten(0, masks.shape[:2]) if prior is not None else None
        return self.prompt_generator.encode_support(prior, masks)

    def _support_state(
        self, masks: Tensor, prototypes: Prototypes | None, *memories: Tensor
    ) -> SupportState:
        """From masks (B, K, S, S) in {0, 1}, and memory, position and pointer of B K supports."""
        memory, shots = memories[0], masks.shape[1]
        frames = self.sam2.memory_frames(*memories, shots)
        refinement = None
        if self.memory_refinement is not None:
            refinement = self.memory_refinement.encode_support(
                memory.unflatten(0, (-1, shots)), masks
            )
        # nearest for the prototypes of SCMA; PPG and IMR resize the same mask with up, soft
        on_grid = resize_mask(masks, memory.shape[-2:], mode='nearest')
        attention = self.sam2.memory_attention.encode_support(frames, on_grid)
        return SupportState(prototypes, refinement, frames, attention)

    def encode_query(self, features: ImageFeatures) -> ImageFeatures:
        """The features with what :meth:`segment` makes of them for whichever support: saves time
        where several classes are looked for in an image."""
        return replace(
            features,
            tokens=self.sam2.memory_attention.encode_query(*features.sam2.top_tokens()),
        )

    def segment(
        self, query: ImageFeatures, support: SupportState, truth: Tensor | None = None
    ) -> Segmentation:
        """Segment B queries given their supports.

        Args:
            query: features of the B query images, of :meth:`encode_query` or not.
            support: of :meth:`encode_support`.
            truth: (B, 1, S, S) float in {0, 1}, for an oracle prompt generator only.
        """
        if self.prompt_generator is None:
            return self._attend(query, support, None, None, None)
        side = self.sam2.image_size
        # prior_fg, prior_ae   (PPG)
        pseudo = self.prompt_generator(query.prior, support.prototypes, side, truth)
        # in this order: gradients are summed in the order of the operators
        pointer = self.sam2.encode_pointer(query.sam2, pseudo.ae)
        memory, pos = self.sam2.encode_memory(query.sam2, self._query_masks(pseudo))
        # M_ae and, for refinement, M_fg -> M_q   (IMR)
        refined = self._query_memory(pseudo, support, memory, pos, pointer)
        return self._attend(query, support, pseudo, *refined)

    def run_episode(
        self,
        query: ImageFeatures,
        supports: ImageFeatures,
        masks: Tensor,
        truth: Tensor | None = None,
    ) -> Segmentation:
        """As supports and query one after the other, but memories and pointers of both are encoded
        in one batch: two thirds of the operators of an episode whose features are kept."""
        if self.training or self.prompt_generator is None:
            return super().run_episode(query, supports, masks, truth)
        masks = (masks == 1).float()
        flat, count = masks.flatten(0, 1).unsqueeze(1), masks.shape[:2].numel()
        prototypes = self._prototypes(supports, masks)
        pseudo = self.prompt_generator(query.prior, prototypes, self.sam2.image_size, truth)
        # rows: B K supports, the queries with ae, and for refinement the queries with fg
        own = self._query_masks(pseudo)
        tops = [supports.sam2.top, *[query.sam2.top] * (len(own) // len(pseudo.ae))]
        all_of_them = replace(query.sam2, top=torch.cat(tops))
        memory, pos = self.sam2.encode_memory(all_of_them, torch.cat([flat, own]))
        # the memory under fg is only mixed into the other and needs no pointer
        both = replace(query.sam2, top=torch.cat(tops[:2]))
        pointers = self.sam2.encode_pointer(both, torch.cat([flat, pseudo.ae]))
        support = self._support_state(
            masks, prototypes, memory[:count], pos[:count], pointers[:count]
        )
        refined = self._query_memory(pseudo, support, memory[count:], pos[count:], pointers[count:])
        return self._attend(query, support, pseudo, *refined)

    def _query_masks(self, pseudo: PseudoMasks) -> Tensor:
        """Under which a query gets a memory: ``ae`` of each, then ``fg`` for refinement."""
        return pseudo.ae if self.memory_refinement is None else torch.cat([pseudo.ae, pseudo.fg])

    def _query_memory(
        self,
        pseudo: PseudoMasks,
        support: SupportState,
        memory: Tensor,
        pos: Tensor,
        pointer: Tensor,
    ) -> tuple[MemoryFrames, RefinedMemory | None]:
        """Memory of the query under its pseudo masks, refined; position and pointer are those
        that came with ``pseudo.ae`` before refinement."""
        refined = None
        if self.memory_refinement is not None:
            # positions of both are the same, as they depend on the grid alone
            (memory, memory_fg), (pos, _) = memory.chunk(2), pos.chunk(2)
            refined = self.memory_refinement(
                memory_fg, memory, pseudo.fg, pseudo.ae, support.refinement
            )
            memory = refined.memory
        return self.sam2.memory_frames(memory, pos, pointer, 1), refined

    def _attend(
        self,
        query: ImageFeatures,
        support: SupportState,
        pseudo: PseudoMasks | None,
        frames: MemoryFrames | None,
        refined: RefinedMemory | None,
    ) -> Segmentation:
        """Calibrated memory attention and mask decoder."""
        if query.tokens is None:
            query = self.encode_query(query)
        # F = attention(F_q; M_s, M_q, pointers)   (SCMA), then the mask decoder
        attended = self.sam2.memory_attention.attend(
            query.tokens, query.sam2.top_tokens()[1], frames, support.attention
        )
        attended = attended.transpose(1, 2).unflatten(-1, query.sam2.top.shape[-2:])
        decoded = self.sam2.decode(attended, query.sam2.high_res)
        maps = {}
        if pseudo is not None:
            maps = {'pseudo fg': pseudo.fg, 'pseudo ae': pseudo.ae}
        if refined is not None:
            maps['refined prior'] = refined.prior_ae
        trace = Trace(decoded, attended, pseudo, frames, refined)
        return Segmentation(decoded.logits, maps, trace)

    def compared(self, features: ImageFeatures) -> Tensor:
        """(N, C, h, w): the prior encoder's, or SAM 2's where there is none."""
        return features.sam2.top if features.prior is None else features.prior

    def not_static(self) -> dict[str, str]:
        """The truth is in no photo that is labelled; all else is static."""
        why = 'its prompt generator takes the true mask of the photo'
        return dict(segment=why) if self.needs_truth else {}

    # ------------------------------------------------------------------ prompts and training

    def prompter(self, checkpoint: str | None = None) -> PromptHeads:
        """SAM 2's prompt encoder and mask decoder, see
        :func:`mmfss.encoders.sam2.prompts.prompt_heads`."""
        return prompt_heads(self.sam2, checkpoint)

    def set_trainable(self, patterns: Sequence[str] | None) -> None:
        """As in the base; two convolutions of the mask decoder go with the image encoder's neck."""
        super().set_trainable(patterns)
        # what runs in the frozen encoder is in cached features: the decoder must not change it
        neck = self.sam2.image_encoder.neck.parameters()
        learns = any(parameter.requires_grad for parameter in neck)
        for conv in (self.sam2.sam_mask_decoder.conv_s0, self.sam2.sam_mask_decoder.conv_s1):
            conv.requires_grad_(learns)

    @classmethod
    def trains_from_pixels(cls, trainable: Sequence[str] | None) -> bool:
        """Whether SAM 2's trunk is trained, or a part of it."""
        # 'sam2.*', a name above the trunk, or one of a part of it
        trunk = 'sam2.image_encoder.trunk'
        return any(
            fnmatchcase(trunk, pattern) or trunk.startswith(f'{pattern}.') or trunk in pattern
            for pattern in trainable or ()
        )
