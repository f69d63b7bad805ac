"""Prototype matching: what every few-shot segmentation paper starts from, and nothing to train.

    encode_support   mean feature of the object and of the rest, in each support
    segment          cosine with the first less cosine with the second, at each position

The difference is 0 where a position is as like the object as it is like the background, so that the
background is built in, also among N classes (:mod:`mmfss.apis.nway`).

Shapes: B episodes, K shots, C channels of the encoder's last map, (h, w) its grid, S image side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from mmfss.arguments import integer
from mmfss.encoders.base import build_encoder
from mmfss.functional import cosine_map, masked_average, share_of_grid, up

from .base import SMALL, FewShotModel, Negatives, Segmentation
from .refine import CUTS, build_refinement


@dataclass(frozen=True)
class Prototypes:
    """Mean features float32: of the object in each support (B, K, C), and of the rest in each and
    of each of M negatives (B, K + M, C)."""

    fg: Tensor
    bg: Tensor


@MODELS.register_module()
class PrototypeMatcher(FewShotModel):
    """Cosine with the prototypes of object and background, in the features of any encoder.

    Args:
        encoder: config of an :class:`~mmfss.encoders.base.Encoder`; its last map is matched.
        image_size: side S in pixels of the images; the encoder resizes them to its own.
        temperature: the logits are the difference of the cosines divided by this; > 0. It changes
            how sure a mask is, not where it is.
        refine: None, or ``dict(type='GrabCut', ...)``, see :mod:`mmfss.methods.refine`.
        common: other arguments of :class:`~mmfss.methods.base.FewShotModel`.

    Raises:
        ValueError: no encoder, or a number out of range.
    """

    needs_checkpoint = False
    map_texts = {
        'like object': 'cosine with the mean feature of the objects, mean over shots',
        'like background': 'cosine with that of the backgrounds, or of a negative if larger',
    }
    takes_negatives = True

    def __init__(
        self,
        encoder: dict,
        image_size: int = 512,
        temperature: float = 0.1,
        refine: dict | None = None,
        **common: Any,
    ) -> None:
        if encoder is None:
            raise ValueError("PrototypeMatcher needs an encoder, e.g. encoder=dict(type='DINOv2')")
        if not temperature > 0:
            raise ValueError(f'model.temperature must be > 0, got {temperature!r}')
        size = integer('model.image_size', image_size, 1)
        cut, photo = build_refinement(refine)
        super().__init__(
            dict(encoder=build_encoder('encoder', encoder), photo=photo), size, **common
        )
        self.refine = cut
        self.temperature = temperature

    def encode_support(
        self, features: dict, masks: Tensor, negatives: Negatives | None = None
    ) -> Prototypes:
        """Prototypes of B K images under masks (B, K, S, S); an empty one is about 0, and like
        nothing."""
        level = self.compared(features).float().unflatten(0, masks.shape[:2])
        # the mask on the features' grid stays soft: a cell at the border counts by its share
        inside = share_of_grid(marked := (masks == 1).float(), level.shape[-2:])
        small = marked.flatten(2).any(-1) & (inside.amax((-2, -1)) < 0.5)
        if not torch.compiler.is_compiling() and small.any():  # a graph says nothing
            self.warn_once(SMALL.format(*level.shape[-2:]))
        # p_fg = gap(F_s, m), p_bg = gap(F_s, 1 - m), per shot
        fg, bg = masked_average(level, inside), masked_average(level, 1 - inside)
        if negatives is None:
            return Prototypes(fg, bg)
        level = self.compared(negatives.features).float().unflatten(0, negatives.masks.shape[:2])
        inside = share_of_grid((negatives.masks == 1).float(), level.shape[-2:])
        return Prototypes(fg, torch.cat([bg, masked_average(level, inside)], 1))

    def segment(self, query: dict, state: Prototypes, truth: Tensor | None = None) -> Segmentation:
        """Match B queries: ``(cos(F, p_fg) - cos(F, p_bg)) / temperature``, means over shots; what
        is more like a negative than like the backgrounds counts as that."""
        level = self.compared(query).float().unsqueeze(1)
        # mean_K cos(F_q, p_k): the mean of the maps, not of the prototypes, so shots weigh the same
        fg, bg = (cosine_map(level, p) for p in (state.fg, state.bg))
        bg, negative = bg[:, : fg.shape[1]].mean(1, keepdim=True), bg[:, fg.shape[1] :]
        fg = fg.mean(1, keepdim=True)
        if negative.shape[1]:
            # max(mean_K cos(F_q, p_bg,k), max_M cos(F_q, n_m)): one look-alike is enough
            bg = torch.maximum(bg, negative.amax(1, keepdim=True))
        # z = (cos(F_q, p_fg) - cos(F_q, p_bg)) / temperature
        fine = (fg - bg) / self.temperature
        if self.refine is not None:
            fine = self.refine(fine, query['photo'][0])
        logits = up(fine, (self.image_size, self.image_size))
        maps = {'like object': fg.clamp(0, 1), 'like background': bg.clamp(0, 1)}
        return Segmentation(logits, maps)

    def not_static(self) -> dict[str, str]:
        """The cut of a graph, where masks are refined by one."""
        return {} if self.refine is None else dict(segment=CUTS)

    def compared(self, features: dict) -> Tensor:
        """The encoder's last map (N, C, h, w)."""
        return features['encoder'][-1]
