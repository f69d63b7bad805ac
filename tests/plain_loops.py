"""Formulas that methods share, as loops over positions: oracles for tests."""

from __future__ import annotations

import numpy as np


def resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, corners on corners."""
    height, width = values.shape
    out = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            v = y * (height - 1) / max(size[0] - 1, 1)
            u = x * (width - 1) / max(size[1] - 1, 1)
            i, j = min(int(v), max(height - 2, 0)), min(int(u), max(width - 2, 0))
            p, q = min(i + 1, height - 1), min(j + 1, width - 1)
            upper = values[i, j] * (1 - (u - j)) + values[i, q] * (u - j)
            lower = values[p, j] * (1 - (u - j)) + values[p, q] * (u - j)
            out[y, x] = upper * (1 - (v - i)) + lower * (v - i)
    return out


def average(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total, weight = np.zeros(len(features)), 0.0
    for y, x in np.ndindex(weights.shape):
        total += weights[y, x] * features[:, y, x]
        weight += weights[y, x]
    return total / (weight + 0.0005)


def cosines(features: np.ndarray, vector: np.ndarray) -> np.ndarray:
    out = np.zeros(features.shape[1:])
    for y, x in np.ndindex(out.shape):
        one = features[:, y, x]
        length = np.sqrt((one * one).sum()) * np.sqrt((vector * vector).sum())
        out[y, x] = (one * vector).sum() / (length + 1e-7)
    return out
