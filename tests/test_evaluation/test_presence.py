"""Precision, recall and thresholds of object scores, against plain loops."""

import numpy as np
import pytest

from mmfss.evaluation.presence import best_threshold, precision_recall, roc_auc


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    there = rng.random(60) < 0.3
    scores = np.round(0.3 * rng.random(60) + 0.4 * there + 0.2 * rng.random(60), 1)
    return scores, there


def test_precision_and_recall_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.2])
    there = np.array([True, False, True, True])
    assert precision_recall(scores, there, 0.7) == pytest.approx((2 / 3, 2 / 3))
    assert precision_recall(scores, there, 0.85) == pytest.approx((1, 1 / 3))
    precision, recall = precision_recall(scores, there, 0.95)
    assert np.isnan(precision) and recall == 0


def test_auc_by_comparing_all(pairs):
    scores, there = pairs
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[there] for b in scores[~there]]
    assert roc_auc(scores, there) == pytest.approx(np.mean(wins))
    assert roc_auc(-scores, there) == pytest.approx(1 - np.mean(wins))
    assert np.isnan(roc_auc(scores, np.zeros(60, bool)))


def test_best_threshold_by_trying_all(pairs):
    scores, there = pairs
    found = best_threshold(scores, there)

    def balanced(threshold):
        return np.mean(scores[there] >= threshold) + np.mean(scores[~there] < threshold)

    assert balanced(found) == pytest.approx(max(balanced(step / 100) for step in range(101)))
    often = np.concatenate([scores, *[scores[~there]] * 5])  # absent ones six times as often
    assert (
        best_threshold(often, np.concatenate([there, np.zeros(5 * (~there).sum(), bool)])) == found
    )
    apart = best_threshold(np.array([0.2, 0.8]), np.array([False, True]))
    assert apart == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match='others that do not, got 0 and 60'):
        best_threshold(scores, np.zeros(60, bool))
