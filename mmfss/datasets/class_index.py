"""Which classes each image holds, and how many pixels of each: built once, cached, checked."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mmfss.datasets.io import read_mask

IGNORE = 255
FORMAT = 1
"""Number of the cache format; a cache of another number is rebuilt."""


@dataclass(frozen=True)
class ClassIndex:
    """Pixels of each class in each image.

    Args:
        areas: ``{image id: {class id 1..C: pixels > 0}}`` in the order of the image list;
            background and ignored pixels are not counted.
    """

    areas: dict[str, dict[int, int]]

    def __len__(self) -> int:
        return len(self.areas)

    def classes(self, image: str, min_area: int = 1) -> tuple[int, ...]:
        """Class ids with at least ``min_area`` pixels in an image, ascending."""
        return tuple(sorted(c for c, area in self.areas[image].items() if area >= min_area))

    def images(self, class_id: int, min_area: int = 1) -> tuple[str, ...]:
        """Images with at least ``min_area`` pixels of a class, in the order of the list."""
        return tuple(i for i, areas in self.areas.items() if areas.get(class_id, 0) >= min_area)


def label_counts(mask: np.ndarray) -> dict[int, int]:
    """Exact number of pixels per value of a uint8 mask.

    Sums run lengths, which on label masks is several times faster than counting pixels.
    """
    flat = mask.ravel()
    if not flat.size:
        return {}
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    counts = np.bincount(flat[starts], weights=lengths)  # float64 is exact below 2**53
    return {int(v): int(counts[v]) for v in np.flatnonzero(counts)}


def mask_areas(path: str | Path, num_classes: int) -> dict[int, int]:
    """Pixels of the classes 1..C in a mask file.

    Raises:
        FileNotFoundError, ValueError: The file cannot be read, or holds values outside
            0..C and 255; the message names the file and the values.
    """
    counts = label_counts(read_mask(path))
    unknown = sorted(v for v in counts if v > num_classes and v != IGNORE)
    if unknown:
        raise ValueError(
            f'mask {path} has values outside its class table: {unknown}; allowed are 0 '
            f'(background), 1..{num_classes} and {IGNORE} (ignored); convert its labels or '
            'choose the dataset class that they belong to'
        )
    return {v: n for v, n in counts.items() if v not in (0, IGNORE)}


def fingerprint(masks: Mapping[str, str | Path], num_classes: int) -> str:
    """Hash of ids, file names, sizes and modification times: changes when the data change."""
    digest = hashlib.sha256(f'{FORMAT} {num_classes}'.encode())
    for image, path in masks.items():
        try:
            stat = os.stat(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'mask file not found: {path}') from error
        digest.update(
            f'\n{image}\t{os.path.basename(path)}\t{stat.st_size}\t{stat.st_mtime_ns}'.encode()
        )
    return digest.hexdigest()


def _read_cache(path: Path, key: str) -> dict[str, dict[int, int]] | None:
    """The cached areas, or None when there are none, or they are stale or damaged."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        if content['format'] != FORMAT or content['fingerprint'] != key:
            return None
        return {
            image: {int(c): int(n) for c, n in areas.items()}
            for image, areas in content['areas'].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_cache(path: Path, key: str, areas: dict[str, dict[int, int]]) -> None:
    """Write through a temporary file, so that no reader ever meets half a cache."""
    content = json.dumps(dict(format=FORMAT, fingerprint=key, areas=areas))
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            'w', encoding='utf-8', dir=path.parent, delete=False, prefix=f'.{path.name}.'
        ) as file:
            temporary = file.name
            file.write(content)
        os.chmod(temporary, 0o644)  # temporary files are private, the cache may be shared
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        warnings.warn(
            f'the class index could not be stored in {path} ({error}); it is built '
            'again at the next start. Give a writable class_index_file to keep it',
            stacklevel=3,
        )


def build_class_index(
    masks: Mapping[str, str | Path],
    num_classes: int,
    cache_file: str | Path | None = None,
    num_workers: int | None = None,
) -> ClassIndex:
    """Count the pixels of each class in each mask, or take the counts from a fresh cache.

    Args:
        masks: ``{image id: mask file}``; the order is kept.
        num_classes: C; mask values must be in 0..C or 255.
        cache_file: JSON file to keep the counts in. It carries a fingerprint of the masks and
            is rebuilt when they changed; a folder that cannot be written to is warned about.
            None reads and writes no cache.
        num_workers: Threads that read masks (decoding releases the interpreter lock);
            None takes the number of CPUs, at most 16.

    Raises:
        FileNotFoundError, ValueError: A mask is missing, unreadable, or holds unknown values.
    """
    key = '' if cache_file is None else fingerprint(masks, num_classes)
    if cache_file is not None:
        cached = _read_cache(Path(cache_file), key)
        if cached is not None and list(cached) == list(masks):
            return ClassIndex(cached)
    workers = min(os.cpu_count() or 1, 16) if num_workers is None else max(1, num_workers)
    count = partial(mask_areas, num_classes=num_classes)
    with ThreadPoolExecutor(workers) as pool:
        try:
            areas = dict(zip(masks, pool.map(count, masks.values()), strict=True))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if cache_file is not None:
        _write_cache(Path(cache_file), key, areas)
    return ClassIndex(areas)
