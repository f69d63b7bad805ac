"""N classes at once, around the one-class model: masks, object scores, and how they compete.

    states = encode_classes(model, [[(image, mask), ...], ...])         # once per support set
    found = segment_classes(model, features, states)                    # Q images at once
    labels = decide(found.logits[0], found.scores[0], threshold, (H, W))

Shapes: Q images, N classes, K shots (may differ between classes), S side of the model's images,
C channels of the features that are compared, (h, w) their grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmfss.arguments import integer
from mmfss.batching import cat, repeat_all, repeat_each, take
from mmfss.functional import cosine_map, masked_average, share_of_grid, up
from mmfss.methods.base import FewShotModel, Negatives, check_shots, check_takes_negatives

ABSENT = -1.0
"""Logit of a class that is not there. In one image any negative one would do. Sliding windows are
averaged: a large one would let a window that shows too little of an object veto those that show all
of it (24 mosaics of Shapes-5i, IoU of 3 classes: 23.7 with -1e4, 26.7 with -1, 25.2 with 0)."""
_BELOW_ZERO = -1e-45
"""The float32 next to 0."""
CPU_PAIRS, GPU_PAIRS = 1, 16
"""Pairs of image and class that go through the model at once, by default. On a CPU larger batches
leave its caches: full size, one thread, CPU time per class 0.59 s one by one, 0.58 s two at a time,
0.74 s five at a time. A GPU needs them to be busy."""


@dataclass(frozen=True)
class ClassState:
    """What is kept of the K supports of one class.

    Attributes:
        support: of the method's ``encode_support``, for one episode.
        prototypes: (K, C) mean features of its supported objects, for the object score.
        negatives: M, how many images of what is not the class ``support`` knows.
    """

    support: Any
    prototypes: Tensor
    negatives: int = 0


@dataclass(frozen=True)
class ClassGroup:
    """Classes with as many supports each, and as many negatives, as one batch.

    Attributes:
        members: their places 0..N-1 among all classes.
        support: of n = ``len(members)`` episodes.
        prototypes: (n, K, C).
    """

    members: tuple[int, ...]
    support: Any
    prototypes: Tensor


@dataclass(frozen=True)
class ClassStates:
    """What is kept of the supports of N classes; those of the same K and M are stacked, once."""

    groups: tuple[ClassGroup, ...]

    def __len__(self) -> int:
        """N."""
        return sum(len(group.members) for group in self.groups)

    @staticmethod
    def stack(states: Sequence[ClassState]) -> ClassStates:
        """From the states of the classes one by one.

        Raises:
            ValueError: There is none, or one holds what cannot be batched
                (:mod:`mmfss.batching`).
        """
        if not states:
            raise ValueError('there is no class to look for; give the state of at least one')
        by_shots: dict[tuple[int, int], list[int]] = {}
        for place, state in enumerate(states):
            by_shots.setdefault((len(state.prototypes), state.negatives), []).append(place)
        return ClassStates(
            tuple(
                ClassGroup(
                    tuple(places),
                    cat([states[place].support for place in places]),
                    torch.stack([states[place].prototypes for place in places]),
                )
                for places in by_shots.values()
            )
        )


@dataclass(frozen=True)
class ClassMasks:
    """N classes in Q images.

    Attributes:
        logits: (Q, N, S, S) float32; >= 0 where the class would be if it is there at all.
        scores: (Q, N) float32 in [0, 1], the object scores: is the class there?
        parts: [Q][N] masks of single objects, see :class:`mmfss.methods.base.Segmentation`.
    """

    logits: Tensor
    scores: Tensor
    parts: Sequence[Sequence[Tensor | None]]


@torch.no_grad()
def encode_class(
    model: FewShotModel,
    features: Any,
    masks: Tensor,
    negatives: tuple[Any, Tensor] | None = None,
) -> ClassState:
    """Encode the supports of one class.

    Args:
        model: in eval mode.
        features: of its K images.
        masks: (K, S, S) in {0, 1, 255}; 255 counts as 0.
        negatives: the same of M images of what is not the class, where it is marked with 1.

    Raises:
        ValueError: the method takes no negatives.
    """
    if negatives is None:
        support = model.encode_support(features, masks[None])
    else:
        check_takes_negatives(model)
        takes: Any = model  # the argument is that of methods that take it
        given = Negatives(negatives[0], (negatives[1] == 1).to(torch.uint8)[None])
        support = takes.encode_support(features, masks[None], given)
    compared = model.compared(features).float()
    # p_k = gap(F_s, m), per shot; m soft on the grid
    inside = share_of_grid((masks == 1).float()[None], compared.shape[-2:])[0]
    count = 0 if negatives is None else len(negatives[1])
    return ClassState(support, masked_average(compared, inside), count)


@torch.no_grad()
def encode_classes(
    model: FewShotModel,
    classes: Iterable[Sequence[tuple[np.ndarray, np.ndarray]]],
    negatives: Iterable[Sequence[tuple[np.ndarray, np.ndarray]]] = (),
) -> ClassStates:
    """Encode the supports of all classes, one image at a time, on the model's device.

    Args:
        model: in eval mode.
        classes: of each its K images uint8 (S, S, 3) BGR with masks uint8 (S, S) of 0, 1, 255.
        negatives: of each class its M >= 0 images of what it is not, in the same form; classes
            beyond the last have none.

    Raises:
        ValueError: there are negatives, and the method takes none; or more supports of a class
            than it takes.
    """

    def encoded(shots: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Any, Tensor]:
        parts = [model.encode_image(as_input(image, model.device), 'support') for image, _ in shots]
        masks = torch.from_numpy(np.stack([mask for _, mask in shots])).to(model.device)
        return cat(parts), masks

    states = []
    for shots, others in zip_longest(classes, negatives, fillvalue=()):
        check_shots(model, len(shots))  # before anything is encoded
        if others:
            check_takes_negatives(model)
        negative = encoded(others) if others else None
        states.append(encode_class(model, *encoded(shots), negative))
    return ClassStates.stack(states)


def as_input(image: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (S, S, 3) BGR as a method's ``encode_image`` takes it: float (1, 3, S, S) RGB."""
    rgb = torch.from_numpy(image[..., ::-1].copy()).to(device)
    return rgb.permute(2, 0, 1)[None].float()


