"""What the inferencer says of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmfss.apis.nway import Contest, compete, decide
from mmfss.datasets.classes import label_palette
from mmfss.visualization.legend import with_legend
from mmfss.visualization.overlays import class_colours, contrasting, overlay_labels

SCORE_SPREAD = 0.1
"""Distance of an object score from its threshold at which the odds are e : 1."""


@dataclass(frozen=True)
class Marked:
    """N classes in one image of H x W pixels.

    Attributes:
        classes: names of the labels 1..N.
        scores: (N,) float32 in [0, 1], object scores: is the class there?
        thresholds: (N,) float32; a class is there from its threshold on.
        labels: uint8 (H, W): 0 background, 1..N the classes.
        source: path of the image, or what it was called.
    """

    classes: tuple[str, ...]
    scores: np.ndarray
    thresholds: np.ndarray
    labels: np.ndarray
    source: str

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the classes that are there: score at or above the threshold, and some pixel."""
        seen = set(np.flatnonzero(np.bincount(self.labels.ravel())).tolist())
        return tuple(name for label, name in enumerate(self.classes, 1) if label in seen)

    @property
    def palette(self) -> list[list[int]]:
        """RGB colours of background and classes in palette PNGs."""
        return label_palette(len(self.classes))

    def place(self, name: str) -> int:
        """Of a class among the classes, from 0.

        Raises:
            ValueError: No class of that name.
        """
        if name not in self.classes:
            raise ValueError(f'there is no class {name!r}; there are {", ".join(self.classes)}')
        return self.classes.index(name)

    def mask(self, name: str) -> np.ndarray:
        """Where a class is: bool (H, W).

        Raises:
            ValueError: No class of that name.
        """
        return self.labels == self.place(name) + 1

    def draw(self, image: np.ndarray, opacity: float = 0.5, legend: bool = False) -> np.ndarray:
        """The image with tinted classes and their outlines, in colours that are seen on photos
        (:func:`mmfss.visualization.overlays.class_colours`).

        Args:
            image: uint8 (H, W, 3) BGR, the one that was labelled.
            opacity: of the tint, 0..1.
            legend: add a strip below the image, with the classes that are there and their scores.

        Returns:
            uint8 (H, W, 3) BGR; higher with a legend.

        Raises:
            ValueError: The image has another size.
        """
        if image.shape[:2] != self.labels.shape:
            raise ValueError(
                f'the image is {image.shape[:2]}, the labels are of {self.labels.shape}; give the '
                'image that was labelled, upright'
            )
        rgb = class_colours(len(self.classes))
        colours, halos = [c[::-1] for c in rgb], [contrasting(c)[::-1] for c in rgb]
        drawn = overlay_labels(image, self.labels, colours, opacity, halos=halos)
        if not legend:
            return drawn
        there: list[tuple[str, Sequence[int] | None]] = [
            (f'{name} {score:.2f}', colour)
            for name, score, colour in zip(self.classes, self.scores, colours[1:])
            if name in self.present
        ]
        return with_legend(drawn, there or [('nothing found', None)])

    def confidence(self, name: str) -> float:
        """Mean probability of the mask of a class before it competes with others, in [0.5, 1];
        0 where the mask is empty."""
        raise NotImplementedError

    @property
    def certainty(self) -> float:
        """How sure the labels are, in 0..1: the probability of the label, mean over the pixels."""
        raise NotImplementedError

    def sureness(self) -> np.ndarray:
        """Of the label of each pixel: uint8 (H, W), see :func:`sureness_of`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Prediction(Marked):
    """N classes in one image of H x W pixels, seen as a whole.

    Attributes:
        logits: (N, S, S) float32 at the model's size; >= 0 where a class would be if it is there.
        parts: of each class the masks of single objects that its method found, (m, l, l) logits,
            > 0 inside; None of methods that find none.
    """

    logits: np.ndarray
    parts: tuple[np.ndarray | None, ...] = ()

    @classmethod
    def make(
        cls,
        classes: tuple[str, ...],
        scores: np.ndarray,
        thresholds: np.ndarray,
        logits: np.ndarray,
        size: tuple[int, int],
        source: str,
        parts: tuple[np.ndarray | None, ...] = (),
    ) -> Prediction:
        """Decide the labels (:func:`mmfss.apis.nway.decide`) at ``size`` = (height, width)."""
        tensors = [torch.from_numpy(x) for x in (logits, scores, thresholds)]
        labels = decide(tensors[0], tensors[1], tensors[2], size).numpy()
        return cls(classes, scores, thresholds, labels, source, logits, parts)

    def confidence(self, name: str) -> float:
        """Mean probability of the mask of a class before it competes with others, in [0.5, 1];
        0 where the mask is empty."""
        return confidence_of(torch.from_numpy(self.logits[self.place(name)]))

    @property
    def certainty(self) -> float:
        """How sure the labels are, in 0..1: the probability of the label, mean over the pixels; see
        :func:`certainty_of`."""
        logits, scores, thresholds = (
            torch.from_numpy(x) for x in (self.logits, self.scores, self.thresholds)
        )
        return certainty_of(logits, scores, thresholds)

    def sureness(self) -> np.ndarray:
        """Of the label of each pixel: uint8 (H, W), see :func:`sureness_of`."""
        tensors = [torch.from_numpy(x) for x in (self.logits, self.scores, self.thresholds)]
        contest = compete(tensors[0], tensors[1], tensors[2], self.labels.shape)
        return sureness_of(contest, tensors[1])

    def with_threshold(self, threshold: float | Mapping[str, float]) -> Prediction:
        """The same image decided anew; nothing is encoded.

        Raises:
            ValueError: See :func:`check_threshold`.
        """
        thresholds = check_threshold(threshold, self.classes)
        size = (self.labels.shape[0], self.labels.shape[1])
        return Prediction.make(
            self.classes, self.scores, thresholds, self.logits, size, self.source, self.parts
        )


@dataclass(frozen=True)
class TiledPrediction(Marked):
    """N classes in one image that was looked at through windows, see :mod:`mmfss.apis.windows`.

    ``scores`` are the largest of any window.

    Attributes:
        tile_scores: (rows, columns, N) float32, the object scores in each window.
        confidences: (N,), see :attr:`mmfss.apis.windows.Blend.confidences`.
        sure: of :meth:`sureness`; None where it was not asked for.
    """

    tile_scores: np.ndarray
    confidences: np.ndarray
    mean_certainty: float
    sure: np.ndarray | None = None

    def confidence(self, name: str) -> float:
        """Mean probability of the mask of a class, over the windows that show it."""
        return float(self.confidences[self.place(name)])

    @property
    def certainty(self) -> float:
        """That of the windows (:func:`certainty_of`), each by its share of the image."""
        return self.mean_certainty

    def sureness(self) -> np.ndarray:
        """Of the label of each pixel: uint8 (H, W), see :func:`sureness_of`.

        Raises:
            ValueError: It was not asked for when the image was labelled.
        """
        if self.sure is None:
            raise ValueError('how sure single pixels are was not kept; label with sure=True')
        return self.sure


def confidence_of(logits: Tensor) -> float:
    """Mean probability of a mask, of its logits (S, S): in [0.5, 1]; 0 where it is empty."""
    inside = logits[logits >= 0].sigmoid_()
    return float(inside.mean(dtype=torch.float64)) if len(inside) else 0.0


def certainty_of(logits: Tensor, scores: Tensor, thresholds: Tensor) -> float:
    """How sure labels are, in 0..1: the probability of the label, mean over the pixels.

    A class has the probability that it is in the image, which is one half at its threshold, times
    that of the pixel in its mask; background has what the strongest class leaves. On the model of
    the demo it ranks images nearly as the errors do (docs/labelling.md).

    Args:
        logits: (N, S, S) float32.
        scores, thresholds: (N,) float32.
    """
    margin = (scores - thresholds).numpy().astype(np.float64) / SCORE_SPREAD
    there = torch.from_numpy((1 / (1 + np.exp(-margin))).astype(np.float32))
    height, width = logits.shape[-2:]
    labels = decide(logits, scores, thresholds, (height, width)).long()[None]
    own = logits.sigmoid().mul_(there[:, None, None])
    chosen = own.gather(0, (labels - 1).clamp_(min=0))
    likely = torch.where(labels > 0, chosen, 1 - own.amax(0, keepdim=True))
    return float(likely.mean(dtype=torch.float64))


def sureness_of(contest: Contest, scores: Tensor) -> np.ndarray:
    """How sure a label is at each pixel: the object score of its class times the probability of the
    pixel in its mask, in steps of 1/255.

    Args:
        contest: that decided the labels, (height, width).
        scores: (N,) of the classes, or (N, height, width).

    Returns:
        uint8 (height, width), 0 for the background.
    """
    if contest.best is None:
        return np.zeros(contest.labels.shape, np.uint8)
    scores = scores.clamp(min=1e-6)  # as it was multiplied with
    places = (contest.labels.long() - 1).clamp_(min=0)
    own = scores[places] if scores.ndim == 1 else scores.gather(0, places[None])[0]
    # q = s sigmoid(z), of which the contest was given s z
    sure = (contest.best / own).sigmoid_().mul_(own).mul_(255).round_()
    return torch.where(contest.labels > 0, sure, 0).to(torch.uint8).numpy()


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
