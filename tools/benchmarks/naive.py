"""FSSAM written down as its formulas read: what tests hold the fast one against, and what
benchmarks measure it against.

It works as few-shot code is published: every image of every episode is encoded again, one at a
time and through host memory; the prior encoder materialises its attention and keeps all layers;
pointers run the whole mask decoder; the calibrated attention holds all scores. With the fast FSSAM
it shares parameters and records, the resized position table and the MLPs of the prior encoder, how
memory frames are arranged and how the mask decoder is called; all else is written here or sam2's
own. What is not of the published method (an oracle, a backbone as prior encoder, SAM 2's own
attention) has no plain form and runs as it is.

Shapes: B episodes, K shots, n = h w positions, N heads, d channels per head, D channels of the
image features, M of the memory, P tokens per pointer, T tokens of the prior encoder, S image side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.position_encoding import apply_rotary_enc
from torch import Tensor

from mmfss.batching import cat
from mmfss.encoders.dinov2 import DINOv2
from mmfss.encoders.encoding import all_pixels
from mmfss.encoders.sam2.memory_attention import MemoryFrames
from mmfss.encoders.sam2.model import SAM2, SAM2Features
from mmfss.functional import up
from mmfss.methods.base import FewShotModel, Segmentation
from mmfss.methods.fssam.attention import SupportCalibratedMemoryAttention
from mmfss.methods.fssam.model import FSSAM, ImageFeatures, Trace
from mmfss.methods.fssam.prompts import PromptGenerator, PseudoMasks, PseudoPromptGenerator
from mmfss.methods.fssam.refinement import (
    IterativeMemoryRefinement,
    MemoryRefinement,
    RefinedMemory,
)

FAST_ONLY = ('feature_cache', 'encode_batch', 'compile')
"""Options of methods that the plain way does without."""


@dataclass(frozen=True)
class NaiveState:
    """What is kept of the supports of B episodes.

    Attributes:
        prototypes: of the prompt generator: (fg, bg), both (B, K, C), or its own.
        refinement: (B, K, M) memory prototypes, None without refinement.
        frames: memories and pointers.
        masks: (B, K, h, w) in {0, 1} on the memory's grid.
    """

    prototypes: Any
    refinement: Tensor | None
    frames: MemoryFrames
    masks: Tensor


def build_naive(cfg: dict) -> NaiveFSSAM:
    """Of the config of an FSSAM: with its parameters, which are drawn in the same order, without
    its options of speed, and with the memory layout in which sam2 makes weights."""
    cfg = {key: value for key, value in cfg.items() if key not in FAST_ONLY}
    cfg['sam2'] = dict(cfg['sam2'], channels_last=False)
    attention = cfg.get('memory_attention')
    if attention:
        cfg['memory_attention'] = {k: v for k, v in attention.items() if k != 'checkpoint'}
    return NaiveFSSAM(MODELS.build(cfg))


class NaiveFSSAM(FewShotModel):
    """See the module; :func:`build_naive` makes one.

    It is no FSSAM: a step of the fast one that has no counterpart here is missed, not inherited.

    Args:
        model: whose modules become this one's, under the same names.
    """

    def __init__(self, model: FSSAM) -> None:
        learns = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        super().__init__(
            model.encoders,
            model.image_size,
            model.trainable,
            data_preprocessor=model.data_preprocessor,
        )
        self.loss_decode = model.loss_decode
        self.prompt_generator = model.prompt_generator
        self.memory_refinement = model.memory_refinement
        self.needs_truth, self.reads_sam2 = model.needs_truth, model.reads_sam2
        self.query_encoders = self.support_encoders = model.query_encoders
        self._learns = learns

    def set_trainable(self, patterns: Sequence[str] | None) -> None:
        """What learns in the FSSAM learns here."""
        super().set_trainable(patterns)
        for parameter, learns in self._learns:
            parameter.requires_grad_(learns)

    def encode_image(self, images: Any, role: str = 'query') -> ImageFeatures:
        """Features of (N, 3, S, S) RGB images."""
        return cat([self._encode(image) for image in all_pixels(images).split(1)])

    def _encode(self, image: Tensor) -> ImageFeatures:
        trained = any(p.requires_grad for p in self.sam2.image_encoder.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            out = self.sam2.forward_image(self.sam2.normalise(image))
        low, mid, top = (x.cpu().to(image.device) for x in out['backbone_fpn'])
        prior = top.detach() if self.reads_sam2 else None
        if 'prior_encoder' in self.query_encoders:
            encoder = self.prior_encoder
            with torch.no_grad():
                if type(encoder) is DINOv2:
                    size = (encoder.image_size, encoder.image_size)
                    prior = explicit_prior(encoder.vit, encoder.normalise(up(image, size)))
                else:
                    prior = encoder(image)[-1]
            prior = prior.cpu().to(image.device)
        return ImageFeatures(SAM2Features((low, mid), top, out['vision_pos_enc'][-1]), prior)

    def encode_support(self, features: ImageFeatures, masks: Tensor) -> NaiveState:
        """Of B K images under masks (B, K, S, S) in {0, 1, 255}."""
        shots, masks = masks.shape[1], (masks == 1).float()
        flat = masks.flatten(0, 1).unsqueeze(1)
        memory, pos, pointers = memory_of(self.sam2, features.sam2, flat)
        grid, prior, refinement = memory.shape[-2:], features.prior, None
        if prior is not None:
            prior = prior.unflatten(0, (-1, shots))
        if self.memory_refinement is not None:
            refinement = mean_under(memory.unflatten(0, (-1, shots)), resized(masks, grid))
        return NaiveState(
            prototypes_of(self.prompt_generator, prior, masks),
            refinement,
            self.sam2.memory_frames(memory, pos, pointers, shots),
            F.interpolate(masks, size=grid, mode='nearest'),
        )

    def segment(
        self, query: ImageFeatures, state: NaiveState, truth: Tensor | None = None
    ) -> Segmentation:
        """Of B queries."""
        sam2, generator, module = self.sam2, self.prompt_generator, self.memory_refinement
        pseudo: Any = None
        frames: Any = None
        refined, maps = None, {}
        if generator is not None:
            pseudo = pseudo_masks(generator, query.prior, state.prototypes, self.image_size, truth)
            maps = {'pseudo fg': pseudo.fg, 'pseudo ae': pseudo.ae}
            memory, pos, pointer = memory_of(sam2, query.sam2, pseudo.ae)
            if module is not None:
                memory_fg = memory_of(sam2, query.sam2, pseudo.fg)[0]
                refined = refine(module, memory_fg, memory, pseudo, state.refinement)
                memory, maps['refined prior'] = refined.memory, refined.prior_ae
            frames = sam2.memory_frames(memory, pos, pointer, 1)
        top, top_pos = (x.flatten(2).transpose(1, 2) for x in (query.sam2.top, query.sam2.top_pos))
        attention = sam2.memory_attention
        if type(attention) is SupportCalibratedMemoryAttention:
            attended = attend(attention, top, top_pos, frames, state)
        else:
            supports = attention.encode_support(state.frames, state.masks)
            attended = attention(top, top_pos, frames, supports)
        attended = attended.transpose(1, 2).unflatten(-1, query.sam2.top.shape[-2:])
        decoded = sam2.decode(attended, query.sam2.high_res)
        return Segmentation(decoded.logits, maps, Trace(decoded, attended, pseudo, frames, refined))

    def compared(self, features: ImageFeatures) -> Tensor:
        """As FSSAM's."""
        return features.sam2.top if features.prior is None else features.prior


