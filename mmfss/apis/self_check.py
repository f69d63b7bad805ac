"""What a support set says of itself: each support is predicted from the others of its class, and
looked for by the other classes.

    found, states = check_support(model, support)

Each support image is encoded once. After that a class of K supports takes K light passes
(``encode_support`` of K - 1 supports and ``segment``), at most ``MAX_ABSENT`` more in images of
other classes, and K - 1 for each support that is named as one that spoils the set. A class with
one photo has nothing to be predicted from: three changed copies of the photo are encoded. Features
of all supports are held at a time.

Shapes: K supports of a class, M of all, S side of the model's images.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from mmfss.apis.check_result import ClassCheck, SelfCheck, SupportCheck
from mmfss.apis.nway import ClassState, ClassStates, as_input, encode_class, segment_classes
from mmfss.apis.support import Shot, SupportSet
from mmfss.batching import cat
from mmfss.methods.base import FewShotModel, check_shots, check_takes_negatives

MAX_ABSENT = 24
"""Images of other classes in which a class is looked for."""
ODD, STANDS_OUT, LEAST = 3.0, 5.5, 5
"""A support is named from this :func:`oddness` on, where it is so many robust standard deviations
above that of the others, of which there must be so many in all: in real photos supports differ, and
what is odd among alike ones is not among these. tools/analysis_tools/selfcheck_quality.py has what
that finds, and how often it names a support that nothing is wrong with."""


@dataclass(frozen=True)
class EncodedShot:
    """A support, encoded.

    Attributes:
        query, support: features of one image, as each role has them.
        mask: (S, S) uint8 in {0, 1, 255}, on the device.
        photo: tells whether two shots are of one image.
        source: of the shot.
    """

    query: Any
    support: Any
    mask: Tensor
    photo: str
    source: str


@dataclass(frozen=True)
class EncodedClass:
    """The K shots of a class and its negatives, encoded."""

    shots: Sequence[EncodedShot]
    negatives: Sequence[EncodedShot] = ()

    @property
    def photos(self) -> set[str]:
        """Different photos among the shots."""
        return {shot.photo for shot in self.shots}

    def state(self, model: FewShotModel, left_out: Collection[str] = ()) -> ClassState:
        """The state of the class, without what is of some photos."""

        def joined(some: Sequence[EncodedShot]) -> tuple[Any, Tensor]:
            return cat([shot.support for shot in some]), torch.stack([shot.mask for shot in some])

        shots, others = (
            [shot for shot in some if shot.photo not in left_out]
            for some in (self.shots, self.negatives)
        )
        return encode_class(model, *joined(shots), joined(others) if others else None)


@torch.no_grad()
def check_support(model: FewShotModel, support: SupportSet) -> tuple[SelfCheck, ClassStates]:
    """Check a support set.

    Args:
        model: in eval mode.
        support: at its image size.

    Returns:
        What was found, and the states of all classes, as :func:`mmfss.apis.nway.encode_classes`
        makes them.

    Raises:
        ValueError: the method is given the truth, so that its predictions say nothing; it takes
            fewer supports; or there are negatives, and it takes none.
    """
    if model.needs_truth:
        raise ValueError(
            f'{type(model).__name__} is given the true masks (needs_truth), so predicting its '
            'supports says nothing of it; check a method that is not'
        )
    for shots in support.shots.values():
        check_shots(model, len(shots))  # before anything is encoded
    if support.negatives:
        check_takes_negatives(model)
    encoded = {
        name: EncodedClass(
            [_encode(model, shot) for shot in of_class],
            [_encode(model, shot) for shot in support.negatives.get(name, ())],
        )
        for name, of_class in support.shots.items()
    }

    def copies(name: str) -> list[EncodedShot]:
        return _changed_copies(model, support.shots[name])

    return check_encoded(model, encoded, copies)


@torch.no_grad()
def check_encoded(
    model: FewShotModel,
    encoded: Mapping[str, EncodedClass],
    copies: Callable[[str], Sequence[EncodedShot]],
) -> tuple[SelfCheck, ClassStates]:
    """:func:`check_support` of classes that are encoded already.

    Args:
        model: in eval mode.
        encoded: by name.
        copies: gives what a class of one photo is looked for in.
    """
    full = {name: one.state(model) for name, one in encoded.items()}
    absent = _absence(model, encoded, full)
    found: dict[str, list[SupportCheck]] = {}
    for name, one in encoded.items():
        if len(one.photos) > 1:
            found[name] = [_found(model, s, one.state(model, {s.photo})) for s in one.shots]
    for name, place, reason in _name_odd(full, found):
        others = _others(model, encoded[name], place, found[name])
        found[name][place] = replace(found[name][place], reason=reason, others=others)
    classes = []
    for name in encoded:
        single = name not in found
        if single:
            found[name] = [_found(model, copy, full[name]) for copy in copies(name)]
        classes.append(ClassCheck(name, tuple(found[name]), absent[name], single))
    encoders = tuple(type(encoder).__name__ for encoder in model.encoders.values())
    check = SelfCheck(type(model).__name__, encoders, tuple(classes))
    return check, ClassStates.stack(list(full.values()))


# ---------------------------------------------------------------------------------- predictions
def _encode(model: FewShotModel, shot: Shot) -> EncodedShot:
    """Both roles; each encoder runs once where the method leaves ``encode_image`` as it is."""
    image = as_input(shot.image, model.device)
    if type(model).encode_image is FewShotModel.encode_image:
        names = dict.fromkeys((*model.query_encoders, *model.support_encoders))
        levels = model.encoding(names, image)
        query = {name: levels[name] for name in model.query_encoders}
        support = {name: levels[name] for name in model.support_encoders}
    else:
        query = support = model.encode_image(image)
        if model.query_encoders != model.support_encoders:
            support = model.encode_image(image, 'support')
    mask = torch.from_numpy(shot.mask).to(model.device)
    photo = hashlib.sha256(np.ascontiguousarray(shot.image).tobytes()).hexdigest()
    return EncodedShot(query, support, mask, photo, shot.source)


def _found(model: FewShotModel, shot: EncodedShot, state: ClassState) -> SupportCheck:
    """A support, looked for by a state that does not know it."""
    found = segment_classes(model, shot.query, [state])
    overlap = mask_iou(found.logits[0, 0] >= 0, shot.mask)
    return SupportCheck(shot.source, overlap, float(found.scores[0, 0]))


def mask_iou(predicted: Tensor, mask: Tensor) -> float:
    """IoU of bool (S, S) with a mask (S, S) in {0, 1, 255}, where 255 does not count.

    The mask marks a pixel, so that there is something to divide by.
    """
    truth = mask == 1
    union = (predicted | truth) & (mask != 255)
    return float((predicted & truth).sum() / union.sum())


def _absence(
    model: FewShotModel, encoded: Mapping[str, EncodedClass], full: Mapping[str, ClassState]
) -> dict[str, tuple[float, ...]]:
    """Object scores of each class where it is not: in its negatives that are whole images, which
    it then does not know, and in images of the others, which are taken in turns. Images that are
    among its own supports are left out."""
    scores: dict[str, list[float]] = {name: [] for name in encoded}
    wanted: dict[str, tuple[EncodedShot, list[str]]] = {}  # photo -> classes to look for in it
    for name, own in encoded.items():
        seen = own.photos
        for shot in own.negatives:
            if shot.mask.all() and shot.photo not in seen:
                seen.add(shot.photo)
                scores[name].append(_found(model, shot, own.state(model, {shot.photo})).score)
        count = len(scores[name])
        for shot in _in_turns([other.shots for n, other in encoded.items() if n != name]):
            if count >= MAX_ABSENT:
                break
            if shot.photo not in seen:
                seen.add(shot.photo)
                count += 1
                wanted.setdefault(shot.photo, (shot, []))[1].append(name)
    for shot, names in wanted.values():
        # together: what serves all classes of an image is made once
        found = segment_classes(model, shot.query, [full[name] for name in names])
        for name, score in zip(names, found.scores[0].tolist(), strict=True):
            scores[name].append(score)
    return {name: tuple(of_class) for name, of_class in scores.items()}


def _in_turns(lists: Sequence[Sequence[EncodedShot]]) -> Iterator[EncodedShot]:
    """The first of each, the second of each, ..."""
    for place in range(max(map(len, lists), default=0)):
        yield from (one[place] for one in lists if place < len(one))


def _changed_copies(model: FewShotModel, shots: Sequence[Shot]) -> list[EncodedShot]:
    """Each shot mirrored, larger, and mirrored and smaller, about the object; encoded. What is
    beyond the border is mirrored, in the image and in the mask."""
    copies = []
    for shot in shots:
        side = len(shot.mask)
        rows, columns = np.nonzero(shot.mask == 1)
        centre = np.array([columns.mean(), rows.mean()])
        for what, turn, scale in (('mirrored', -1, 1.0), ('larger', 1, 1.3), ('smaller', -1, 0.75)):
            linear = np.diag([turn * scale, scale])
            target = centre if turn > 0 else np.array([side - 1 - centre[0], centre[1]])
            move = np.column_stack([linear, target - linear @ centre])
            image, mask = (
                cv2.warpAffine(x, move, (side, side), flags=how, borderMode=cv2.BORDER_REFLECT_101)
                for x, how in ((shot.image, cv2.INTER_LINEAR), (shot.mask, cv2.INTER_NEAREST))
            )
            if (mask == 1).any():
                source = f'{shot.source} ({what})'
                copies.append(_encode(model, replace(shot, image=image, mask=mask, source=source)))
    return copies


# ------------------------------------------------------------------------------- what spoils it
def oddness(
    cosines: np.ndarray, owners: np.ndarray, place: int, score: float
) -> tuple[float, dict[str, float], int]:
    """How far a support is from the others of its class, in standard deviations of all cosines.

    With ``own`` the mean cosine of its object with those of its K - 1 mates, ``rest`` that of the
    mates with each other, ``foreign`` the largest mean cosine with another class, and ``score`` the
    cosine of the mates' objects with what they find in its image::

        ((rest - own) + 2 max(0, foreign - own) + (score - own)) / std

    The first is large for any object that looks different, the second for an object of another
    class of the set, the third for a mask beside the object: the image shows it, the mask does not.

    Args:
        cosines: (M, M) of all supported objects.
        owners: (M,) the class of each.
        place: of the support among the M.
        score: object score of its class in its image, from its mates.

    Returns:
        The sum (NaN with fewer than two mates, or where all cosines are equal), its three parts,
        and the class that ``foreign`` is of (-1 without any).
    """
    mates = np.flatnonzero((owners == owners[place]) & (np.arange(len(owners)) != place))
    pairs = cosines[np.triu_indices(len(owners), 1)]
    scale = float(pairs.std()) if len(pairs) else 0.0
    if len(mates) < 2 or scale < 1e-6:
        return math.nan, {}, -1
    own = cosines[place, mates].mean()
    among = cosines[np.ix_(mates, mates)][np.triu_indices(len(mates), 1)]
    foreign = {
        c: cosines[place, owners == c].mean() for c in np.unique(owners) if c != owners[place]
    }
    nearest = max(foreign, key=lambda c: foreign[c]) if foreign else -1
    parts = dict(
        different=float(among.mean() - own) / scale,
        foreign=2 * max(0.0, float(foreign[nearest] - own)) / scale if foreign else 0.0,
        beside=float(score - own) / scale,
    )
    return sum(parts.values()), parts, int(nearest)


def _name_odd(
    full: Mapping[str, ClassState], found: dict[str, list[SupportCheck]]
) -> list[tuple[str, int, str]]:
    """Note the oddness of all supports in ``found``, and say which are to be named: class, place
    in it, reason."""
    prototypes = torch.cat([state.prototypes for state in full.values()]).float().cpu()
    unit = torch.nn.functional.normalize(prototypes, dim=1).numpy()
    cosines, names = unit @ unit.T, tuple(full)  # by numpy: autocast would give bfloat16
    counts = [len(state.prototypes) for state in full.values()]
    owners = np.repeat(np.arange(len(names)), counts)
    all_of: list[tuple[float, str, int, str]] = []
    for name, supports in found.items():
        start = int(np.flatnonzero(owners == names.index(name))[0])
        for place, one in enumerate(supports):
            odd, parts, nearest = oddness(cosines, owners, start + place, one.score)
            supports[place] = replace(one, oddness=odd)
            if math.isnan(odd):
                continue
            if max(parts, key=lambda part: parts[part]) == 'beside':
                reason = 'the others find the class beside its mask; is the mask wrong?'
            elif parts['foreign'] > 0:
                reason = f'what is marked looks more like {names[nearest]}; is it another object?'
            else:
                reason = 'what is marked looks unlike the others; another object, or a wrong mask?'
            all_of.append((odd, name, place, reason))
    if len(all_of) < LEAST:
        return []
    values = np.array([odd for odd, *_ in all_of])
    middle = np.median(values)
    # 1.4826 median |x - median| is the standard deviation of a normal distribution
    limit = max(ODD, middle + STANDS_OUT * 1.4826 * np.median(np.abs(values - middle)))
    return [(name, place, reason) for odd, name, place, reason in all_of if odd >= limit]


def _others(
    model: FewShotModel, own: EncodedClass, place: int, supports: Sequence[SupportCheck]
) -> tuple[float, float] | None:
    """Mean IoU of all but one, with that one among the supports and without it; None where nothing
    would be left to predict them from."""
    named = own.shots[place].photo
    before, after = [], []
    for shot, one in zip(own.shots, supports, strict=True):
        if shot.photo != named and own.photos - {shot.photo, named}:
            before.append(one.iou)
            after.append(_found(model, shot, own.state(model, {shot.photo, named})).iou)
    return (float(np.mean(before)), float(np.mean(after))) if before else None
