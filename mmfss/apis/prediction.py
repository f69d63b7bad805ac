"""What the inferencer says of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mmfss.apis.nway import decide
from mmfss.datasets.classes import label_palette
from mmfss.visualization.overlays import overlay_labels

SCORE_SPREAD = 0.1
"""Distance of an object score from its threshold at which the odds are e : 1."""


@dataclass(frozen=True)
class Prediction:
    """N classes in one image of H x W pixels.

    Attributes:
        classes: names of the labels 1..N.
        scores: (N,) float32 in [0, 1], object scores: is the class there?
        thresholds: (N,) float32; a class is there from its threshold on.
        logits: (N, S, S) float32 at the model's size; >= 0 where a class would be if it is there.
        labels: uint8 (H, W): 0 background, 1..N the classes.
        source: path of the image, or what it was called.
    """

    classes: tuple[str, ...]
    scores: np.ndarray
    thresholds: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    source: str

    @classmethod
    def make(
        cls,
        classes: tuple[str, ...],
        scores: np.ndarray,
        thresholds: np.ndarray,
        logits: np.ndarray,
        size: tuple[int, int],
        source: str,
    ) -> Prediction:
        """Decide the labels (:func:`mmfss.apis.nway.decide`) at ``size`` = (height, width)."""
        tensors = [torch.from_numpy(x) for x in (logits, scores, thresholds)]
        labels = decide(tensors[0], tensors[1], tensors[2], size).numpy()
        return cls(classes, scores, thresholds, logits, labels, source)

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the classes that are there: score at or above the threshold, and some pixel."""
        seen = set(np.flatnonzero(np.bincount(self.labels.ravel())).tolist())
        return tuple(name for label, name in enumerate(self.classes, 1) if label in seen)

    @property
    def palette(self) -> list[list[int]]:
        """RGB colours of background and classes."""
        return label_palette(len(self.classes))

    def mask(self, name: str) -> np.ndarray:
        """Where a class is: bool (H, W).

        Raises:
            ValueError: No class of that name.
        """
        if name not in self.classes:
            raise ValueError(f'there is no class {name!r}; there are {", ".join(self.classes)}')
        return self.labels == self.classes.index(name) + 1

    def confidence(self, name: str) -> float:
        """Mean probability of the mask of a class before it competes with others, in [0.5, 1];
        0 where the mask is empty."""
        logits = self.logits[self.classes.index(name)]
        inside = torch.from_numpy(logits[logits >= 0]).sigmoid_()
        return float(inside.mean(dtype=torch.float64)) if len(inside) else 0.0

    @property
    def certainty(self) -> float:
        """How sure the labels are, in 0..1: the probability of the label, mean over the pixels.

        A class has the probability that it is in the image, which is one half at its threshold,
        times that of the pixel in its mask; background has what the strongest class leaves. On the
        model of the demo it ranks images nearly as the errors do (docs/labelling.md).
        """
        margin = (self.scores - self.thresholds).astype(np.float64) / SCORE_SPREAD
        there = torch.from_numpy((1 / (1 + np.exp(-margin))).astype(np.float32))
        logits, scores, thresholds = (
            torch.from_numpy(x) for x in (self.logits, self.scores, self.thresholds)
        )
        height, width = logits.shape[-2:]
        labels = decide(logits, scores, thresholds, (height, width)).long()[None]
        own = logits.sigmoid().mul_(there[:, None, None])
        chosen = own.gather(0, (labels - 1).clamp_(min=0))
        likely = torch.where(labels > 0, chosen, 1 - own.amax(0, keepdim=True))
        return float(likely.mean(dtype=torch.float64))

    def with_threshold(self, threshold: float | Mapping[str, float]) -> Prediction:
        """The same image decided anew; nothing is encoded.

        Raises:
            ValueError: See :func:`check_threshold`.
        """
        thresholds = check_threshold(threshold, self.classes)
        return Prediction.make(
            self.classes, self.scores, thresholds, self.logits, self.labels.shape, self.source
        )

    def draw(self, image: np.ndarray, opacity: float = 0.5) -> np.ndarray:
        """The image with tinted classes and their outlines: uint8 (H, W, 3) BGR.

        Args:
            image: uint8 (H, W, 3) BGR, the one that was labelled.
            opacity: of the tint, 0..1.

        Raises:
            ValueError: The image has another size.
        """
        if image.shape[:2] != self.labels.shape:
            raise ValueError(
                f'the image is {image.shape[:2]}, the labels are of {self.labels.shape}; give the '
                'image that was labelled, upright'
            )
        colours = [colour[::-1] for colour in self.palette]
        return overlay_labels(image, self.labels, colours, opacity)


def check_threshold(threshold: float | Mapping[str, float], classes: tuple[str, ...]) -> np.ndarray:
    """Thresholds of all classes, float32 (N,).

    Args:
        threshold: one for all, or ``{name: threshold}`` with every class; in [0, 1].
        classes: names of the classes.

    Raises:
        ValueError: A value out of [0, 1], a class without one, or an unknown class.
    """
    if isinstance(threshold, Mapping):
        if set(threshold) != set(classes):
            raise ValueError(
                f'threshold must name every class, {", ".join(classes)}; got {sorted(threshold)}'
            )
        values = [threshold[name] for name in classes]
    else:
        values = [threshold] * len(classes)
    for value in values:
        number = isinstance(value, (int, float, np.floating)) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise ValueError(
                f'a threshold of the object score must be a number in 0..1, got {value!r}; 0 marks '
                'every class in every image'
            )
    return np.array(values, np.float32)
