"""PerSAM and PerSAM-F: one marked photo of an object, and SAM 1 finds it in others.

Zhang et al., "Personalize Segment Anything Model with One Shot", ICLR 2024, arXiv 2305.03048.
Nothing is trained but, by PerSAM-F, two numbers per support. There is no second encoder and no
path for several supports; what is found is one mask per photo, of one object.

    encode_support   the object's mean feature; PerSAM-F: how to weigh SAM's three masks
    segment          similarity map -> its highest point (PerSAM: and lowest) -> three calls of the
                     mask decoder, each prompted with the mask before it

Shapes: B episodes, S image side, T side of SAM's images, C channels of its features, (h, w) = T/16
their grid, (H, W) size of a photo, M masks of a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from mmfss.arguments import integer
from mmfss.encoders.base import build_part
from mmfss.encoders.sam1 import PIXEL_MEAN, PIXEL_STD, SAM1, SAM1Prompter
from mmfss.methods.base import FewShotModel, Prompter, Segmentation, check_shots

from .guided import guided_decode

NOTHING = -10.0
"""Logit everywhere in a query whose support has nothing marked."""


@dataclass(frozen=True)
class Frame:
    """Where a photo of ``photo`` = (H, W) pixels lies in SAM's T x T image: it fills ``inside`` =
    (h', w') pixels at the top left; what is beyond is padding."""

    photo: tuple[int, int]
    inside: tuple[int, int]
    side: int

    def up(self, logits: Tensor) -> Tensor:
        """(1, M, ., .) over all of SAM's image -> (1, M, H, W) over the photo."""
        full = F.interpolate(logits, (self.side, self.side), mode='bilinear', align_corners=False)
        full = full[..., : self.inside[0], : self.inside[1]]
        return F.interpolate(full, self.photo, mode='bilinear', align_corners=False)

    def prompt(self, pixels: Tensor) -> Tensor:
        """x, y (..., 2) in pixels of the photo -> float32 in those of SAM's image."""
        (height, width), (rows, columns) = self.photo, self.inside
        return pixels * torch.tensor([columns / width, rows / height], device=pixels.device)


@dataclass(frozen=True)
class Target:
    """What is kept of the supports of B episodes, K = 1.

    Attributes:
        feature: (B, C) float32; zeros where nothing is marked.
        marked: (B,) bool, whether something is.
        weights: (B, 3) float32 of SAM's three masks; None for PerSAM.
    """

    feature: Tensor
    marked: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class Call:
    """One of the three calls of the mask decoder, for one query.

    Attributes:
        low_res, ious: (1, M, T/4, T/4) logits, (1, M) predicted IoUs.
        mask: (1, 1, T/4, T/4) logits that it was prompted with.
        box: (4,) int64 x0, y0, x1, y1 in pixels of the photo that it was prompted with.
    """

    low_res: Tensor
    ious: Tensor
    mask: Tensor | None = None
    box: Tensor | None = None

    @property
    def best(self) -> Tensor:
        """(1, 1, T/4, T/4): the mask with the largest predicted IoU."""
        return self.low_res[:, self.ious[0].argmax()][:, None]


@dataclass(frozen=True)
class Found:
    """What :meth:`PerSAM.find` came through.

    Attributes:
        near: (h, w) cosine of each position with the target.
        similarity: (H, W), the same at the size of the photo.
        points: (P, 2) int64 x, y in pixels of the photo: of the largest one, PerSAM's smallest too.
        guide: (h, w) in [0, 1], PerSAM's attention map.
        calls: of the mask decoder; fewer than three where a mask is empty before.
        first: (1, 1, T/4, T/4) logits of the first mask.
        low_res: (1, 1, T/4, T/4) logits of the result.
    """

    near: Tensor
    similarity: Tensor
    points: Tensor
    guide: Tensor | None
    calls: tuple[Call, ...]
    first: Tensor
    low_res: Tensor


@dataclass(frozen=True)
class Tuned:
    """``weights`` (3,) of SAM's three masks, and the two losses of the last step before it."""

    weights: Tensor
    dice: Tensor
    focal: Tensor


