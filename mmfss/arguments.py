"""Checks of arguments, with messages that name them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def integer(name: str, value: object, low: int) -> int:
    """``value`` if it is an integer >= ``low``, else ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f'{name} must be an integer >= {low}, got {value!r}')
    return int(value)


def optional(name: str, value: object, low: int = 1) -> int | None:
    """As :func:`integer`; None passes."""
    return None if value is None else integer(name, value, low)


def one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """ValueError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f'{name} must be one of {list(allowed)}, got {value!r}')