@torch.no_grad()
def segment_classes(
    model: FewShotModel,
    features: Any,
    states: ClassStates | Sequence[ClassState],
    pairs: int | None = None,
) -> ClassMasks:
    """Segment images that are encoded already for each class.

    Classes with as many supports and negatives go through the model together, and so do images
    where there is room. Results depend on the neighbours in a batch by rounding alone (float32:
    about 1e-6 of the largest logit). Which classes are neighbours is fixed by the support set and
    ``pairs``, so what an image gives by itself (Q = 1) is the same each time, bit by bit. Pairs
    that come one by one may be run by another runtime, see :mod:`mmfss.methods.light_pass`.

    Args:
        model: in eval mode.
        features: of Q images.
        states: of :func:`encode_classes`, or of :func:`encode_class` for each class.
        pairs: of image and class that go through the model at once, at most; memory grows with it.
            None takes ``CPU_PAIRS`` or ``GPU_PAIRS``.

    Raises:
        ValueError: ``pairs`` is below 1, or there is no class.
    """
    compared = model.compared(features).float()
    if pairs is None:
        pairs = CPU_PAIRS if compared.device.type == 'cpu' else GPU_PAIRS
    integer('pairs', pairs, 1)
    if not isinstance(states, ClassStates):
        states = ClassStates.stack(states)
    count_images, side, device = len(compared), model.image_size, compared.device
    logits = torch.empty(count_images, len(states), side, side, device=device)
    scores = torch.empty(count_images, len(states), device=device)
    parts: list[list[Tensor | None]] = [[None] * len(states) for _ in range(count_images)]
    # what no class decides is made once per image, before the loop over classes
    features = model.light.encode_query(features)
    for group in states.groups:
        members = torch.tensor(group.members, device=device)
        for images, classes in _batches(count_images, len(members), pairs):
            support = take(group.support, classes)
            query, count = take(features, images), len(members[classes])
            found = model.light.segment(
                repeat_each(query, count), repeat_all(support, len(compared[images]))
            )
            masks = found.logits[:, 0].float().unflatten(0, (-1, count))
            logits[images, members[classes]] = masks
            scores[images, members[classes]] = object_scores(
                compared[images], masks, group.prototypes[classes]
            )
            if found.parts is not None:
                pairs_there = product(range(*images.indices(count_images)), group.members[classes])
                for (image, place), some in zip(pairs_there, found.parts, strict=True):
                    parts[image][place] = some
    return ClassMasks(logits, scores, parts)


