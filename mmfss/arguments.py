"""Checks of arguments, with messages that name them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def integer(name: str, value: object, low: int, high: int | None = None) -> int:
    """``value`` if it is an integer >= ``low`` (and <= ``high``), else ValueError."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        number = int(value)
        if low <= number and (high is None or number <= high):
            return number
    allowed = f'>= {low}' if high is None else f'from {low} to {high}'
    raise ValueError(f'{name} must be an integer {allowed}, got {value!r}')


def optional(name: str, value: object, low: int = 1) -> int | None:
    """As :func:`integer`; None passes."""
    return None if value is None else integer(name, value, low)


def one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """ValueError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f'{name} must be one of {list(allowed)}, got {value!r}')
