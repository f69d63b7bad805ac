"""Is a class in an image? Precision and recall of object scores. Pure functions.

M (image, class) pairs, each with a score and the truth.
"""

from __future__ import annotations

import numpy as np


def precision_recall(
    scores: np.ndarray, there: np.ndarray, threshold: float
) -> tuple[float, float]:
    """Of saying 'there' from a threshold on.

    Args:
        scores: (M,).
        there: bool (M,), the truth.
        threshold: a score that is equal counts as there.

    Returns:
        precision and recall in [0, 1]; NaN where there is nothing to divide by.
    """
    said = scores >= threshold
    hits = float((said & there).sum())
    with np.errstate(invalid='ignore'):
        return float(np.divide(hits, said.sum())), float(np.divide(hits, there.sum()))


def roc_auc(scores: np.ndarray, there: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a pair with the class scores above one without,
    ties counting half. NaN where one kind is missing."""
    with_it, without = np.sort(scores[there]), np.sort(scores[~there])
    if not len(with_it) or not len(without):
        return float('nan')
    below = np.searchsorted(without, with_it, 'left')
    up_to = np.searchsorted(without, with_it, 'right')
    return float((below + up_to).sum() / 2 / len(with_it) / len(without))


def best_threshold(scores: np.ndarray, there: np.ndarray) -> float:
    """The threshold with the largest mean of recall and specificity (the part of the pairs
    without the class that are told so), in steps of 0.01; the middle of those that share it.

    Unlike F1 this does not depend on how often the classes occur.

    Raises:
        ValueError: no pair has the class, or all have.
    """
    if there.all() or not there.any():
        raise ValueError(
            'a threshold needs images that show the class and others that do not, got '
            f'{int(there.sum())} and {int((~there).sum())}'
        )
    steps = np.arange(101) / 100
    right = np.array([(scores[there] >= t).mean() + (scores[~there] < t).mean() for t in steps])
    return float(np.round(steps[right >= right.max() - 1e-12].mean(), 2))