def _batches(images: int, classes: int, pairs: int) -> Iterator[tuple[slice, slice]]:
    """Cut ``images x classes`` into batches of at most ``pairs``: several images with all classes
    where these fit, else some classes of one image."""
    step = max(1, pairs // classes)
    for image in range(0, images, step):
        for start in range(0, classes, pairs):
            yield slice(image, image + step), slice(start, start + pairs)


def object_score_of(
    model: FewShotModel, features: Any, logits: Tensor, state: ClassState
) -> Tensor:
    """:func:`object_scores` of a class in one image, given its logits (1, S, S) there."""
    compared = model.compared(features).float()
    return object_scores(compared, logits[None], state.prototypes[None])[0, 0]


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
    # z_n = s_n logit_n where s_n >= threshold, else ABSENT; z_0 = -1e-30; label = argmax_n z_n
    # z_0 is just below 0, as a class counts from 0 on
    present = scores >= threshold
    weighted = torch.where(present[:, None, None], _weights(scores)[:, None, None] * logits, ABSENT)
    return torch.cat([torch.full_like(logits[:1], -1e-30), weighted])


def decide(
    logits: Tensor, scores: Tensor, threshold: Tensor | float, size: tuple[int, int]
) -> Tensor:
    """The label map of an image: :func:`class_logits`, resized to its size, one class at a time.

    For one class that is present this is :func:`mmfss.functional.logits_to_mask`.

    Args:
        logits, scores, threshold: as for :func:`class_logits`, with (N, S, S).
        size: (height, width) of the result.

    Returns:
        (height, width) uint8: 0 background, 1..N the classes.
    """
    return compete(logits, scores, threshold, size).labels


def compete(
    logits: Tensor, scores: Tensor, threshold: Tensor | float, size: tuple[int, int]
) -> Contest:
    """What :func:`decide` decides by."""
    # argmax over [-1e-30, s_1 up(logit_1), ...], a class at a time: no N maps of this size
    contest = Contest(size, logits.device)
    for label, one in enumerate(weighted_logits(logits, scores, threshold), 1):
        if one is None or one.amax() < -1e-30:
            continue  # so is what is interpolated; nothing to write at the size of a photo
        contest.enter(label, one if one.shape == size else up(one[None, None], size)[0, 0])
    return contest


class Contest:
    """Classes that compete for pixels, entered one by one: the largest value wins, of equal ones
    the first, and what is below 0 loses to the background.

    Args:
        size: (height, width).
        device: where the values are.

    Attributes:
        labels: uint8 (height, width), 0 or the label that leads.
        best: float32 (height, width), its value, just below 0 where none leads; None before the
            first.
    """

    def __init__(self, size: tuple[int, int], device: torch.device | str = 'cpu') -> None:
        self.labels = torch.zeros(size, dtype=torch.uint8, device=device)
        self.best: Tensor | None = None

    def enter(self, label: int, value: Tensor) -> None:
        """Enter a class with its values (height, width) float32, which are used up."""
        if self.best is None:
            self.labels.masked_fill_(value >= 0, label)
            self.best = value.clamp_(min=_BELOW_ZERO)  # what is larger is >= 0 too
        else:
            self.labels.masked_fill_(value > self.best, label)
            torch.maximum(self.best, value, out=self.best)


def weighted_logits(
    logits: Tensor, scores: Tensor, threshold: Tensor | float
) -> Iterator[Tensor | None]:
    """Of each class in turn what it competes with, score x logit (S, S), a tensor of its own; None
    where it is absent. Arguments as of :func:`class_logits`."""
    present = (scores >= threshold).tolist()
    for weight, one, there in zip(_weights(scores), logits, present):
        yield weight * one if there else None


def _weights(scores: Tensor) -> Tensor:
    """Factors of the logits; a score of 0 keeps their signs."""
    return scores.clamp(min=1e-6)


def object_scores(features: Tensor, logits: Tensor, prototypes: Tensor) -> Tensor:
    """Are the classes there? How much what lies under their masks resembles the supported objects.

    FSSAM takes for granted that the class is there: its pseudo masks are rescaled in each image,
    and its mask decoder never sees an image without the object, so neither its logits nor SAM 2's
    own object score and predicted IoU tell (docs/labelling.md has the figures). What does is the
    mean feature under the predicted mask, in the frozen encoder that the prompts come from.

    Args:
        features: (Q, C, h, w) float32 of the images.
        logits: (Q, N, S, S) of the classes in them; a mask is where they are >= 0.
        prototypes: (N, K, C).

    Returns:
        (Q, N) in [0, 1]: cosine with each shot's mean feature, averaged over shots, negative values
        as 0; 0 for an empty mask.
    """
    # M = [logits >= 0], soft on the grid
    inside = share_of_grid((logits >= 0).float(), features.shape[-2:])
    return resemblance(features, inside, prototypes)


def resemblance(features: Tensor, inside: Tensor, prototypes: Tensor) -> Tensor:
    """:func:`object_scores`, given where the classes are: ``inside`` (Q, N, h, w) in [0, 1]."""
    # masked_average of all classes as one product, without (Q, N, C, h, w)
    with torch.autocast(features.device.type, enabled=False):
        total = inside.flatten(2) @ features.flatten(2).transpose(1, 2)
    # f_n = gap(F, M_n) = sum(F M_n) / (sum(M_n) + 0.0005)
    mean = total / (inside.sum((-2, -1)) + 0.0005)[..., None]
    # s_n = max(0, mean_K cos(f_n, p_k)): the object score; f as a map of 1 x 1
    cosines = cosine_map(mean[:, :, None, :, None, None], prototypes)
    return cosines[..., 0, 0].mean(-1).clamp(0, 1)