@MODELS.register_module()
class PerSAM(FewShotModel):
    """PerSAM: points, then a decoder that is guided to the target.

    The published program puts a photo into SAM's image with its longest side, and pads the rest
    (:class:`Frame`). Photos are S x S here, as for all methods, so SAM's image has no padding.

    Args:
        sam1: config of a :class:`~mmfss.encoders.sam1.SAM1`; published with ViT-H.
        mask_value: 124..255, brightness of the object in the image of the support's mask, which the
            published program reads as a photo. PerSeg has 128: cells that are wholly on the object
            count. With 255 those that are about half on it do.
        image_size: side S in pixels of the images.
        resize, common: arguments of :class:`~mmfss.methods.base.FewShotModel`.

    Raises:
        ValueError: no SAM 1, or a number out of range.
    """

    needs_checkpoint = False
    max_shots = 1
    map_texts = {'like target': "cosine with the mean feature of the support's object"}

    def __init__(
        self,
        sam1: dict,
        mask_value: int = 128,
        image_size: int = 1024,
        resize: str = 'pillow_bilinear',
        **common: Any,
    ) -> None:
        if sam1 is None:
            raise ValueError(f"{type(self).__name__} needs a SAM 1, e.g. sam1=dict(type='SAM1')")
        # below the mean of SAM's photos an object would be no brighter than what is around it
        if integer('model.mask_value', mask_value, 124) > 255:
            raise ValueError(f'model.mask_value must be in 124..255, got {mask_value!r}')
        size = integer('model.image_size', image_size, 1)
        super().__init__(dict(sam1=build_part('sam1', sam1, SAM1)), size, resize=resize, **common)
        self.mask_value = mask_value
        side = self.sam1.image_size
        self.frame = Frame((size, size), (side, side), side)

    def not_static(self) -> dict[str, str]:
        """Its search in each photo."""
        return dict(
            segment='it prompts SAM with the box of a mask found before, which may be empty'
        )

    def compared(self, features: dict) -> Tensor:
        """SAM's features (N, C, h, w)."""
        return features['sam1'][0]

    # --------------------------------------------------------------------------------- support
    @torch.no_grad()
    def encode_support(self, features: dict, masks: Tensor) -> Target:
        """The target of B images under masks (B, 1, S, S).

        Raises:
            ValueError: K > 1.
        """
        check_shots(self, masks.shape[1])
        inside = (masks == 1).float()
        marked = inside.flatten(1).any(1)
        levels = self.compared(features).float()
        values = self.mask_values((inside * self.mask_value - PIXEL_MEAN[0]) / PIXEL_STD[0])
        cells = values[:, 0] > 0
        lost = ~cells.flatten(1).any(1)
        if (lost & marked).any():
            self.warn_once(
                f'no cell of the {levels.shape[-2]} x {levels.shape[-1]} grid of features lies on '
                "the support's object: those that it touches are taken. Crop the photo around it."
            )
        if not marked.all():
            self.warn_once('a support has nothing marked, so nothing is found by it.')
        touched = F.adaptive_max_pool2d(inside, levels.shape[-2:])[:, 0] > 0
        cells = torch.where(lost[:, None, None], touched, cells)
        targets = [
            self.target_of(level, where) if where.any() else level.new_zeros(len(level))
            for level, where in zip(levels, cells)
        ]
        return self.with_targets(levels, Target(torch.stack(targets), marked), inside[:, 0])

    def mask_values(self, red: Tensor) -> Tensor:
        """The red channel (B, 1, T, T) of masks as normalised photos, on the features' grid; the
        object's cells are those above 0."""
        # not antialiased: a cell is what the four pixels in its middle are
        grid = self.sam1.prompt_encoder.image_embedding_size
        return F.interpolate(red, grid, mode='bilinear', align_corners=False)

    def target_of(self, level: Tensor, cells: Tensor) -> Tensor:
        """(C,) of features (C, h, w) at cells (h, w) bool, at least one."""
        return level[:, cells].mean(1)

    def with_targets(self, levels: Tensor, targets: Target, truth: Tensor) -> Target:
        """The state, of supports with features (B, C, h, w) and masks (B, S, S) in {0, 1}."""
        return targets

    # ----------------------------------------------------------------------------------- query
    @torch.no_grad()
    def segment(self, query: dict, state: Target, truth: Tensor | None = None) -> Segmentation:
        """Segment B queries one by one; the trace is a list of :class:`Found`."""
        levels = self.compared(query)
        shape = (len(state.marked), 1, self.image_size, self.image_size)
        logits = torch.full(shape, NOTHING, device=levels.device)
        traces = []
        for i, level in enumerate(levels):
            weights = None if state.weights is None else state.weights[i]
            traces.append(self.find(level[None], state.feature[i], weights, self.frame))
            if state.marked[i]:
                logits[i] = self.frame.up(traces[i].low_res)[0]
        maps = {'like target': torch.stack([one.near for one in traces])[:, None].clamp(0, 1)}
        # mask = [z > 0], and here logits >= 0 are foreground
        return Segmentation(logits - 1e-30, maps, traces)

    def find(self, features: Tensor, target: Tensor, weights: Tensor | None, frame: Frame) -> Found:
        """The target in one photo.

        Args:
            features: (1, C, h, w) of SAM.
            target: (C,).
            weights: (3,) of SAM's three masks, for PerSAM-F.
            frame: of the photo.
        """
        near, similarity = similarity_of(features, target, frame)
        points, guide = self.points(similarity), None
        coords = frame.prompt(points)[None]
        labels = torch.tensor([[1, 0][: len(points)]], dtype=torch.int32, device=coords.device)
        if weights is None:
            # g = sigmoid((s - mean s) / std s): all of the photo on the grid, also where a part of
            # the grid is padding
            standard = (similarity - similarity.mean()) / similarity.std().clamp(min=1e-12)
            guide = F.interpolate(standard[None, None], near.shape, mode='bilinear')[0, 0].sigmoid()
            call = Call(*guided_decode(self.sam1, features, coords, labels, target, guide))
            mask = call.low_res
        else:
            call = Call(*self.sam1.decode(features, coords, labels, multimask=True))
            mask = (weights[:, None, None] * call.low_res).sum(1, keepdim=True)
        calls, first = [call], mask
        # PerSAM has no box in its second call
        for boxed in (weights is not None, True):
            box = box_of(frame.up(mask)[0, 0] > 0) if boxed else None
            if boxed and box is None:
                self.warn_once('the mask before the last step is empty, and so is the result.')
                break
            corners = None if box is None else frame.prompt(box.view(2, 2)).view(1, 4)
            found = self.sam1.decode(features, coords, labels, corners, mask, multimask=True)
            calls.append(Call(*found, mask, box))
            mask = calls[-1].best
        return Found(near, similarity, points, guide, tuple(calls), first, mask)

    def points(self, similarity: Tensor) -> Tensor:
        """(2, 2) int64 x, y of the largest and of the smallest value of (H, W)."""
        return torch.stack([pixel(similarity, similarity.argmax()),
                            pixel(similarity, similarity.argmin())])  # fmt: skip

    def prompter(self, checkpoint: str | None = None) -> Prompter:
        """Boxes, points and scribbles by SAM 1.

        Raises:
            ValueError: a checkpoint; SAM 1 has heads of its own.
        """
        return SAM1Prompter(self.sam1, self.image_size, checkpoint)