# ------------------------------------------------------------------------------ prior encoder
def explicit_vit(vit: Any, x: Tensor) -> list[Tensor]:
    """Tokens (N, T, C) after each block of a :class:`mmfss.encoders.dinov2.DINOv2ViT`.

    Args:
        vit: the transformer.
        x: (N, 3, H, W) normalised images.
    """
    height, width = (side // vit.patch_size for side in x.shape[-2:])
    tokens = vit.patch_embed.proj(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([vit.cls_token.expand(len(x), -1, -1), tokens], 1)
    tokens = tokens + vit.resized_pos_embed(height, width)
    if vit.num_register_tokens:
        registers = vit.register_tokens.expand(len(x), -1, -1)
        tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
    outputs = []
    for block in vit.blocks:
        attention, normed = block.attn, block.norm1(tokens)
        qkv = attention.qkv(normed).unflatten(-1, (3, attention.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)  # all T x T
        attended = attention.proj((weights @ v).transpose(1, 2).flatten(2))
        tokens = tokens + block.ls1.gamma * attended
        tokens = tokens + block.ls2.gamma * block.mlp(block.norm2(tokens))
        outputs.append(tokens)
    return outputs


def explicit_prior(vit: Any, x: Tensor) -> Tensor:
    """The last of all layers of :func:`explicit_vit`, as (N, C, h, w)."""
    outputs = explicit_vit(vit, x)
    patches = vit.norm(outputs[-1])[:, 1 + vit.num_register_tokens :]
    height, width = (side // vit.patch_size for side in x.shape[-2:])
    return patches.transpose(1, 2).unflatten(-1, (height, width))


# ------------------------------------------------------------------------------ pure functions
def rescaled(x: Tensor, dims: tuple[int, ...] = (-2, -1)) -> Tensor:
    """``(x - min) / (max - min + 1e-7)`` over ``dims``."""
    low, high = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)
    return (x - low) / (high - low + 1e-7)


def mean_under(features: Tensor, mask: Tensor) -> Tensor:
    """Mean (..., C) of (..., C, h, w) under (..., h, w)."""
    weight = mask.unsqueeze(-3)
    return (features * weight).sum((-2, -1)) / (weight.sum((-2, -1)) + 0.0005)


def cosine(features: Tensor, vector: Tensor) -> Tensor:
    """Cosine (..., h, w) of (..., C, h, w) with (..., C)."""
    vector = vector[..., None, None]
    norms = features.norm(dim=-3) * vector.norm(dim=-3)
    return (features * vector).sum(-3) / (norms + 1e-7)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear with aligned corners."""
    return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=True)


# ------------------------------------------------------------------------------ prompts, memories
@torch.no_grad()
def prototypes_of(generator: PromptGenerator | None, prior: Any, masks: Tensor) -> Any:
    """Mean prior features (B, K, C) of (B, K, C, h, w) under masks (B, K, S, S) and the rest."""
    if type(generator) is not PseudoPromptGenerator:
        return None if generator is None else generator.encode_support(prior, masks)
    soft = resized(masks, prior.shape[-2:])
    return mean_under(prior.float(), soft), mean_under(prior.float(), 1 - soft)


@torch.no_grad()
def pseudo_masks(
    generator: PromptGenerator, prior: Any, prototypes: Any, side: int, truth: Any
) -> PseudoMasks:
    """``fg``: rescaled similarity to the foreground. ``ae``: what of it the background does not
    explain, rescaled. Both in full size for each shot, and then the mean."""
    if type(generator) is not PseudoPromptGenerator:
        return generator(prior, prototypes, side, truth)
    query = prior.float().unsqueeze(1)
    fg, bg = (resized(rescaled(cosine(query, p)), (side, side)) for p in prototypes)
    ae = rescaled(F.relu(fg - bg))
    return PseudoMasks(fg=fg.mean(1, keepdim=True), ae=ae.mean(1, keepdim=True))


def memory_of(sam2: SAM2, features: SAM2Features, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Memory and position (N, M, h, w), and pointer (N, D) by the full decoder path, of N images
    under masks (N, 1, S, S) in [0, 1]."""
    top = features.top
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


def refine(
    module: MemoryRefinement, memory_fg: Tensor, memory: Tensor, pseudo: PseudoMasks, supports: Any
) -> RefinedMemory:
    """Query memories (B, M, h, w) under both pseudo masks, support prototypes (B, K, M)."""
    if type(module) is not IterativeMemoryRefinement:
        return module(memory_fg, memory, pseudo.fg, pseudo.ae, supports)
    grid = memory.shape[-2:]
    prior_fg, prior = resized(pseudo.fg, grid), resized(pseudo.ae, grid)
    a = rescaled(cosine(memory_fg.unsqueeze(1), supports)).mean(1, keepdim=True)
    for _ in range(module.num_iters):
        own = mean_under(memory, prior[:, 0])
        weight = F.relu(rescaled(cosine(memory_fg, own)).unsqueeze(1) + a - 1)
        weight = rescaled(weight) if module.version == 'v2' else weight
        memory = weight * memory_fg + (1 - weight) * memory
        prior = rescaled(weight * prior_fg + (1 - weight) * prior)
    return RefinedMemory(memory, prior, a)


# ------------------------------------------------------------------------------ memory attention
def attend(
    attention: MemoryAttention, curr: Tensor, pos: Tensor, query: MemoryFrames, state: NaiveState
) -> Tensor:
    """Image features (B, n, D) after all layers."""
    out = curr + 0.1 * pos if attention.pos_enc_at_input else curr
    for layer in attention.layers:
        out = MemoryAttentionLayer._forward_sa(layer, out, pos)
        normed = layer.norm2(out)
        asking = normed + pos if layer.pos_enc_at_cross_attn_queries else normed
        out = out + layer.dropout2(calibrated(layer, asking, query, state))
        hidden = layer.dropout(layer.activation(layer.linear1(layer.norm3(out))))
        out = out + layer.dropout3(layer.linear2(hidden))
    return attention.norm(out)


def calibrated(
    layer: MemoryAttentionLayer, asking: Tensor, query: MemoryFrames, state: NaiveState
) -> Tensor:
    """Cross-attention (B, n, D) with the scores of all memories and pointers in one tensor.

    The keys of the query's memory get ``strength * min(g + c - 1, 0)`` on their scores: ``g`` are
    the scores rescaled in each row, ``c`` the resemblance to the supports' foreground.
    """
    cross = layer.cross_attn_image
    shots, height, width = state.masks.shape[1:]

    def heads(x: Tensor) -> Tensor:
        return cross._separate_heads(x, cross.num_heads)

    def rotated(x: Tensor) -> Tensor:
        freqs = cross.compute_cis(end_x=width, end_y=height).to(x.device)
        return apply_rotary_enc(x, x[:, :, :0], freqs_cis=freqs)[0]

    def projected(tokens: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        keys = tokens + pos if layer.pos_enc_at_cross_attn_keys else tokens
        return heads(cross.k_proj(keys)), heads(cross.v_proj(tokens))

    def memories(frames: MemoryFrames) -> tuple[Tensor, Tensor]:  # (B F, N, n, d)
        k, v = projected(frames.spatial.flatten(0, 1), frames.spatial_pos.flatten(0, 1))
        return rotated(k), v

    def pointers(frames: MemoryFrames) -> tuple[Tensor, Tensor]:  # (B, N, F P, d)
        return projected(frames.pointers.flatten(1, 2), frames.pointer_pos.flatten(1, 2))

    q, (k, v) = rotated(heads(cross.q_proj(asking))), memories(query)
    support_k, support_v = (x.unflatten(0, (-1, shots)) for x in memories(state.frames))
    pointer_k, pointer_v = (torch.cat(x, 2) for x in zip(pointers(state.frames), pointers(query)))
    keys = torch.cat([support_k.mean(1), k, pointer_k], 2)
    values = torch.cat([support_v.mean(1), v, pointer_v], 2)
    scores = q @ keys.transpose(-2, -1) / math.sqrt(q.shape[-1])
    before, own, after = scores.split([k.shape[2], k.shape[2], pointer_k.shape[2]], -1)
    with torch.no_grad():
        as_maps = support_k.transpose(-2, -1).unflatten(-1, (height, width))
        prototypes = mean_under(as_maps, state.masks.unsqueeze(2)).transpose(1, 2)  # (B, N, K, d)
        as_rows = k.transpose(-2, -1).unsqueeze(2).unsqueeze(-2)  # (B, N, 1, d, 1, n)
        c = rescaled(cosine(as_rows, prototypes)).squeeze(-2).mean(2).unsqueeze(-2)
        bias = cross.strength * (rescaled(own, (-1,)) + c - 1).clamp(max=0)
    weights = torch.cat([before, own + bias, after], -1).softmax(-1)
    weights = F.dropout(weights, cross.dropout_p, cross.training)
    return cross.out_proj(cross._recombine_heads(weights @ values))
