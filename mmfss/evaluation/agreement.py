"""How far two results for the same images agree, such as those of two runtimes: pure functions and
what collects them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import numpy as np
from torch import Tensor

from mmfss.encoders.runtimes.converted import far_from
from mmfss.evaluation.label_maps import label_ious


def agreement_of(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Of two label maps, 0 background, 1..N classes.

    Args:
        one, other: integers (H, W).

    Returns:
        Mean IoU, in [0, 1], of the classes that any of the two shows, 1 where none does; and the
        share of pixels, in [0, 1], that differ.

    Raises:
        ValueError: shapes that differ.
    """
    if one.shape != other.shape:
        raise ValueError(f'label maps must be of one shape, got {one.shape} and {other.shape}')
    ious = label_ious([(one, other)], int(max(one.max(), other.max())))[1:] / 100
    ious = ious[np.isfinite(ious)]
    return (float(ious.mean()) if len(ious) else 1.0), float(np.mean(one != other))


@dataclass
class Agreement:
    """Collects what two runtimes, ``names[0]`` the one to compare with, gave for some images.

    Attributes:
        names: what they are called.
        sources: of the images.
        ious, shares: of each image, see :func:`agreement_of`.
        features: by encoder, of each image the relative L2 of the level that is farthest off.
        seconds: by name, of each image.
    """

    names: tuple[str, str]
    sources: list[str] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    features: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(
        self,
        source: str,
        labels: Sequence[np.ndarray],
        features: Sequence[Mapping[str, Sequence[Tensor]]],
        seconds: Sequence[float],
    ) -> None:
        """Take an image: label maps, features by encoder and seconds, of each of the two."""
        iou, share = agreement_of(*labels)
        self.sources.append(source)
        self.ious.append(iou)
        self.shares.append(share)
        for name, truth in features[0].items():
            self.features.setdefault(name, []).append(far_from(features[1][name], truth))
        for name, value in zip(self.names, seconds, strict=True):
            self.seconds.setdefault(name, []).append(value)

    def record(self) -> dict[str, Any]:
        """Of JSON types: means, worst values, and those of each image."""
        worst = int(np.argmin(self.ious))
        return dict(
            compared=list(self.names),
            images=len(self.sources),
            iou=dict(mean=fmean(self.ious), worst=self.ious[worst], of=self.sources[worst]),
            share_of_pixels=dict(mean=fmean(self.shares), worst=max(self.shares)),
            features={n: dict(mean=fmean(v), worst=max(v)) for n, v in self.features.items()},
            seconds={name: median(values) for name, values in self.seconds.items()},
            each=[
                dict(source=source, iou=iou, share=share)
                for source, iou, share in zip(self.sources, self.ious, self.shares)
            ],
        )

    def text(self) -> str:
        """What is printed."""
        said, (one, other) = self.record(), self.names
        lines = [f'{other} against {one}, {said["images"]} images']
        for name, far in said['features'].items():
            lines.append(
                f'features of {name}: relative L2 {far["mean"]:.2g}, at most {far["worst"]:.2g}'
            )
        iou, seconds = said['iou'], said['seconds']
        mean, worst = (100 * share for share in said['share_of_pixels'].values())
        lines += [
            f'masks: mean IoU {iou["mean"]:.5f}, at least {iou["worst"]:.5f} ({iou["of"]})',
            f'pixels that differ: {mean:.3f} %, at most {worst:.3f} %',
            f'an image: {seconds[one]:.2f} s by {one}, {seconds[other]:.2f} s by {other} (medians)',
        ]
        return '\n'.join(lines)