@MODELS.register_module()
class PerSAMF(PerSAM):
    """PerSAM-F: a point, and SAM's three masks of it weighed as it suits the support.

    Args:
        steps: of gradient descent on two numbers per support, >= 1.
        common: arguments of :class:`PerSAM`.
    """

    def __init__(self, sam1: dict, steps: int = 1000, **common: Any) -> None:
        super().__init__(sam1, **common)
        self.steps = integer('model.steps', steps, 1)

    def target_of(self, level: Tensor, cells: Tensor) -> Tensor:
        # t = (mean + max) / 2
        return (level[:, cells].mean(1) + level[:, cells].amax(1)) / 2

    def with_targets(self, levels: Tensor, targets: Target, truth: Tensor) -> Target:
        weights = levels.new_full((len(levels), 3), 1 / 3)
        for i in targets.marked.nonzero()[:, 0].tolist():
            call = self.support_call(levels[i : i + 1], targets.feature[i], self.frame)[1]
            weights[i] = tune(self.frame.up(call.low_res)[0], truth[i], self.steps).weights
        return Target(targets.feature, targets.marked, weights)

    def support_call(self, level: Tensor, target: Tensor, frame: Frame) -> tuple[Tensor, Call]:
        """The point (1, 2) that the target has in the support itself, and SAM's masks of it."""
        point = self.points(similarity_of(level, target, frame)[1])
        label = torch.ones(1, 1, dtype=torch.int32, device=point.device)
        return point, Call(
            *self.sam1.decode(level, frame.prompt(point)[None], label, multimask=True)
        )

    def points(self, similarity: Tensor) -> Tensor:
        """(1, 2) int64 x, y of the largest value of (H, W)."""
        return pixel(similarity, similarity.argmax())[None]


