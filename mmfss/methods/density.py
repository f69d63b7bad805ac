"""Density matching: is a patch of the query more like the object's patches or like the others?

    encode_support   patches of the supports, and how much each is object; width of the kernel
    segment          log p(patch | object) - log p(patch | background), by kernels on the sphere

Both densities are sums of von Mises-Fisher kernels of one width at the supports' patches, so that
their constants cancel. Nothing is averaged before the comparison, as a prototype does: an object of
several parts and a background of many things keep theirs, and each support adds patches. With equal
priors Bayes' threshold is 0, for any K, and the background competes on the same scale among N
classes (:mod:`mmfss.apis.nway`).

Shapes: B episodes, K shots, M negatives, C channels of the encoder's last map, (h, w) its grid,
P patches that are kept of an episode, S image side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from mmfss.arguments import integer
from mmfss.encoders.base import build_encoder

from .base import SMALL, FewShotModel, Negatives, Segmentation
from .refine import CUTS, build_refinement

WIDTHS = (5.0, 10.0, 20.0, 40.0, 80.0)
"""Concentrations that a width is chosen from: of cosines in [-1, 1], so for any encoder."""
DOUBT = 0.01
"""Share of the patches whose label may be wrong; bounds the logits to +-log(0.99 / 0.01)."""
_TILES = 4  # a single support is cut into 4 x 4 tiles to choose the width
_AT_A_TIME = 2**22  # similarities that are held at once


@dataclass(frozen=True)
class Densities:
    """Kernels of B episodes.

    Attributes:
        patches: (B, P, C) float32 of length 1.
        fg, bg: (B, P) float32, log of each one's share in the density of object and background;
            each sums to 1 in exp, or is -inf throughout where there is none.
        width: (B,) float32 concentration, > 0: kernels are ``exp(width * cosine)``.
    """

    patches: Tensor
    fg: Tensor
    bg: Tensor
    width: Tensor


@MODELS.register_module()
class DensityMatcher(FewShotModel):
    """Log ratio of the densities of object and background, in the features of any encoder.

    One matrix product of the query's patches with at most ``max_patches`` of the supports, so the
    cost of a further image doesn't grow with K.

    Args:
        encoder: config of an :class:`~mmfss.encoders.base.Encoder`; its last map is matched.
        image_size: side S in pixels of the images; the encoder resizes them to its own.
        width: concentration of the kernels: a number > 0, or several, of which the supports choose
            (:func:`choose_width`).
        max_patches: patches that are kept of an episode's supports, half of them for the object
            where it has as many; those left out are spread evenly over the images. As many again
            are kept of its negatives.
        refine: None, or ``dict(type='GrabCut', ...)``, see :mod:`mmfss.methods.refine`.
        common: other arguments of :class:`~mmfss.methods.base.FewShotModel`.

    Raises:
        ValueError: no encoder, or a number out of range.
    """

    needs_checkpoint = False
    map_texts = {
        'more like object than background': 'probability from the ratio of the two densities',
    }
    takes_negatives = True

    def __init__(
        self,
        encoder: dict,
        image_size: int = 512,
        width: float | Sequence[float] = WIDTHS,
        max_patches: int = 2048,
        refine: dict | None = None,
        **common: Any,
    ) -> None:
        if encoder is None:
            raise ValueError("DensityMatcher needs an encoder, e.g. encoder=dict(type='DINOv2')")
        widths = [width] if isinstance(width, (int, float)) else list(width)
        if not widths or not all(isinstance(w, (int, float)) and 0 < w < 1e3 for w in widths):
            raise ValueError(
                f'model.width must be a number between 0 and 1000 or a list of them, got {width!r}'
            )
        size = integer('model.image_size', image_size, 1)
        cut, photo = build_refinement(refine)
        super().__init__(
            dict(encoder=build_encoder('encoder', encoder), photo=photo), size, **common
        )
        self.refine = cut
        self.widths = tuple(map(float, widths))
        self.max_patches = integer('model.max_patches', max_patches, 2)

    def encode_support(
        self, features: dict, masks: Tensor, negatives: Negatives | None = None
    ) -> Densities:
        """Kernels at the patches of B K images under masks (B, K, S, S). A patch at the border is
        object by its share, so an object smaller than a patch is not lost."""
        every, shares = self._patches(features, masks)
        largest = shares.amax(-1)
        if ((largest > 0) & (largest < 0.5)).any():
            self.warn_once(SMALL.format(*every.shape[2:4]))
        patches, inside, weight = self._kept(every, shares)
        fg, bg = (inside * weight).log(), ((1 - inside) * weight).log()
        if negatives is not None:
            beside = self._patches(negatives.features, negatives.masks)
            others, share, weight = self._kept(*beside)
            patches = torch.cat([patches, others], 1)
            fg = torch.cat([fg, torch.full_like(share, -torch.inf)], 1)
            bg = torch.cat([bg, (share * weight).log()], 1)
        width = torch.full_like(fg[:, 0], self.widths[0])
        if len(self.widths) > 1:
            for place, (one, inside) in enumerate(zip(every, shares)):
                width[place] = choose_width(one, inside, self.widths, self.max_patches)
        return Densities(patches, _to_one(fg), _to_one(bg), width)

    def _patches(self, features: dict, masks: Tensor) -> tuple[Tensor, Tensor]:
        """All patches (B, K, h, w, C) of B K images, of length 1, and how much of each is marked
        (B, K, h w)."""
        level = self.compared(features)
        shares = share_of_patches(masks.flatten(0, 1), level.shape[-2:])
        every = unit_patches(level).unflatten(1, level.shape[-2:])
        return every.unflatten(0, masks.shape[:2]), shares.unflatten(0, masks.shape[:2])

    def _kept(self, every: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of :meth:`_patches` those (B, P, C) that are kept, how much of each is marked (B, P), and
        how many each stands for (B, P)."""
        kept = []
        for one, share in zip(every.flatten(1, 3), shares.flatten(1)):
            rows, weight = sampled(share > 0, self.max_patches)
            kept.append((one[rows], share[rows], weight))
        patches, inside, weight = (torch.stack(parts) for parts in zip(*kept))
        return patches, inside, weight

    def segment(self, query: dict, state: Densities, truth: Tensor | None = None) -> Segmentation:
        """Match B queries."""
        level = self.compared(query)
        ratio = torch.stack(
            [
                log_ratio(one, patches, fg, bg, width)
                for one, patches, fg, bg, width in zip(
                    unit_patches(level), state.patches, state.fg, state.bg, state.width
                )
            ]
        )
        ratio = ratio.unflatten(1, level.shape[-2:])[:, None]
        fine = ratio if self.refine is None else self.refine(ratio, query['photo'][0])
        logits = F.interpolate(
            fine,
            size=(self.image_size, self.image_size),
            mode='bilinear',
            align_corners=False,  # a patch is a square of pixels, its value is that of the centre
        )
        return Segmentation(logits, {'more like object than background': ratio.sigmoid()})

    def not_static(self) -> dict[str, str]:
        """The choice of patches and width; the cut of a graph, where masks are refined by one."""
        why = dict(encode_support='patches and the width of kernels are chosen by the masks')
        return why if self.refine is None else dict(why, segment=CUTS)

    def compared(self, features: dict) -> Tensor:
        """The encoder's last map (N, C, h, w)."""
        return features['encoder'][-1]


