"""Pseudo Prompt Generator (FSSAM, section 3.2): two pseudo masks of the query, without training.

Shapes: B episodes, K shots, C channels of the prior encoder, (h, w) its grid, S image side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from .functional import cosine_map, masked_average, minmax, resize_mask, up


@dataclass(frozen=True)
class Prototypes:
    """Mean prior features of each support: ``fg`` and ``bg``, both (B, K, C) float32."""

    fg: Tensor
    bg: Tensor


@dataclass(frozen=True)
class PseudoMasks:
    """Pseudo masks of a query, float32 in [0, 1].

    Attributes:
        fg: (B, 1, S, S) similarity to the support's foreground, mean over shots.
        ae: (B, 1, S, S) foreground not explained by the support's background, mean over shots.
        fg_per_shot, bg_per_shot, ae_per_shot: (B, K, S, S) the same before the mean;
            None where a generator has no notion of shots.
    """

    fg: Tensor
    ae: Tensor
    fg_per_shot: Tensor | None = None
    bg_per_shot: Tensor | None = None
    ae_per_shot: Tensor | None = None


class PromptGenerator(nn.Module):
    """Interface of what makes pseudo masks.

    Attributes:
        needs_prior: whether it reads features of the prior encoder.
        needs_truth: whether it reads the query's true mask.
    """

    needs_prior = True
    needs_truth = False

    def encode_support(self, features: Tensor | None, masks: Tensor) -> Prototypes | None:
        """What to keep of the supports: features (B, K, C, h, w), masks (B, K, S, S) in [0, 1]."""
        raise NotImplementedError

    def forward(
        self,
        features: Tensor | None,
        prototypes: Prototypes | None,
        image_size: int,
        truth: Tensor | None = None,
    ) -> PseudoMasks:
        """Pseudo masks of B queries with features (B, C, h, w) for masks of side ``image_size``;
        ``truth`` (B, 1, S, S) in [0, 1] comes where ``needs_truth`` is set."""
        raise NotImplementedError


@MODELS.register_module()
class PseudoPromptGenerator(PromptGenerator):
    """Prototype matching in the feature space of the prior encoder. No parameters, no gradient.

    ``encode_support`` runs once per support set, ``forward`` once per query.
    """

    @torch.no_grad()
    def encode_support(self, features: Tensor, masks: Tensor) -> Prototypes:
        """Average each support's features under its mask and under the rest.

        Args:
            features: (B, K, C, h, w) prior features of the supports.
            masks: (B, K, S, S) float in [0, 1].
        """
        features = features.float()
        soft = resize_mask(masks, features.shape[-2:])
        return Prototypes(masked_average(features, soft), masked_average(features, 1 - soft))

    @torch.no_grad()
    def forward(
        self,
        features: Tensor | None,
        prototypes: Prototypes | None,
        image_size: int,
        truth: Tensor | None = None,
    ) -> PseudoMasks:
        """Match a query with the prototypes.

        Args:
            features: (B, C, h, w) prior features of the queries.
            prototypes: of the same B episodes.
            image_size: S.
            truth: not used here; part of the interface for :class:`OraclePromptGenerator`.
        """
        query = features.float().unsqueeze(1)
        size = (image_size, image_size)
        fg = up(minmax(cosine_map(query, prototypes.fg)), size)
        bg = up(minmax(cosine_map(query, prototypes.bg)), size)
        ae = minmax(F.relu(fg - bg))
        return PseudoMasks(
            fg=fg.mean(1, keepdim=True),
            ae=ae.mean(1, keepdim=True),
            fg_per_shot=fg,
            bg_per_shot=bg,
            ae_per_shot=ae,
        )


@MODELS.register_module()
class OraclePromptGenerator(PromptGenerator):
    """Uses the query's true mask as both pseudo masks: an upper bound, never a result.

    Needs no prior encoder. Raises ``ValueError`` where the truth is not there.
    """

    needs_prior = False
    needs_truth = True

    def encode_support(self, features: Tensor | None, masks: Tensor) -> None:
        """Nothing to keep of the supports."""

    def forward(
        self,
        features: Tensor | None,
        prototypes: None,
        image_size: int,
        truth: Tensor | None = None,
    ) -> PseudoMasks:
        """Return ``truth``, (B, 1, S, S) float in [0, 1], as pseudo masks."""
        if truth is None:
            raise ValueError(
                'OraclePromptGenerator needs the true mask of the query (gt_sem_seg in the data '
                'sample), but none came. It is an upper bound for labelled queries; use '
                'PseudoPromptGenerator for unlabelled ones.'
            )
        return PseudoMasks(fg=truth, ae=truth)