def similarity_of(features: Tensor, target: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Cosines of features (1, C, h, w) with a target (C,): (h, w), and (H, W) in the photo."""
    level = features[0].float()
    # s = <t / |t|, F / |F|>; elementwise, which no autocast rounds
    unit = F.normalize(level, dim=0, eps=1e-12)
    near = (F.normalize(target, dim=0, eps=1e-12)[:, None, None] * unit).sum(0)
    low = F.interpolate(near[None, None], scale_factor=4, mode='bilinear', align_corners=False)
    return near, frame.up(low)[0, 0]


def pixel(image: Tensor, place: Tensor) -> Tensor:
    """(2,) x, y of a place in the flattened image (H, W)."""
    return torch.stack([place % image.shape[1], place // image.shape[1]])


def box_of(mask: Tensor) -> Tensor | None:
    """(4,) int64: first and last x, y of a mask (H, W) bool as x0, y0, x1, y1; None where empty."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return torch.stack([columns[0], rows[0], columns[-1], rows[-1]]) if len(rows) else None


def tune(logits: Tensor, truth: Tensor, steps: int) -> Tuned:
    """How to weigh three masks (3, H, W), logits, for their sum to be the truth (H, W) in {0, 1}.

    The masks are the same in every step; the published program decodes them again each time.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(logits.device.type, enabled=False),
    ):
        inside = truth.flatten() == 1
        masks = logits.float().flatten(1)
        # the object's pixels, then those of the rest with the other sign: sigmoid(u) is then how
        # likely each is what it is. A copy: what inference mode made takes part in no gradient
        masks = torch.cat([masks[:, inside], -masks[:, ~inside]], 1)
        count, total = int(inside.sum()), len(inside)
        free = torch.full((2,), 1 / 3, device=masks.device, requires_grad=True)
        optimizer = torch.optim.AdamW([free], lr=1e-3, eps=1e-4, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            # z = sum_i w_i z_i with w = (1 - w1 - w2, w1, w2)
            u = torch.cat([1 - free.sum(0, keepdim=True), free]) @ masks
            q = u.sigmoid()
            # dice = 1 - (2 sum(p g) + 1) / (sum p + sum g + 1)
            hit = q[:count].sum()
            wrong = total - count - q[count:].sum()
            dice = 1 - (2 * hit + 1) / (hit + wrong + count + 1)
            # focal = -mean(a (1 - q)^2 log q), a = 1/4 on the object and 3/4 off it
            each = (1 - q) ** 2 * F.logsigmoid(u)
            focal = -(0.25 * each[:count].sum() + 0.75 * each[count:].sum()) / total
            optimizer.zero_grad()
            (dice + focal).backward()
            optimizer.step()
            schedule.step()
        weights = torch.cat([1 - free.sum(0, keepdim=True), free])
    return Tuned(weights.detach(), dice.detach(), focal.detach())
