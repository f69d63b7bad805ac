"""Jobs for the tests of ``mmfss.datasets.preparation.jobs``, importable by worker processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from mmfss.datasets.io import save_png
from mmfss.datasets.preparation.jobs import Done, read_complete


def paint(number: int) -> np.ndarray:
    """A random mask of 150 x 150, about 20 KB as a file."""
    return np.random.default_rng(number).integers(0, 99, (150, 150), dtype=np.uint8)


def slow_job(number: int, folder: Path) -> Done:
    """A mask that takes 20 ms to paint, unless it is there."""
    path = folder / f'{number:03}.png'
    if read_complete(path, (150, 150)) is not None:
        return Done(kept=1)
    time.sleep(0.02)
    save_png(path, paint(number))
    return Done(written=1)


def bad_job(number: int) -> Done:
    """Fails for every third number."""
    if number % 3 == 0:
        raise ValueError(f'number {number} is bad')
    return Done(written=1, result=number)


def end_process(number: int) -> Done:
    """As if the system had killed the worker."""
    os._exit(9)
