"""What all doors share: marks of a person as masks, a prediction as objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfss.apis.marks import Prompt
from mmfss.apis.prediction import Prediction
from mmfss.labelling.annotations import objects_of
from mmfss.regions import decoded, filled

SMALLEST = 0.01
"""Of the area of the largest object of a class: smaller ones become no polygon and no rectangle."""
TOLERANCE = 1.0
"""How far polygons may leave the border of a mask, in pixels."""

Propose = Callable[[Prompt], Any]
"""Makes a proposal of a prompt, with its ``mask`` bool (H, W) and maybe ``how`` it was made, see
:class:`mmfss.apis.box_masks.BoxMasks`; or raises ValueError."""


class Marks:
    """What is marked in a photo of H x W pixels, class by class.

    Boxes and points are prompts: they become a mask where their class has none that is drawn. Each
    box is one prompt, all points of a class are one.

    Attributes:
        notes: why marks were left out.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.notes: list[str] = []
        self._drawn: dict[str, np.ndarray] = {}
        self._boxes: dict[str, list[Prompt]] = {}
        self._points: dict[str, list[tuple[float, float, int]]] = {}

    def draw(self, label: str, mask: np.ndarray) -> None:
        """A region, bool (H, W); those of a class are joined.

        Raises:
            ValueError: It covers nothing.
        """
        if not mask.any():
            raise ValueError(f'it covers no pixel of {self.width} x {self.height}')
        self._drawn[label] = self._drawn[label] | mask if label in self._drawn else mask

    def outline(self, label: str, ring: Sequence[float] | np.ndarray) -> None:
        """What is inside a ring of corners: (n, 2), or x, y, x, y, ...

        Raises:
            ValueError: It covers nothing, or see :func:`mmfss.regions.filled`.
        """
        corners = np.array(ring, np.float64).reshape(-1, 2)
        self.draw(label, filled([(corners,)], self.height, self.width))

    def box(self, label: str, ring: Sequence[float] | np.ndarray) -> None:
        """The box around a ring of corners, see :meth:`outline`, as far as it is in the photo."""
        inside = np.clip(np.reshape(ring, (-1, 2)), 0, [self.width, self.height])
        (left, top), (right, bottom) = inside.min(0).tolist(), inside.max(0).tolist()
        self._boxes.setdefault(label, []).append(Prompt(box=(left, top, right, bottom)))

    def point(self, label: str, place: np.ndarray, on_object: bool = True) -> None:
        """A point (2,) on the object, or off it."""
        x, y = np.clip(place, 0, [self.width - 1, self.height - 1]).tolist()
        self._points.setdefault(label, []).append((x, y, int(on_object)))

    def masks(self, propose: Propose) -> dict[str, np.ndarray]:
        """Class -> bool (H, W), some pixel of which is True. The background is no class: where it
        is marked, that is left out."""
        found = {label: mask for label, mask in self._drawn.items() if not _is_background(label)}
        for label in {**self._drawn, **self._boxes, **self._points}:
            if _is_background(label):
                self.notes.append(f'{label!r} is what is no class, and needs no support: left out')
                continue
            if label in self._drawn:
                continue
            prompts = list(self._boxes.get(label, ()))
            if points := self._points.get(label):
                places = tuple((x, y) for x, y, _ in points)
                prompts.append(Prompt(points=places, labels=tuple(on for *_, on in points)))
            for prompt in prompts:
                try:
                    proposal = propose(prompt)
                except ValueError as error:
                    self.notes.append(f'{label}: {error}')
                    continue
                mask = np.asarray(proposal.mask, bool)
                found[label] = found[label] | mask if label in found else mask
                if how := getattr(proposal, 'how', ''):
                    self.notes.append(
                        f'{label}: a box became a mask by {how}, as no heads for prompts are at '
                        'hand or they gave another object; draw the mask for a better one'
                    )
        return found


def _is_background(label: str) -> bool:
    return label.strip().casefold() == 'background'


@dataclass(frozen=True)
class Found:
    """An object of a prediction.

    Attributes:
        label: 1..N.
        name: of its class.
        mask: bool (H, W).
        box: x, y, width, height in pixels.
        score: in [0, 1].
    """

    label: int
    name: str
    mask: np.ndarray
    box: tuple[int, int, int, int]
    score: float


def objects_in(prediction: Prediction) -> Iterator[Found]:
    """The objects of a prediction, class by class, see :mod:`mmfss.labelling.annotations`; those
    that are much smaller than the largest of their class are left out."""
    objects = objects_of(prediction.labels, len(prediction.classes), prediction)
    largest: dict[int, int] = {}
    for one in objects:
        largest[one['category_id']] = max(largest.get(one['category_id'], 0), one['area'])
    for one in objects:
        label = one['category_id']
        if one['area'] >= SMALLEST * largest[label]:
            mask = decoded(one['segmentation'], *prediction.labels.shape)
            x, y, width, height = one['bbox']
            name = prediction.classes[label - 1]
            yield Found(label, name, mask, (x, y, width, height), one['score'])
