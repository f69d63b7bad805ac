"""Masks with holes, several parts, one pixel, at the border."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def drawn(text: str) -> np.ndarray:
    """A mask out of its rows, with # for the pixels of the region."""
    return np.array([[c == '#' for c in line] for line in text.split('/')])


CASES = {
    'one pixel': drawn('.../.#./...'),
    'a hole': drawn('####/#..#/####'),
    'holes that touch': drawn('#####/#.###/##.##/#####'),
    'an island in a hole': drawn('#####/#...#/#.#.#/#...#/#####'),
    'several parts': drawn('##..#/....#/#..../##..#'),
    'parts that touch at a corner': drawn('#.#/.#./#.#'),
    'the border': drawn('####/#..#/#..#'),
    'all of it': drawn('###/###'),
    'a single row': drawn('.##.#'),
    'nothing': drawn('.../...'),
}


def some(number: int = 200, seed: int = 0) -> Iterator[np.ndarray]:
    """The cases above, and noise of every density."""
    yield from CASES.values()
    rng = np.random.default_rng(seed)
    for _ in range(number):
        height, width = rng.integers(1, 16, 2)
        yield rng.random((height, width)) < rng.choice([0.1, 0.5, 0.9, 1.0])
