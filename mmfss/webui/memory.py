"""What the page holds in memory for its visitors, at most."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

MAX_SESSIONS = 64
"""Visitors whose data is kept by a page that keeps nothing on disk; the one who was idle longest
goes first."""
MAX_IN_MEMORY = 16
"""Sessions in memory where they stay on disk; the others are read again when they are asked for."""
MAX_BYTES = 2 * 2**30
"""Of the pictures, supports and results of all visitors together."""


def bytes_of(kept: Any) -> int:
    """Bytes of the arrays, tensors and texts in a record, container or one by itself; those that
    lie in a file do not count."""
    if isinstance(kept, np.memmap):
        return 0
    if isinstance(kept, (np.ndarray, torch.Tensor)):
        return int(kept.nbytes)
    if isinstance(kept, (str, bytes)):
        return len(kept)
    if is_dataclass(kept) and not isinstance(kept, type):
        return sum(bytes_of(getattr(kept, field.name)) for field in fields(kept))
    if isinstance(kept, Mapping):
        return sum(bytes_of(value) for value in kept.values())
    if isinstance(kept, (tuple, list)):
        return sum(bytes_of(value) for value in kept)
    return 0


def give_back() -> None:
    """Hand what was freed back to the system. glibc keeps it: pieces of pictures of many threads,
    between which little of it is used again (1 MB a visit and more; 0.02 s to give it back)."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:  # of glibc alone
        trim(0)
