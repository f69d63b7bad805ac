"""Cache of what frozen encoders give for an image: in memory up to a budget, and on disk."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from mmfss.features.disk import CacheStats, DiskStore
from mmfss.features.entries import pack

_KEY = re.compile(r'[0-9a-z_-]{1,200}')  # parts of file names, also where case does not count


@MODELS.register_module()
class FeatureCache:
    """Features by encoder key and image key.

    Both keys are hashes made by the caller of all that determines the features
    (:func:`mmfss.features.fingerprint.fingerprint` for the encoder; file and transforms, or
    pixels, for the image): what changed has another key, and an entry is never stale. What is
    returned is bit for bit what was put in, with its dtype, shape and strides.

    Tensors that come out of the cache or went into it are shared, and must never be changed in
    place. With ``memory_bytes=0`` and ``directory=None`` nothing is kept.

    Processes and machines may share a directory (:mod:`mmfss.features.disk`). Trouble with the
    disk is said once, and costs time but never the run or the result.

    Args:
        directory: folder on disk, ``~`` is expanded; None for memory alone.
        memory_bytes: budget in memory, on whichever device the tensors are; least recently used
            entries go first, and one that is larger is not kept.
        disk_bytes: budget on disk for all encoders; None for no limit. When it is used up no more
            is written.
        training: whether the model should also keep what it is given in training mode.

    Raises:
        ValueError: a budget that is no integer >= 0, a directory that is a file.
    """

    def __init__(
        self,
        directory: str | None = None,
        memory_bytes: int = 2**30,
        disk_bytes: int | None = None,
        training: bool = False,
    ) -> None:
        _check_bytes('memory_bytes', memory_bytes)
        if disk_bytes is not None:
            _check_bytes('disk_bytes', disk_bytes)
        if not isinstance(training, bool):
            raise ValueError(f'feature_cache.training must be True or False, got {training!r}')
        self.directory = _checked_directory(directory)
        self.memory_bytes = memory_bytes
        self.disk_bytes = disk_bytes
        self.training = training
        self.stats = CacheStats()
        self._opened: set[str] = set()
        self._shared: set[str] = set()  # those that the disk knows
        self._memory = MemoryStore(memory_bytes)
        self._disk: DiskStore | None = None
        if self.directory is not None:
            self._disk = DiskStore(self.directory, disk_bytes, self.stats)

    def open(self, encoder: str, about: Mapping[str, Any], share: bool = True) -> None:
        """Begin to use an encoder key; calls after the first do nothing.

        Args:
            encoder: key of 1 to 200 characters out of a-z, 0-9, - and _.
            about: what the encoder is, of JSON types; written beside its entries.
            share: whether entries may go to the disk at all.
        """
        if encoder in self._opened:
            return
        _check_key('encoder', encoder)
        self._opened.add(encoder)
        if self._disk is not None and share:
            self._disk.open(encoder, about)
            self._shared.add(encoder)

    def get(
        self, encoder: str, image: str, device: torch.device | str = 'cpu'
    ) -> list[Tensor] | None:
        """Features of an image on ``device``, not to be changed in place; None if there are none.

        Raises:
            ValueError: the encoder key was not opened, or a key has other characters.
        """
        self._check(encoder, image)
        features = self._memory.get((encoder, image))
        if features is not None:
            self.stats.memory_hits += 1
        elif encoder in self._shared and self._disk is not None:
            features = self._disk.read(encoder, image)
            self.stats.disk_hits += features is not None
        if features is None:
            self.stats.misses += 1
            return None
        with torch.inference_mode(False):
            moved = [tensor.to(device) for tensor in features]
        self._memory.put((encoder, image), moved)
        return list(moved)

    def put(self, encoder: str, image: str, features: Sequence[Tensor]) -> list[Tensor]:
        """Keep the features of an image.

        Returns:
            The features as :meth:`get` will give them, on their device. To go on with these makes
            even the strides of the tensors the same in a run that computed them and in one that
            found them.

        Raises:
            ValueError: as :meth:`get`; a feature that is not a dense tensor.
        """
        self._check(encoder, image)
        packed = pack(features)
        self._memory.put((encoder, image), packed)
        if encoder in self._shared and self._disk is not None:
            self._disk.write(encoder, image, packed)
        return list(packed)

    @property
    def shares(self) -> bool:
        """Whether what is put in also goes where other processes find it, as far as is known."""
        return self._disk is not None and self._disk.writes and self._disk.has_room

    def _check(self, encoder: str, image: str) -> None:
        if encoder not in self._opened:
            raise ValueError(
                f'encoder key {encoder!r} is not open; call open(encoder, about) before get and put'
            )
        _check_key('image', image)

    def __deepcopy__(self, memo: dict) -> FeatureCache:
        return self  # a copy of a model uses the same cache: keys tell their features apart

    def __reduce__(self) -> tuple:
        # to another process goes what the cache is, not what it holds
        directory = None if self.directory is None else str(self.directory)
        return type(self), (directory, self.memory_bytes, self.disk_bytes, self.training)


class MemoryStore:
    """Lists of tensors up to a budget in bytes; the least recently used go first."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._entries: OrderedDict[tuple[str, str], list[Tensor]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: tuple[str, str]) -> list[Tensor] | None:
        """The entry, which is now the most recently used."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: tuple[str, str], features: list[Tensor]) -> None:
        """Keep an entry, if it fits, in the place of one of the same key."""
        size = _size(features)
        with self._lock:
            self.bytes -= _size(self._entries.pop(key, []))
            if size > self.budget:
                return
            self._entries[key] = features
            self.bytes += size
            while self.bytes > self.budget:
                self.bytes -= _size(self._entries.popitem(last=False)[1])


def _size(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _check_bytes(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(
            f'feature_cache.{name} must be a number of bytes, an integer >= 0 such as 2**30'
            f'{" (or None for no limit)" if name == "disk_bytes" else ""}, got {value!r}'
        )


def _check_key(what: str, key: object) -> None:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ValueError(
            f'{what} key must be 1 to 200 characters out of a-z, 0-9, - and _ (a hash), got {key!r}'
        )


def _checked_directory(directory: object) -> Path | None:
    if directory is None:
        return None
    if not isinstance(directory, str | os.PathLike) or not str(directory):
        raise ValueError(
            f'feature_cache.directory must be the path of a folder, or None, got {directory!r}'
        )
    path = Path(directory).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise ValueError(
            f'feature_cache.directory must be the path of a folder, but {path} is a file; give '
            'another, or None to keep features in memory alone'
        )
    return path
