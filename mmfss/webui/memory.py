"""What the page holds in memory for its visitors, at most."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch

MAX_SESSIONS = 64
"""Visitors whose data is kept; the one who was idle longest goes first."""
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


class Weighed(Protocol):
    """A session, as far as it is looked at here."""

    def nbytes(self) -> int:
        """Bytes that it holds."""

    def close_if_idle(self) -> bool:
        """Give all of it up, unless a step runs; whether that was done."""


class Visitors:
    """The sessions, by when their visitors last did something. Where they hold more than
    ``most_bytes`` together, those idle longest are closed; their number is for Gradio to bound.

    Args:
        most_bytes: of all; one who is at work is never closed, however much it holds.
    """

    def __init__(self, most_bytes: int = MAX_BYTES) -> None:
        self.most_bytes = most_bytes
        self._bytes: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def nbytes(self) -> int:
        """Bytes that all sessions hold, each as after its last step."""
        return sum(self._bytes.values())

    def seen(self, session: Weighed) -> None:
        """Note that a step of a session has ended."""
        with self._lock:
            self._bytes.pop(session, None)
            self._bytes[session] = session.nbytes()
            for other in [*self._bytes]:
                if self.nbytes() <= self.most_bytes:
                    break
                if other is not session and other.close_if_idle():
                    del self._bytes[other]
            _give_back()


def _give_back() -> None:
    """Hand what was freed back to the system. glibc keeps it: pieces of pictures of many threads,
    between which little of it is used again (1 MB a visit and more; 0.02 s to give it back)."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:  # of glibc alone
        trim(0)
