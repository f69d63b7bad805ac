"""IoU of label maps over background and N classes, as mmseg's ``IoUMetric`` has it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from mmseg.evaluation import IoUMetric


def label_ious(pairs: Iterable[tuple[np.ndarray, np.ndarray]], num_classes: int) -> np.ndarray:
    """IoU of each label over all pixels of all images.

    Args:
        pairs: (labels, truth), uint8 (H, W) of 0..N; pixels of 255 in the truth are left out.
        num_classes: N, without the background.

    Returns:
        float64 (N + 1,) in percent, background first; NaN for a label that is in neither.

    Raises:
        ValueError: Labels and truth of an image differ in size.
    """
    both, either = torch.zeros(2, num_classes + 1, dtype=torch.float64)
    for labels, truth in pairs:
        if labels.shape != truth.shape:
            raise ValueError(
                f'labels are {labels.shape}, their truth {truth.shape}; give maps of one image'
            )
        tensors = torch.from_numpy(labels), torch.from_numpy(truth)
        areas = IoUMetric.intersect_and_union(*tensors, num_classes + 1, 255)
        both, either = both + areas[0], either + areas[1]
    return (100 * both / either).numpy()
