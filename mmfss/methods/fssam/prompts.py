"""Pseudo Prompt Generator (FSSAM, section 3.2): two pseudo masks of the query, without training.

Shapes: B episodes, K shots, C channels of the prior encoder, (h, w) its grid, S image side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmfss.functional import cosine_map, masked_average, minmax, resize_mask, up


@dataclass(frozen=True)
class Prototypes:
    """Mean prior features of each support: ``fg`` and ``bg``, both (B, K, C) float32."""

    fg: Tensor
    bg: Tensor


@dataclass(frozen=True)
class ShotMaps:
    """Similarity to each support on the prior encoder's grid, before the mean over shots.

    Attributes:
        fg, bg: (B, K, h, w) float32 in [0, 1], to its foreground and background.
        image_size: S.
    """

    fg: Tensor
    bg: Tensor
    image_size: int

    def up(self, maps: Tensor) -> Tensor:
        """Maps (B, K, h, w) at the size of the image, (B, K, S, S)."""
        return up(maps, (self.image_size, self.image_size))

    def mean_fg(self) -> Tensor:
        """(B, 1, S, S). Resizing is linear, so the mean over shots comes first."""
        # prior_fg = mean_K up(fg_k) = up(mean_K fg_k)   (PPG)
        return self.up(self.fg.mean(1, keepdim=True))

    def mean_ae(self) -> Tensor:
        """(B, 1, S, S), a shot at a time: only one map of the size of the image is held."""
        batch, shots = self.fg.shape[:2]
        # prior_ae = mean_K minmax(relu(up(fg_k) - up(bg_k)))   (PPG)
        # relu and minmax are not linear: each shot at S x S first, the mean of the shots last
        total = self.fg.new_zeros(batch, 1, self.image_size, self.image_size)
        for difference in (self.fg - self.bg).split(1, dim=1):
            # up(fg) - up(bg) = up(fg - bg): one resize in the place of two
            ae = self.up(difference).relu_()
            low, high = ae.amin((-2, -1), keepdim=True), ae.amax((-2, -1), keepdim=True)
            scale = 1 / (high - low + 1e-7)
            total.addcmul_(ae, scale).sub_(low * scale)  # minmax and sum in one
        return total.div_(shots)


@dataclass(frozen=True)
class PseudoMasks:
    """Pseudo masks of a query, float32 in [0, 1].

    Attributes:
        fg: (B, 1, S, S) similarity to the support's foreground, mean over shots.
        ae: (B, 1, S, S) foreground not explained by the support's background, mean over shots.
        shots: what they are the mean of; None where a generator has no notion of shots.
    """

    fg: Tensor
    ae: Tensor
    shots: ShotMaps | None = None

    # made when they are read: K maps of the size of the image are many bytes for many shots

    @property
    def fg_per_shot(self) -> Tensor | None:
        """(B, K, S, S) or None."""
        return None if self.shots is None else self.shots.up(self.shots.fg)

    @property
    def bg_per_shot(self) -> Tensor | None:
        """(B, K, S, S) similarity to the support's background, or None."""
        return None if self.shots is None else self.shots.up(self.shots.bg)

    @property
    def ae_per_shot(self) -> Tensor | None:
        """(B, K, S, S) or None."""
        if self.shots is None:
            return None
        # ae_k = minmax(relu(up(fg_k) - up(bg_k))), each shot normalised on its own
        return minmax(F.relu(self.shots.up(self.shots.fg - self.shots.bg)))


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
        # m on the prior's grid, not binarised: a patch at the border counts by its share
        soft = resize_mask(masks, features.shape[-2:])
        # p_fg = gap(F_s, m), p_bg = gap(F_s, 1 - m), per shot   (PPG)
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
        # fg_k = minmax(cos(F_q, p_fg)), bg_k = minmax(cos(F_q, p_bg))   (PPG)
        # minmax on the grid, before up; both prototypes of all shots are 2 K maps of one product
        similarity = minmax(cosine_map(query, torch.cat([prototypes.fg, prototypes.bg], 1)))
        shots = ShotMaps(*similarity.chunk(2, 1), image_size)
        return PseudoMasks(shots.mean_fg(), shots.mean_ae(), shots)


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
        # prior_fg = prior_ae, hence M_fg = M_ae: refinement leaves the memory as it is
        return PseudoMasks(fg=truth, ae=truth)
