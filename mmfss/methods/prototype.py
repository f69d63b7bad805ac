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

from mmseg.registry import MODELS
from torch import Tensor

from mmfss.arguments import integer
from mmfss.encoders.base import build_encoder
from mmfss.functional import cosine_map, masked_average, resize_mask, up

from .base import FewShotModel, Segmentation


@dataclass(frozen=True)
class Prototypes:
    """Mean features of each support, (B, K, C) float32: of the object, and of the rest."""

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
        common: other arguments of :class:`~mmfss.methods.base.FewShotModel`.

    Raises:
        ValueError: no encoder, or a number out of range.
    """

    needs_checkpoint = False

    def __init__(
        self, encoder: dict, image_size: int = 512, temperature: float = 0.1, **common: Any
    ) -> None:
        if encoder is None:
            raise ValueError("PrototypeMatcher needs an encoder, e.g. encoder=dict(type='DINOv2')")
        if not temperature > 0:
            raise ValueError(f'model.temperature must be > 0, got {temperature!r}')
        size = integer('model.image_size', image_size, 1)
        super().__init__(dict(encoder=build_encoder('encoder', encoder)), size, **common)
        self.temperature = temperature

    def encode_support(self, features: dict, masks: Tensor) -> Prototypes:
        """Prototypes of B K images under masks (B, K, S, S); an empty one is about 0, and like
        nothing."""
        level = self.compared(features).float().unflatten(0, masks.shape[:2])
        # the mask on the features' grid stays soft: a cell at the border counts by its share
        inside = resize_mask((masks == 1).float(), level.shape[-2:])
        # p_fg = gap(F_s, m), p_bg = gap(F_s, 1 - m), per shot
        return Prototypes(masked_average(level, inside), masked_average(level, 1 - inside))

    def segment(self, query: dict, state: Prototypes, truth: Tensor | None = None) -> Segmentation:
        """Match B queries: ``(cos(F, p_fg) - cos(F, p_bg)) / temperature``, mean over shots."""
        level = self.compared(query).float().unsqueeze(1)
        # mean_K cos(F_q, p_k): the mean of the maps, not of the prototypes, so shots weigh the same
        fg, bg = (cosine_map(level, p).mean(1, keepdim=True) for p in (state.fg, state.bg))
        # z = (cos(F_q, p_fg) - cos(F_q, p_bg)) / temperature
        logits = up((fg - bg) / self.temperature, (self.image_size, self.image_size))
        maps = {'like object': fg.clamp(0, 1), 'like background': bg.clamp(0, 1)}
        return Segmentation(logits, maps)

    def compared(self, features: dict) -> Tensor:
        """The encoder's last map (N, C, h, w)."""
        return features['encoder'][-1]
