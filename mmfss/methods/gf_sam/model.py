"""GF-SAM: points where query and supports look alike, a mask of each, whole masks kept or dropped.

Zhang et al., "Bridge the Points: Graph-based Few-shot Segment Anything Semantically", NeurIPS
2024, arXiv 2410.06964. Nothing is trained, and nothing is chosen per data set. As published the
features are those of DINOv2 ViT-L and the masks those of SAM 1 ViT-H; SAM 2 may stand in its place.

    encode_support   features of the supports, scaled; their masks on the features' grid
    encode_query     features of the query, scaled; how much its positions look like each other
    segment          similarity maps -> points -> a mask of each -> clusters -> two votes -> union

Shapes: B episodes, K shots, M negatives, C channels, (h, w) grid of the features with P = h w
positions, S image side, T side of the segmenter's images (the same as a rule), n points and masks,
A clusters of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from mmfss.arguments import integer
from mmfss.batching import take
from mmfss.encoders.base import build_encoder, build_part
from mmfss.encoders.sam1 import SAM1, SAM1Prompter
from mmfss.encoders.sam2.model import build_sam2
from mmfss.encoders.sam2.prompts import OBJECT, PromptHeads, masks_of_prompts, prompt_heads
from mmfss.functional import resize_mask, share_of_grid
from mmfss.methods.base import FewShotModel, Negatives, Prompter, Segmentation

from .matching import Maps, Points, choose_points, max_map, mean_map, similarities
from .votes import (
    Consistency,
    GridMasks,
    clusters,
    last_resort,
    states,
    union_logits,
    vote_consistency,
    vote_foreground,
)

PROMPTS = 64
"""Points that go through the mask decoder at once, as published."""
NO_POINT = -10.0
"""Logit everywhere in a query without any point."""


@dataclass(frozen=True)
class Supports:
    """Of B episodes.

    Attributes:
        features: (B, K, P, C) float32, scaled.
        inside: (B, K, P) soft masks on the grid.
        not_features, not_inside: (B, M, P, C), (B, M, P) of the negatives; None without any.
    """

    features: Tensor
    inside: Tensor
    not_features: Tensor | None
    not_inside: Tensor | None


@dataclass(frozen=True)
class Query:
    """Of N images: what serves all classes.

    Attributes:
        features: (N, C, h, w) float32, scaled.
        cosines: (N, P, P) of its positions with each other.
        segmenter: what its encoder gives.
    """

    features: Tensor
    cosines: Tensor
    segmenter: tuple[Tensor, ...]


@dataclass(frozen=True)
class Trace:
    """What :meth:`GFSAM.segment` came through for a query; None after ``pixels`` where n is 0.

    Attributes:
        maps, points: where it looks like the supports, and where the segmenter is asked.
        pixels: (n, 2) x, y of the prompts in the segmenter's image.
        low_res, ious: (n, 1, T/4, T/4) logits and (n, 1) predicted IoUs of the masks.
        masks: what the votes read of them.
        labels: (n,) clusters.
        foreground, scores: (n,) of :func:`vote_foreground`.
        consistency, union_maps: of :func:`vote_consistency`.
        state: (n,) of :func:`states`.
    """

    maps: Maps
    points: Points
    pixels: Tensor
    low_res: Tensor | None = None
    ious: Tensor | None = None
    masks: GridMasks | None = None
    labels: Tensor | None = None
    foreground: Tensor | None = None
    scores: Tensor | None = None
    consistency: Consistency | None = None
    union_maps: Tensor | None = None
    state: Tensor | None = None


@MODELS.register_module()
class GFSAM(FewShotModel):
    """GF-SAM as published with ``sam1``; with ``sam2`` its masks are those of SAM 2.

    Args:
        encoder: config of an :class:`~mmfss.encoders.base.Encoder`, whose last map is matched; as
            published ``dict(type='DINOv2', arch='large', image_size=518, final_norm=False,
            resize='centres')``.
        sam2: ``dict(arch=..., checkpoint=...)`` of :func:`~mmfss.encoders.sam2.model.build_sam2`,
            or None.
        sam1: config of a :class:`~mmfss.encoders.sam1.SAM1`, or None. One of both is given.
        prompts: for ``sam2``, whose prompt encoder and mask decoder take the points; see
            :func:`~mmfss.encoders.sam2.prompts.prompt_heads`. None takes its own.
        scale_over: ``patches`` divides each channel of an image's features by its norm over the
            positions, as published: channels that are large everywhere lose their weight. ``none``
            takes them as they are.
        max_points: >= 1.
        image_size: side S in pixels of the images.
        resize, common: arguments of :class:`~mmfss.methods.base.FewShotModel`.

    Raises:
        ValueError: no encoder, none or both of the segmenters, or a number out of range.
    """

    needs_checkpoint = False
    map_texts = {
        'like object': 'mean times largest similarity to the objects, stretched to 0..1',
        'like background': 'mean similarity to the backgrounds, stretched to 0..1',
        'points': 'where SAM is asked: the largest of what is more like object than background',
    }
    takes_negatives = True
    builders = {'sam2': build_sam2}

    def __init__(
        self,
        encoder: dict,
        sam2: dict | None = None,
        sam1: dict | None = None,
        prompts: str | None = None,
        scale_over: str = 'patches',
        max_points: int = 128,
        image_size: int = 1024,
        resize: str = 'pillow_bilinear',
        **common: Any,
    ) -> None:
        if encoder is None or (sam2 is None) == (sam1 is None):
            raise ValueError(
                "GFSAM needs an encoder, e.g. encoder=dict(type='DINOv2', final_norm=False), and "
                "either sam2=dict(arch='sam2.1_small') or, as published, sam1=dict(type='SAM1')"
            )
        if prompts is not None and sam2 is None:
            raise ValueError(f'model.prompts is for the heads of a SAM 2, got {prompts!r} for sam1')
        if scale_over not in ('patches', 'none'):
            raise ValueError(f"model.scale_over must be 'patches' or 'none', got {scale_over!r}")
        size = integer('model.image_size', image_size, 1)
        found = dict(encoder=build_encoder('encoder', encoder))
        found['sam1'] = build_part('sam1', sam1, SAM1)
        found['sam2'] = None if sam2 is None else build_sam2(image_size=size, **sam2)
        super().__init__(found, size, resize=resize, **common)
        self.support_encoders = ('encoder',)
        self.prompts, self.scale_over = prompts, scale_over
        self.max_points = integer('model.max_points', max_points, 1)
        self.heads: PromptHeads | None = None

    @property
    def title(self) -> str:
        """Its name in records: with SAM 2 it is not the published method."""
        if 'sam1' in self.encoders:
            return 'GFSAM'
        return 'GFSAM with masks of SAM 2 (not the published method, whose masks are of SAM 1)'

    @property
    def arch(self) -> dict[str, Any]:
        """As in the base, with the title."""
        return dict(super().arch, title=self.title)

    def init_weights(self) -> None:
        """Load the weights of the encoders, and those of ``prompts``."""
        super().init_weights()
        if self.prompts is not None and self._starts_from_encoders:
            self.heads = prompt_heads(self.sam2, self.prompts)
            # the mask of the single-mask token, however stable it is
            self.heads.sam_mask_decoder.dynamic_multimask_via_stability = False

    def not_static(self) -> dict[str, str]:
        """Its search in each photo."""
        return dict(segment='it prompts SAM with points of each photo, as many as it finds')

    def compared(self, features: dict | Query) -> Tensor:
        """The encoder's last map (N, C, h, w) float32, scaled."""
        if isinstance(features, Query):
            return features.features
        level = features['encoder'][-1].float()
        if self.scale_over == 'none':
            return level
        # T[n, c] <- T[n, c] / sqrt(sum_m T[m, c]^2): over positions, not channels
        return F.normalize(level.flatten(2), dim=-1, eps=1e-12).view_as(level)

    def encode_support(
        self, features: dict, masks: Tensor, negatives: Negatives | None = None
    ) -> Supports:
        """Features and soft masks of B K images under masks (B, K, S, S).

        K masks without any object get a square of 14 pixels in the middle of each, as published. An
        object that falls between the positions of the grid is spread over those that it lies in.
        """
        masks = (masks == 1).float()
        middle = slice(self.image_size // 2 - 7, self.image_size // 2 + 7)
        empty = ~masks.flatten(1).any(1)
        masks[empty, :, middle, middle] = 1
        supports = self._on_grid(features, masks, together=True)
        if negatives is None:
            return Supports(*supports, None, None)
        marked = (negatives.masks == 1).float()
        return Supports(*supports, *self._on_grid(negatives.features, marked, together=False))

    def _on_grid(self, features: dict, masks: Tensor, together: bool) -> tuple[Tensor, Tensor]:
        """(B, K, P, C) and (B, K, P); masks that vanish, all K of an episode or each for itself,
        are averaged over the cells of the grid."""
        level = self.compared(features).unflatten(0, masks.shape[:2])
        inside = share_of_grid(masks, level.shape[-2:], together)
        if not torch.equal(inside, resize_mask(masks, level.shape[-2:])):
            self.warn_once(
                f'the object of a support vanishes on the {level.shape[-2]} x {level.shape[-1]} '
                'grid on which images are compared: it is taken as large as the cells it lies in. '
                'Crop the photo around the object.'
            )
        return level.flatten(3).transpose(2, 3), inside.flatten(2)

    @torch.no_grad()
    def encode_query(self, features: dict | Query) -> Query:
        """Scaled features and their similarity to each other."""
        if isinstance(features, Query):
            return features
        level = self.compared(features)
        # float32 in the place of what autocast would do: similarities decide about whole masks
        with torch.autocast(level.device.type, enabled=False):
            cosines = [similarities(one.flatten(1).T, one.flatten(1).T) for one in level]
        segmenter = features['sam2' if 'sam2' in self.encoders else 'sam1']
        return Query(level, torch.stack(cosines), tuple(segmenter))

    @torch.no_grad()
    def segment(
        self, query: dict | Query, state: Supports, truth: Tensor | None = None
    ) -> Segmentation:
        """Segment B queries one by one; the trace is a list of :class:`Trace`."""
        query = self.encode_query(query)
        found = [
            self._segment(take(query, slice(b, b + 1)), take(state, slice(b, b + 1)))
            for b in range(len(query.features))
        ]
        logits = torch.stack([logits for logits, *_ in found])[:, None]
        if logits.shape[-1] != self.image_size:
            size = (self.image_size, self.image_size)
            logits = F.interpolate(logits, size, mode='bilinear', align_corners=False)
        traces = [trace for _, trace, _ in found]
        maps = {
            'like object': torch.stack([trace.points.cross for trace in traces])[:, None],
            'like background': torch.stack([trace.points.negative for trace in traces])[:, None],
            'points': torch.stack([trace.points.hot for trace in traces])[:, None].float(),
        }
        # mask = [z > 0], and here logits >= 0 are foreground
        return Segmentation(logits - 1e-30, maps, traces, [parts for *_, parts in found])

    def _segment(self, query: Query, state: Supports) -> tuple[Tensor, Trace, Tensor]:
        """Logits (T, T) of one query, and (m, T/4, T/4): the masks that are taken, those of a
        cluster as one."""
        features, size = query.features[0].flatten(1).T, query.features.shape[-2:]
        side = self.segmenter_size
        with torch.autocast(features.device.type, enabled=False):
            maps = self.maps(features, state, size)
            points = choose_points(maps, self.max_points)
        # the patch's upper left corner, as published: (floor(x T / w), floor(y T / h))
        pixels = points.grid * side // torch.tensor(size[::-1], device=features.device)
        if not len(pixels):
            empty = torch.full((side, side), NO_POINT, device=features.device)
            return empty, Trace(maps, points, pixels), empty[None][:0]
        low_res, ious = self.masks(query.segmenter, pixels)
        with torch.autocast(features.device.type, enabled=False):
            masks = GridMasks.read(low_res[:, 0], side, size)
            x, y = points.grid.T
            labels = clusters(masks.corners[:, y, x])
            keep, scores = vote_foreground(masks.soft(masks.taps), labels, maps)
            taps = [masks.taps[labels == a].any(0) for a in range(int(labels.max()) + 1)]
            consistency, union_maps = vote_consistency(
                masks.soft(torch.stack(taps)), labels, points.grid, size[1], query.cosines[0]
            )
            chosen = states(consistency.agrees, keep)
            taken = chosen == 1
            best = union_logits(low_res[taken, 0], side)
            if not (best > 0).any():
                taken = last_resort(chosen, scores)
                best = union_logits(low_res[taken, 0], side)
            clustered = [low_res[taken & (labels == a), 0].amax(0) for a in labels[taken].unique()]
        trace = Trace(
            maps, points, pixels, low_res, ious, masks, labels, keep, scores, consistency,
            union_maps, chosen,
        )  # fmt: skip
        return best, trace, torch.stack(clustered)

    def maps(self, query: Tensor, state: Supports, size: tuple[int, int]) -> Maps:
        """Similarity maps of a query, features (P, C), to the supports of one episode.

        What is marked as not the class joins the background by a maximum: one look-alike is enough.
        """
        means, maxima, backgrounds = [], [], []
        for features, inside in zip(state.features[0], state.inside[0]):
            cosines = similarities(features, query)
            means.append(mean_map(cosines, inside))
            maxima.append(max_map(cosines, inside))
            backgrounds.append(mean_map(cosines, 1 - inside))
        background = torch.stack(backgrounds).mean(0)
        if state.not_features is not None and state.not_inside is not None:
            for features, inside in zip(state.not_features[0], state.not_inside[0]):
                if inside.any():
                    negative = mean_map(similarities(features, query), inside)
                    # B_mean <- max(B_mean, mean over what is marked)
                    background = torch.maximum(background, negative)
        mean, maximum = torch.stack(means).mean(0), torch.stack(maxima).mean(0)
        return Maps(*(one.unflatten(0, size) for one in (mean, maximum, background)))

    @property
    def segmenter_size(self) -> int:
        """T."""
        return self.sam2.image_size if 'sam2' in self.encoders else self.sam1.image_size

    def masks(self, segmenter: tuple[Tensor, ...], pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The mask of each point, of the single-mask token.

        Args:
            segmenter: what the segmenter's encoder gives for one image.
            pixels: (n, 2) x, y.

        Returns:
            (n, 1, T/4, T/4) logits and (n, 1) predicted IoUs.
        """
        found = []
        for some in pixels[:, None].float().split(PROMPTS):
            labels = torch.full(some.shape[:2], OBJECT, dtype=torch.int32, device=some.device)
            if 'sam1' in self.encoders:
                found.append(self.sam1.decode(segmenter[0], some, labels))
            else:
                features = self.sam2.features(*segmenter)
                heads = self.sam2 if self.heads is None else self.heads
                found.append(masks_of_prompts(heads, features, some, labels))
        return torch.cat([logits for logits, _ in found]), torch.cat([ious for _, ious in found])

    def prompter(self, checkpoint: str | None = None) -> Prompter:
        """Boxes, points and scribbles by the segmenter.

        Raises:
            ValueError: a checkpoint for SAM 1, which has heads of its own.
        """
        if 'sam2' in self.encoders:
            return prompt_heads(self.sam2, checkpoint or self.prompts)
        return SAM1Prompter(self.sam1, self.image_size, checkpoint)
