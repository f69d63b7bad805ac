"""What the folds of a benchmark find in a prepared dataset, for the summaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from mmfss.datasets.folds import Benchmark

Areas = Mapping[int, int]


def mask_values(mask: np.ndarray) -> tuple[int, ...]:
    """The values that occur in a mask (uint8), ascending."""
    return tuple(v for v, count in enumerate(Image.fromarray(mask).histogram()) if count)


def class_areas(mask: np.ndarray) -> dict[int, int]:
    """``{label: pixels}`` of the classes in a label map (uint8), without background and 255."""
    areas = Image.fromarray(mask).histogram()  # numpy's bincount would copy to 64 bits
    return {label: areas[label] for label in range(1, 255) if areas[label]}


def fold_lines(
    benchmark: Benchmark, train: Sequence[Areas] | None, test: Sequence[Areas] | None
) -> list[str]:
    """A line per fold: images that it trains and tests on, and classes that it cannot test.

    Training images have a base class at the minimum area and no pixel of a novel one; test images
    have a novel class at the minimum area.

    Args:
        benchmark: Its folds and minimum area.
        train, test: ``{class id: pixels}`` of each image of the split; None leaves it out.
    """
    lines = []
    for fold in range(benchmark.num_folds):
        split = benchmark.split(fold)
        counts = []
        if train is not None:
            fit = sum(
                bool(_qualifying(a, benchmark) & set(split.base))
                and not a.keys() & set(split.novel)
                for a in train
            )
            counts.append(f'{fit} training images')
        if test is not None:
            found = [_qualifying(a, benchmark) & set(split.novel) for a in test]
            counts.append(f'{sum(map(bool, found))} test images')
            absent = [split.name(c) for c in split.novel if c not in set().union(*found)]
            if absent:
                counts.append(f'no test image of {", ".join(absent)}')
        lines.append(f'  fold {fold}: {", ".join(counts)}')
    return lines


def _qualifying(areas: Areas, benchmark: Benchmark) -> set[int]:
    return {class_id for class_id, area in areas.items() if area >= benchmark.min_area}
