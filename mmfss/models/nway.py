"""N classes at once, around the one-class model: masks and object scores, and how they compete.

    states = encode_classes(model, [[(image, mask), ...], ...])         # once per support set
    result = segment_classes(model, features, states)                   # once per image
    labels = decide(result.logits, result.scores, threshold, (H, W))

Shapes: N classes, K shots (may differ between classes), S side of the model's images, C channels
of the features that are compared, (h, w) their grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .fssam import FSSAM, ImageFeatures, SupportState
from .functional import cosine_map, masked_average, resize_mask, up

ABSENT = -1.0
"""Logit of a class that is not there. In one image any negative one would do. Sliding windows are
averaged: a large one would let a window that shows too little of an object veto those that show all
of it (24 mosaics of Shapes-5i, IoU of 3 classes: 23.7 with -1e4, 26.7 with -1, 25.2 with 0)."""


@dataclass(frozen=True)
class ClassState:
    """What is kept of the K supports of one class.

    Attributes:
        support: of :meth:`FSSAM.encode_support`, for one episode.
        prototypes: (K, C) mean features of its supported objects, for the object score.
    """

    support: SupportState
    prototypes: Tensor


@dataclass(frozen=True)
class ClassMasks:
    """N classes in one image.

    Attributes:
        logits: (N, S, S) float32; >= 0 where the class would be if it is there at all.
        scores: (N,) float32 in [0, 1], the object scores: is the class there?
    """

    logits: Tensor
    scores: Tensor


@torch.no_grad()
def encode_class(model: FSSAM, features: ImageFeatures, masks: Tensor) -> ClassState:
    """Encode the supports of one class.

    Args:
        model: in eval mode.
        features: of its K images.
        masks: (K, S, S) in {0, 1, 255}; 255 counts as 0.
    """
    support = model.encode_support(features, masks[None])
    compared = _compared(features)
    inside = resize_mask((masks == 1).float()[None], compared.shape[-2:])[0]
    return ClassState(support, masked_average(compared, inside))


@torch.no_grad()
def encode_classes(
    model: FSSAM, classes: Iterable[Sequence[tuple[np.ndarray, np.ndarray]]]
) -> list[ClassState]:
    """Encode the supports of all classes, one image at a time, on the model's device.

    Args:
        model: in eval mode.
        classes: of each its K images uint8 (S, S, 3) BGR with masks uint8 (S, S) of 0, 1, 255.
    """
    device = next(model.parameters()).device
    states = []
    for shots in classes:
        parts = [model.encode_image(as_input(image, device)) for image, _ in shots]
        masks = torch.from_numpy(np.stack([mask for _, mask in shots])).to(device)
        states.append(encode_class(model, ImageFeatures.cat(parts), masks))
    return states


def as_input(image: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (S, S, 3) BGR as :meth:`FSSAM.encode_image` takes it: float (1, 3, S, S) RGB."""
    rgb = torch.from_numpy(image[..., ::-1].copy()).to(device)
    return rgb.permute(2, 0, 1)[None].float()


@torch.no_grad()
def segment_classes(
    model: FSSAM, features: ImageFeatures, states: Sequence[ClassState]
) -> ClassMasks:
    """Segment one image for each class; the image is encoded already.

    Args:
        model: in eval mode.
        features: of one image.
        states: of :func:`encode_class`, at least one.
    """
    logits, scores = [], []
    for state in states:
        mask = model.segment(features, state.support).logits[0].float()  # (1, S, S)
        logits.append(mask)
        scores.append(object_score_of(features, mask, state))
    return ClassMasks(torch.cat(logits), torch.stack(scores))


def object_score(features: Tensor, inside: Tensor, prototypes: Tensor) -> Tensor:
    """Is the class there? How much what lies under its mask resembles the supported objects.

    FSSAM takes for granted that the class is there: its pseudo masks are rescaled in each image,
    and its mask decoder never sees an image without the object, so neither its logits nor SAM 2's
    own object score and predicted IoU tell (docs/labelling.md has the figures). What does is the
    mean feature under the predicted mask, in the frozen encoder that the prompts come from.

    Args:
        features: (C, h, w) float32 of the image.
        inside: (h, w) in [0, 1], the predicted mask.
        prototypes: (K, C).

    Returns:
        Scalar in [0, 1]: cosine with each shot's mean feature, averaged over shots, negative values
        as 0; 0 for an empty mask.
    """
    mean = masked_average(features, inside)[:, None, None]
    return cosine_map(mean, prototypes).mean().clamp(0, 1)


def object_score_of(features: ImageFeatures, logits: Tensor, state: ClassState) -> Tensor:
    """:func:`object_score` of a class in one image, given its logits (1, S, S) there."""
    compared = _compared(features)[0]
    inside = resize_mask((logits >= 0).float()[None], compared.shape[-2:])[0, 0]
    return object_score(compared, inside, state.prototypes)


def _compared(features: ImageFeatures) -> Tensor:
    """(N, C, h, w) float32: the prior encoder's, or SAM 2's where there is none."""
    return (features.sam2.top if features.prior is None else features.prior).float()


def class_logits(logits: Tensor, scores: Tensor, threshold: Tensor | float) -> Tensor:
    """Logits over background and N classes whose largest one is the decision.

    A class counts where its own logit is >= 0; where several do, the one with the largest
    product of object score and logit; where none does, background. A class whose score is below
    the threshold is nowhere.

    Args:
        logits: (N, H, W) of the classes.
        scores: (N,) in [0, 1].
        threshold: in [0, 1], of all classes or (N,).

    Returns:
        (N + 1, H, W): 0 for the background (less 1e-30), and ``score x logit``, or ``ABSENT``.
    """
    present = scores >= threshold
    weight = scores.clamp(min=1e-6)  # a score of 0 keeps the signs of the logits
    weighted = torch.where(present[:, None, None], weight[:, None, None] * logits, ABSENT)
    return torch.cat([torch.full_like(logits[:1], -1e-30), weighted])


def decide(
    logits: Tensor, scores: Tensor, threshold: Tensor | float, size: tuple[int, int]
) -> Tensor:
    """The label map of an image: :func:`class_logits`, resized to its size, one class at a time.

    For one class that is present this is :func:`mmfss.models.functional.logits_to_mask`.

    Args:
        logits, scores, threshold: as for :func:`class_logits`, with (N, S, S).
        size: (height, width) of the result.

    Returns:
        (height, width) uint8: 0 background, 1..N the classes.
    """
    weighted = class_logits(logits, scores, threshold)[1:]
    labels = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    best: Tensor | None = None
    for label, (one, is_there) in enumerate(zip(weighted, scores >= threshold), 1):
        if not is_there:
            continue
        value = up(one[None, None], size)[0, 0]
        if best is None:
            labels[value >= 0], best = label, value
            continue
        labels[(value >= 0) & (value > best)] = label
        best = torch.maximum(best, value)
    return labels
