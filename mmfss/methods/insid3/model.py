"""INSID3: segments of the query's own patches, chosen by matching with the supports; no training.

Cuttano et al., "INSID3: Training-Free In-Context Segmentation with DINOv3" (CVPR 2026, arXiv
2603.28480). Written from its description; :mod:`mmfss.encoders.dinov3` is the published encoder,
any other with a map of patches will do.

    encode_support   features without position, masks on their grid, prototype
    encode_query     features with and without position, segments by clustering: for all classes
    segment          candidates by matching there and back, seed, growth over segments

Shapes: B episodes, K shots, M negatives, S image side, (h, w) the grid of patches, n = h w, C
channels of the encoder's last map, R = C - ``svd_components`` of them without position, G segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from scipy.ndimage import find_objects, label
from torch import Tensor

from mmfss.arguments import integer
from mmfss.encoders.base import build_encoder
from mmfss.encoders.kept_tables import KeptTables
from mmfss.encoders.sam2.model import SAM2Features, build_sam2
from mmfss.encoders.sam2.prompts import BOX_END, BOX_START, masks_of_prompts, prompt_heads
from mmfss.methods.base import FewShotModel, Negatives, Prompter, Segmentation

from .matching import (
    Growth,
    average_linkage,
    backward_votes,
    forward_candidates,
    grid_masks,
    grow,
    match_points,
    nearest_similarity,
    without_position,
)


@dataclass(frozen=True)
class Marked:
    """Images with marks: ``free`` (B, K, n, R) unit features without position, and where the marks
    are, ``grid`` (B, K, h, w) bool."""

    free: Tensor
    grid: Tensor


@dataclass(frozen=True)
class Supports:
    """What is kept of K supports: their objects, the prototype (B, R), and M negatives or None."""

    objects: Marked
    prototype: Tensor
    negatives: Marked | None


@dataclass(frozen=True)
class QueryPatches:
    """N query images, whatever is looked for: ``plain`` (N, n, C) and ``free`` (N, n, R) unit
    features with and without position, ``segments`` (N, h, w) int64 from 0 on; and what SAM 2's
    encoder gives, where the mask is refined."""

    plain: Tensor
    free: Tensor
    segments: Tensor
    sam2: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class Trace:
    """Of one query: ``forward`` (h, w) similarity with the prototype, ``candidates`` (h, w) bool,
    and the growth, None without a candidate."""

    forward: Tensor
    candidates: Tensor
    growth: Growth | None


@MODELS.register_module()
class INSID3(FewShotModel):
    """Segments of the query that match the supports, in the features of one frozen encoder.

    Args:
        encoder: config of an :class:`~mmfss.encoders.base.Encoder`; its last map is used.
        sam2: ``dict(arch=..., checkpoint=...)`` of :func:`~mmfss.encoders.sam2.model.build_sam2`:
            each connected region of the mask becomes a box for SAM 2, whose masks take its place.
            Not part of the published method, which None is.
        image_size: side S in pixels of the images.
        resize: of :class:`~mmfss.methods.base.FewShotModel`; published is Pillow's bilinear.
        svd_components: directions of position that are taken out of the features; 0 for none. It
            is a number of directions, not a share: below the channels of the encoder.
        tau: similarity at which the clustering of the query stops; smaller gives larger segments.
        merge_threshold: score above which a segment belongs to the object. The seed must pass it
            too, so that an object may be found nowhere.
        common: other arguments of :class:`~mmfss.methods.base.FewShotModel`.

    Raises:
        ValueError: no encoder, or a number out of range. That of ``svd_components`` is known with
            the first image.
    """

    needs_checkpoint = False
    map_texts = {
        'like object': "cosine with the objects' prototype, position taken out of the features",
        'candidates': 'like the prototype, and matched back into an object by half of the supports',
        'segments': 'score of each segment that was grown into the object',
    }
    takes_negatives = True
    builders = {'sam2': build_sam2}

    def __init__(
        self,
        encoder: dict,
        sam2: dict | None = None,
        image_size: int = 1024,
        resize: str = 'pillow_bilinear',
        svd_components: int = 500,
        tau: float = 0.6,
        merge_threshold: float = 0.2,
        **common: Any,
    ) -> None:
        if encoder is None:
            raise ValueError("INSID3 needs an encoder, e.g. encoder=dict(type='DINOv3')")
        if not -1 <= tau < 1:
            raise ValueError(f'model.tau must be a cosine below 1, got {tau!r}')
        size = integer('model.image_size', image_size, 1)
        refiner = None if sam2 is None else build_sam2(image_size=size, **sam2)
        encoders = dict(encoder=build_encoder('encoder', encoder), sam2=refiner)
        super().__init__(encoders, size, resize=resize, **common)
        self.support_encoders = ('encoder',)
        self.svd_components = integer('model.svd_components', svd_components, 0)
        self.tau, self.merge_threshold = tau, merge_threshold
        self._bases = KeptTables()

    @property
    def title(self) -> str:
        """Its name in records: published is DINOv3 alone."""
        kind, refined = type(self.encoder).__name__, 'sam2' in self.encoders
        said = [] if kind == 'DINOv3' else [f'on {kind}']
        said += ['masks by SAM 2'] if refined else []
        return f'INSID3 ({", ".join(said)}: not as published)' if said else 'INSID3'

    # ---------------------------------------------------------------------------------- features
    def basis(self) -> Tensor | None:
        """(C, R) of :func:`without_position`, made once for the encoder's weights; None where
        nothing is taken out."""
        if not self.svd_components:
            return None
        encoder, device, side = self.encoder, self.device, self.image_size
        cast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if cast else None

        def make() -> Tensor:
            black = torch.zeros(1, 3, side, side, device=device)
            with torch.autocast(device.type, dtype, enabled=cast):
                level = encoder(black)[-1][0]
            return without_position(level, self.svd_components)

        weights = (*encoder.parameters(), *encoder.buffers())
        return self._bases.get((side, dtype), make, *weights)

    def unit(self, features: dict, free: bool = True) -> Tensor:
        """Patches (N, h, w, R) of unit length without position, or (N, h, w, C) as they are."""
        basis = self.basis() if free else None
        level = features['encoder'][-1].float().movedim(1, -1)
        level = F.normalize(level, dim=-1, eps=1e-12)
        if basis is None:
            return level
        # f_d = unit((I - U U^T) f), in the coordinates of W: inner products are the same
        with torch.autocast(level.device.type, enabled=False):
            return F.normalize(level @ basis, dim=-1, eps=1e-12)

    def not_static(self) -> dict[str, str]:
        """Its search in each photo."""
        return dict(segment='it clusters the patches of each photo')

    def compared(self, features: dict) -> Tensor:
        """Features without position (N, R, h, w), in which the method decides: what two photos
        share for lying at the same place is no likeness of objects."""
        return self.unit(features).movedim(-1, 1)

    def _marked(self, features: dict, masks: Tensor) -> Marked:
        free = self.unit(features).unflatten(0, masks.shape[:2])
        grid, vanished = grid_masks((masks == 1).flatten(0, 1), tuple(free.shape[2:4]))
        if vanished.any():
            self.warn_once(
                'a marked object is so small that its mask is empty on the grid of '
                f'{grid.shape[1]} x {grid.shape[2]} patches; the patch that holds it is taken. '
                'A larger image_size or a crop around it shows more of it.'
            )
        return Marked(free.flatten(2, 3), grid.unflatten(0, masks.shape[:2]))

    def encode_support(
        self, features: dict, masks: Tensor, negatives: Negatives | None = None
    ) -> Supports:
        """Objects of B K images under masks (B, K, S, S); those of a shot weigh the same."""
        objects = self._marked(features, masks)
        inside = objects.grid.flatten(2).float().unsqueeze(2)
        # p = unit(mean_K mean_{j in m_k} f_d[j]); a shot without an object adds nothing
        with torch.autocast(masks.device.type, enabled=False):
            means = (inside @ objects.free)[:, :, 0] / inside.sum(-1).clamp(min=1)
        prototype = F.normalize(means.mean(1), dim=-1, eps=1e-12)
        others = None if negatives is None else self._marked(negatives.features, negatives.masks)
        return Supports(objects, prototype, others)

    def encode_query(self, features: dict) -> QueryPatches:
        """Clusters of each image, by its own features alone: they serve all classes."""
        plain, free = self.unit(features, free=False), self.unit(features)
        with torch.autocast(plain.device.type, enabled=False):
            found = [average_linkage(one.flatten(0, 1), self.tau) for one in plain]
        segments = torch.stack(found).unflatten(1, plain.shape[1:3])
        return QueryPatches(plain.flatten(1, 2), free.flatten(1, 2), segments, features.get('sam2'))

    # ----------------------------------------------------------------------------------- segment
    def segment(
        self, query: dict | QueryPatches, state: Supports, truth: Tensor | None = None
    ) -> Segmentation:
        """Segment B queries.

        Logits are in [-1, 1] and >= 0 exactly where the method says object at S x S; what is there
        counts by the score of its segment, so that of several classes the better match wins.
        """
        patches = query if isinstance(query, QueryPatches) else self.encode_query(query)
        height, width = patches.segments.shape[1:]
        with torch.autocast(patches.free.device.type, enabled=False):
            traces = [self._trace(patches, state, i) for i in range(len(state.prototype))]
        shape = (len(traces), 1, height, width)
        score, kept = torch.zeros(2, *shape, device=patches.free.device)
        for i, trace in enumerate(traces):
            if trace.growth is not None:
                score[i, 0] = trace.growth.score[patches.segments[i]]
                kept[i, 0] = trace.growth.kept[patches.segments[i]].float()
        size = (self.image_size, self.image_size)
        soft = F.interpolate(kept, size, mode='bilinear', align_corners=False)
        parts: list[Tensor] | None = None
        if patches.sam2 is not None:
            parts = []
            for i, one in enumerate(kept[:, 0]):
                levels = (level[i : i + 1] for level in patches.sam2)
                soft[i, 0], found = self._refined(self.sam2.features(*levels), one)
                parts.append(found)
        # with a threshold below 0 a score that is kept may be so, too
        weight = torch.where(kept > 0, score.clamp(min=1e-6), 1)
        weight = F.interpolate(weight, size, mode='bilinear')
        # M = [up(m) > 1/2]; z = (2 up(m) - 1) up(score), where 1/2 itself must not give 0
        logits = (2 * soft - 1) * weight
        logits = torch.where(soft > 0.5, logits, logits.clamp(max=-1e-6))
        maps = {
            'like object': torch.stack([t.forward for t in traces])[:, None].clamp(0, 1),
            'candidates': torch.stack([t.candidates for t in traces])[:, None].float(),
            'segments': score.clamp(0, 1),
        }
        return Segmentation(logits, maps, traces, parts)

    def _trace(self, patches: QueryPatches, state: Supports, i: int) -> Trace:
        """The method for query i and episode i."""
        free, segments = patches.free[i], patches.segments[i]
        objects, grid = state.objects.free[i], state.objects.grid[i]
        similarity = free @ state.prototype[i]
        # candidates: like the prototype, and nearest to the object in half of the supports
        rows = forward_candidates(similarity).nonzero()[:, 0]
        supports = int(grid.flatten(1).any(1).sum())  # those with an object vote
        passed = backward_votes(free[rows], objects, grid) >= max(1, -(-supports // 2))
        if state.negatives is not None:
            others, where = state.negatives.free[i], state.negatives.grid[i].flatten(1)
            if where.any() and supports:
                # nearer to what is marked as not the class than to any patch of the objects
                near = nearest_similarity(free[rows], objects[grid.flatten(1)])
                passed &= nearest_similarity(free[rows], others[where]) <= near
        candidates = torch.zeros_like(similarity, dtype=torch.bool)
        candidates[rows] = passed
        growth = None
        if passed.any():
            growth = grow(
                similarity,
                candidates,
                segments.flatten(),
                patches.plain[i],
                free,
                state.prototype[i],
                self.merge_threshold,
            )
        return Trace(similarity.view_as(segments), candidates.view_as(segments), growth)

    def _refined(self, features: SAM2Features, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of SAM 2 for a box around each connected region of ``kept`` (h, w): (S, S) in
        [0, 1], of all regions the largest at each pixel, and the logits (m, l, l) of each."""
        regions, count = label(kept.cpu().numpy() > 0, np.ones((3, 3)))
        if not count:
            return kept.new_zeros(self.image_size, self.image_size), kept.new_zeros(0, 1, 1)
        # corners in pixels: from where the first patch begins to where the last one ends
        places = [[[c.start, r.start], [c.stop, r.stop]] for r, c in find_objects(regions)]
        scale = [self.image_size / side for side in (kept.shape[1], kept.shape[0])]
        coords = kept.new_tensor(places) * kept.new_tensor(scale)
        labels = torch.tensor([[BOX_START, BOX_END]] * count, dtype=torch.int32)
        logits, _ = masks_of_prompts(self.sam2, features, coords, labels.to(kept.device))
        size = (self.image_size, self.image_size)
        whole = F.interpolate(logits.amax(0)[None], size, mode='bilinear', align_corners=False)
        return whole[0, 0].sigmoid(), logits[:, 0]

    @property
    def takes_prompts(self) -> bool:
        """With SAM 2 alone."""
        return 'sam2' in self.encoders

    def prompter(self, checkpoint: str | None = None) -> Prompter:
        """Boxes, points and scribbles by SAM 2, where it is there."""
        if 'sam2' not in self.encoders:
            return super().prompter(checkpoint)
        return prompt_heads(self.sam2, checkpoint)

    def match(
        self,
        support: dict,
        query: dict,
        points: Tensor,
        support_size: tuple[int, int],
        query_size: tuple[int, int],
        free: bool = True,
    ) -> Tensor:
        """:func:`match_points` on the features of one image each, without position or with."""
        one, other = self.unit(support, free)[0], self.unit(query, free)[0]
        return match_points(points, one, other, support_size, query_size)
