"""What the folds of a benchmark find in a prepared dataset, for the summaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from mmfss.datasets.folds import Benchmark


def class_areas(mask: np.ndarray) -> dict[int, int]:
    """``{label: pixels}`` of the classes in a label map, without background and 255."""
    areas = np.bincount(mask.ravel(), minlength=256)
    return {label: int(areas[label]) for label in range(1, 255) if areas[label]}


def fold_lines(benchmark: Benchmark, areas: Sequence[Mapping[int, int]]) -> list[str]:
    """A line per fold: images to train on and to test on, and classes that are in none.

    Args:
        benchmark: Its folds and minimum area.
        areas: ``{class id: pixels}`` of each image.
    """
    qualifying = [{c for c, area in a.items() if area >= benchmark.min_area} for a in areas]
    images = Counter(c for classes in qualifying for c in classes)
    lines = []
    for fold in range(benchmark.num_folds):
        split = benchmark.split(fold)
        novel, base = set(split.novel), set(split.base)
        test = sum(bool(classes & novel) for classes in qualifying)
        train = sum(bool(q & base) and not novel & a.keys() for q, a in zip(qualifying, areas))
        absent = [split.name(c) for c in split.novel if not images[c]]
        missing = f'; in none: {", ".join(absent)}' if absent else ''
        lines.append(
            f'  fold {fold}: {train} images with its base classes and no pixel of a novel one, '
            f'{test} with a novel class{missing}'
        )
    return lines
