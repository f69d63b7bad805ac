"""The baseline: FSSAM as few-shot code is published, with the same weights and the same results.

Every image of every episode is encoded again, one at a time; the prior encoder keeps all layers
and materialises its attention; pointers run the whole decoder; attention holds all scores; features
go through host memory. Only the parts of the published method have a plain form: others (an oracle,
a backbone as prior encoder, SAM 2's own attention) run as they are.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from mmfss.methods.fssam.parts import truth_for
from mmseg.structures import SegDataSample
from torch import Tensor

from benchmarks.plain import (
    PlainCalibratedMemoryAttention,
    cosine,
    explicit_prior,
    mean_under,
    rescaled,
    resized,
)
from mmfss.batching import cat
from mmfss.encoders.dinov2 import DINOv2
from mmfss.encoders.sam2.model import SAM2Features
from mmfss.functional import up
from mmfss.methods.fssam.model import FSSAM, ImageFeatures, Segmentation, SupportState
from mmfss.methods.fssam.prompts import (
    PromptGenerator,
    Prototypes,
    PseudoMasks,
    PseudoPromptGenerator,
)
from mmfss.methods.fssam.refinement import IterativeMemoryRefinement, RefinedMemory

FAST_ONLY = ('feature_cache', 'encode_batch', 'compile')
"""Options of FSSAM that the baseline does without."""


def naive_config(cfg: dict) -> dict:
    """The config of a :class:`NaiveFSSAM` with the parameters of this FSSAM's; their memory layout
    is the one in which sam2 makes them."""
    cfg = {k: copy.deepcopy(v) for k, v in cfg.items() if k not in (*FAST_ONLY, 'type')}
    cfg['sam2'] = dict(cfg['sam2'], channels_last=False)
    if cfg.get('memory_attention'):
        attention = {k: v for k, v in cfg['memory_attention'].items() if k != 'checkpoint'}
        if attention.get('type') == 'SupportCalibratedMemoryAttention':
            attention['type'] = PlainCalibratedMemoryAttention
        cfg['memory_attention'] = attention
    return cfg


class NaiveFSSAM(FSSAM):
    """See the module. Built of :func:`naive_config`; loads the state dict of an FSSAM."""

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """Features of (N, 3, S, S) RGB images, one image at a time, through host memory."""
        parts = [self._encode_one(image) for image in images.split(1)]
        return cat(parts)

    def _encode_one(self, image: Tensor) -> ImageFeatures:
        device = image.device
        trained = any(name.startswith('image_encoder') for name in self.trainable)
        with nullcontext() if trained else torch.no_grad():
            out = self.sam2.forward_image(self.normalise(image))
        low, mid, top = (x if trained else via_host(x, device) for x in out['backbone_fpn'])
        features = SAM2Features((low, mid), top, out['vision_pos_enc'][-1])
        prior = None
        if self.prompt_generator is not None and self.prompt_generator.needs_prior:
            with torch.no_grad():
                prior = via_host(self._prior(image, features), device)
        return ImageFeatures(features, prior)

    def _prior(self, image: Tensor, features: SAM2Features) -> Tensor:
        encoder = self.prior_encoder
        if type(encoder) is not DINOv2:
            return encoder(image, features)
        size = (encoder.image_size, encoder.image_size)
        return explicit_prior(encoder.vit, encoder.normalise(up(image, size)))

    def _memory(self, features: SAM2Features, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Memory and position (N, M, h, w), and pointer (N, D) by the full decoder path."""
        sam2, top = self.sam2, features.top
        memory, pos = sam2._encode_new_memory(
            current_vision_feats=[top.flatten(2).permute(2, 0, 1)],
            feat_sizes=[top.shape[-2:]],
            pred_masks_high_res=masks * 20.0 - 10.0,
            object_score_logits=masks.flatten(1).gt(0).any(1, keepdim=True) * 20.0 - 10.0,
            is_mask_from_pts=False,
        )
        temporal = sam2.maskmem_tpos_enc[sam2.num_maskmem - 1].reshape(1, -1, 1, 1)
        pointer = sam2._use_mask_as_output(top, list(features.high_res), masks)[5]
        return memory, pos[-1] + temporal, pointer

    def encode_support(self, features: ImageFeatures, masks: Tensor) -> SupportState:
        """As :meth:`FSSAM.encode_support`."""
        shots = masks.shape[1]
        masks = (masks == 1).float()
        memory, pos, pointers = self._memory(features.sam2, masks.flatten(0, 1).unsqueeze(1))
        frames = self.sam2.memory_frames(memory, pos, pointers, shots)
        grid = memory.shape[-2:]
        refinement = None
        if self.memory_refinement is not None:
            memories = memory.unflatten(0, (-1, shots))
            refinement = mean_under(memories, resized(masks, grid))
        return SupportState(
            prototypes=self._prototypes(features.prior, masks),
            refinement=refinement,
            frames=frames,
            attention=self.sam2.memory_attention.encode_support(
                frames, F.interpolate(masks, size=grid, mode='nearest')
            ),
        )

    @torch.no_grad()
    def _prototypes(self, prior: Tensor | None, masks: Tensor) -> Prototypes | None:
        generator = self.prompt_generator
        if prior is not None:
            prior = prior.unflatten(0, (-1, masks.shape[1]))
        if type(generator) is not PseudoPromptGenerator:
            return None if generator is None else generator.encode_support(prior, masks)
        prior = prior.float()
        soft = resized(masks, prior.shape[-2:])
        return Prototypes(mean_under(prior, soft), mean_under(prior, 1 - soft))

    def segment(
        self, query: ImageFeatures, support: SupportState, truth: Tensor | None = None
    ) -> Segmentation:
        """As :meth:`FSSAM.segment`."""
        pseudo = frames = refined = None
        if self.prompt_generator is not None:
            pseudo = self._prompts(self.prompt_generator, query.prior, support, truth)
            memory, pos, pointer = self._memory(query.sam2, pseudo.ae)
            if self.memory_refinement is not None:
                memory_fg = self._memory(query.sam2, pseudo.fg)[0]
                refined = self._refined(memory_fg, memory, pseudo, support.refinement)
                memory = refined.memory
            frames = self.sam2.memory_frames(memory, pos, pointer, 1)
        top, top_pos = query.sam2.top, query.sam2.top_pos
        attended = self.sam2.memory_attention(
            top.flatten(2).transpose(1, 2),
            top_pos.flatten(2).transpose(1, 2),
            frames,
            support.attention,
        )
        attended = attended.transpose(1, 2).unflatten(-1, top.shape[-2:])
        decoded = self.sam2.decode(attended, query.sam2.high_res)
        return Segmentation(decoded.logits, decoded, attended, pseudo, frames, refined)

    @torch.no_grad()
    def _prompts(
        self,
        generator: PromptGenerator,
        prior: Tensor | None,
        support: SupportState,
        truth: Tensor | None,
    ) -> PseudoMasks:
        side = self.sam2.image_size
        if type(generator) is not PseudoPromptGenerator:
            return generator(prior, support.prototypes, side, truth)
        query = prior.float().unsqueeze(1)
        fg, bg = (
            resized(rescaled(cosine(query, prototype)), (side, side))
            for prototype in (support.prototypes.fg, support.prototypes.bg)
        )
        ae = rescaled(F.relu(fg - bg))
        return PseudoMasks(fg=fg.mean(1, keepdim=True), ae=ae.mean(1, keepdim=True))

    def _refined(
        self, memory_fg: Tensor, memory: Tensor, pseudo: PseudoMasks, prototypes: Tensor
    ) -> RefinedMemory:
        mend = self.memory_refinement
        if type(mend) is not IterativeMemoryRefinement:
            return mend(memory_fg, memory, pseudo.fg, pseudo.ae, prototypes)
        grid = memory.shape[-2:]
        prior_fg, prior = resized(pseudo.fg, grid), resized(pseudo.ae, grid)
        a = rescaled(cosine(memory_fg.unsqueeze(1), prototypes)).mean(1, keepdim=True)
        for _ in range(mend.num_iters):
            own = mean_under(memory, prior[:, 0])
            weight = F.relu(rescaled(cosine(memory_fg, own)).unsqueeze(1) + a - 1)
            weight = rescaled(weight) if mend.version == 'v2' else weight
            memory = weight * memory_fg + (1 - weight) * memory
            prior = rescaled(weight * prior_fg + (1 - weight) * prior)
        return RefinedMemory(memory, prior, a)

    def run(
        self, inputs: dict[str, Tensor], data_samples: list[SegDataSample] | None = None
    ) -> Segmentation:
        """All steps, nothing kept."""
        query = self.encode_image(inputs['query'])
        supports = self.encode_image(inputs['support'].flatten(0, 1))
        support = self.encode_support(supports, inputs['support_mask'])
        truth = truth_for(self.prompt_generator, data_samples, query.sam2.top, self.sam2.image_size)
        return self.segment(query, support, truth)


def via_host(x: Tensor, device: Any) -> Tensor:
    """A tensor that goes through host memory; on the CPU it stays where it is."""
    return x.cpu().to(device)