def unit_patches(level: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h w, C) float32 of length 1."""
    return F.normalize(level.float().flatten(2), dim=1).transpose(1, 2)


def share_of_patches(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """How much of each patch is marked.

    Args:
        masks: (K, S, S) uint8; 1 is marked, all else is not.
        grid: (h, w).

    Returns:
        (K, h w) float32 in [0, 1]: means over the patch's pixels.
    """
    marked = (masks == 1).float()
    return F.adaptive_avg_pool2d(marked[:, None], tuple(grid)).flatten(1)


def sampled(wanted: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Choose patches, the same number for all supports of one size.

    Args:
        wanted: (P,) bool, patches that have a part of the object; the others are background alone.
        limit: of how many patches are chosen, >= 2: half of either kind where both have as many,
            more of one where the other has fewer. Evenly spaced in each, so without chance.

    Returns:
        Their places, int64 (min(P, limit),), and how many patches each stands for, float32.
    """
    kinds = [torch.nonzero(one).flatten() for one in (wanted, ~wanted)]
    total = min(len(wanted), limit)
    first = min(len(kinds[0]), max(total // 2, total - len(kinds[1])))
    rows, weights = [], []
    for places, count in zip(kinds, (first, total - first)):
        # i-th of n out of N: floor((i + 1/2) N / n), the middle of the i-th of n equal stretches
        step = torch.arange(count, device=wanted.device)
        rows.append(places[(2 * step + 1) * len(places) // max(2 * count, 1)])
        weights.append(torch.full((count,), len(places) / max(count, 1), device=wanted.device))
    return torch.cat(rows), torch.cat(weights)


def log_ratio(
    query: Tensor, patches: Tensor, fg: Tensor, bg: Tensor, width: Tensor | float
) -> Tensor:
    """``log p(x | object) - log p(x | background)`` of each patch of a query.

    Args:
        query: (Q, C) of length 1.
        patches, fg, bg: one episode of :class:`Densities`.
        width: its concentration.

    Returns:
        (Q,) float32, bounded by :data:`DOUBT`.
    """
    found = []
    with torch.autocast(query.device.type, enabled=False):  # cosines in half precision are 1 % off
        for some in query.split(max(1, _AT_A_TIME // len(patches))):
            # log sum_i a_i exp(k <x, x_i>), for the shares a of object and background
            kernels = width * (some @ patches.T)
            found.append((kernels + fg).logsumexp(1) - (kernels + bg).logsumexp(1))
    return _bounded(torch.cat(found))


def choose_width(
    patches: Tensor, inside: Tensor, widths: Sequence[float], limit: int = 2048
) -> float:
    """The width under which the supports explain each other best.

    Each patch is judged by those of the other supports (K >= 2), or, in a single one, by those of
    other tiles of 4 x 4: neighbours look alike whatever they are, and would ask for kernels as
    narrow as they come. The score is the mean log probability of the patches' labels, object and
    background weighing the same.

    Args:
        patches: (K, h, w, C) of length 1.
        inside: (K, h w) in [0, 1].
        widths: to choose from.
        limit: of how many patches are looked at.

    Returns:
        One of ``widths``; the middle one where a mask is empty or full in all supports.
    """
    shots, height, wide, _ = patches.shape
    rows, weight = sampled(inside.flatten() > 0, limit)
    image, place = rows // (height * wide), rows % (height * wide)
    tile = place // wide * _TILES // height * _TILES + place % wide * _TILES // wide
    group = image if shots > 1 else tile
    inside = inside.flatten()[rows]
    fg, bg = inside * weight, (1 - inside) * weight
    if not fg.any() or not bg.any():
        return widths[len(widths) // 2]
    vectors, apart = patches.flatten(0, 2)[rows], group[:, None] != group
    with torch.autocast(vectors.device.type, enabled=False):  # as in log_ratio
        cosines = (vectors @ vectors.T).masked_fill(~apart, -torch.inf)
        # what is left of each density without a group, so that it still sums to 1
        left = (apart.float() @ fg).log() - (apart.float() @ bg).log()
    scores = []
    for width in widths:
        kernels = width * cosines
        ratio = (kernels + fg.log()).logsumexp(1) - (kernels + bg.log()).logsumexp(1) - left
        # nan: nothing is left of object and background alike, or of one (inf - inf)
        ratio = _bounded(ratio.nan_to_num(0.0))
        # mean_fg log p(fg | x) + mean_bg log p(bg | x)
        right, wrong = F.logsigmoid(ratio), F.logsigmoid(-ratio)
        scores.append(float(fg @ right / fg.sum() + bg @ wrong / bg.sum()))
    return widths[scores.index(max(scores))]


def _bounded(ratio: Tensor) -> Tensor:
    """Log ratio of two densities p, q where a share of the labels is wrong: of
    ``(1 - doubt) p + doubt q`` and ``(1 - doubt) q + doubt p``, of the same sign."""
    ratio = ratio.clamp(-30.0, 30.0)  # one of them may be empty; the bound is reached before
    low, high = ratio.new_tensor(math.log(DOUBT)), ratio.new_tensor(math.log1p(-DOUBT))
    return torch.logaddexp(ratio + high, low) - torch.logaddexp(ratio + low, high)


def _to_one(log_share: Tensor) -> Tensor:
    """(B, P) such that exp sums to 1; -inf throughout stays so."""
    return log_share - log_share.logsumexp(1, keepdim=True).nan_to_num(neginf=0.0)
