"""Which classes each image holds, and how many pixels of each: built once, cached, checked."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import current_process
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmfss.datasets.io import read_mask
from mmfss.datasets.pool import in_processes
from mmfss.files import write_text

IGNORE = 255
_MANY, _CHUNK = 1000, 64  # masks from which on processes are worth while; masks at a time
Masks = str | os.PathLike | Mapping[int, str | os.PathLike]
"""The mask of an image: a label map, or a mask of {0, 1, 255} for each of its classes."""
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


def class_areas(mask: np.ndarray) -> dict[int, int]:
    """``{label: pixels}`` of the classes in a label map (uint8), without background and 255."""
    return {v: n for v, n in label_counts(mask).items() if v not in (0, IGNORE)}


def mask_areas(masks: Masks, num_classes: int) -> dict[int, int]:
    """Pixels > 0 of the classes 1..C in the mask of an image.

    Raises:
        FileNotFoundError, ValueError: The file cannot be read, or holds values outside
            0..C (0 and 1 for the mask of one class) and 255; the message names the file and the
            values.
    """
    if not isinstance(masks, Mapping):
        return _areas(masks, num_classes, f'1..{num_classes}')
    areas = {}
    for class_id, path in masks.items():
        if not 1 <= class_id <= num_classes:
            raise ValueError(
                f'mask {path} is of class {class_id}, allowed are 1..{num_classes}; prepare the '
                'dataset anew'
            )
        areas[class_id] = _areas(path, 1, '1 (the class)').get(1, 0)
    return {c: area for c, area in areas.items() if area}


def _areas(path: str | os.PathLike, highest: int, allowed: str) -> dict[int, int]:
    counts = label_counts(read_mask(path))
    unknown = sorted(v for v in counts if v > highest and v != IGNORE)
    if unknown:
        raise ValueError(
            f'mask {path} has values outside its class table: {unknown}; allowed are 0 '
            f'(background), {allowed} and {IGNORE} (ignored); convert its labels or '
            'choose the dataset class that they belong to'
        )
    return {v: n for v, n in counts.items() if v not in (0, IGNORE)}


def fingerprint(masks: Mapping[str, Masks], num_classes: int) -> str:
    """Hash of ids, file names, sizes and times: changes when the data change, also where a file of
    equal size has been given the time of the one before it (mtime can be set, ctime cannot)."""
    digest = hashlib.sha256(f'{FORMAT} {num_classes}'.encode())
    for image, files in masks.items():
        by_class: Mapping = files if isinstance(files, Mapping) else {'': files}
        for class_id, path in by_class.items():
            try:
                stat = os.stat(path)
            except FileNotFoundError as error:
                raise FileNotFoundError(f'mask file not found: {path}') from error
            name = (f'{class_id}:' if class_id else '') + os.path.basename(path)
            digest.update(f'\n{image}\t{name}\t{stat.st_size}\t{stat.st_mtime_ns}'.encode())
            digest.update(f'\t{stat.st_ctime_ns}'.encode())
    return digest.hexdigest()


def user_cache_file(path: str | os.PathLike) -> Path:
    """Where a cache file goes when its folder cannot be written to."""
    root = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    folder = hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:16]
    return Path(root) / 'mmfss' / folder / os.path.basename(path)


def build_class_index(
    masks: Mapping[str, Masks],
    num_classes: int,
    cache_file: str | os.PathLike | None = None,
    num_workers: int | None = None,
    fallback_file: str | os.PathLike | None = None,
) -> ClassIndex:
    """Count the pixels of each class in each mask, or take the counts from a fresh cache.

    Args:
        masks: ``{image id: its mask}``; the order is kept.
        num_classes: C; values of label maps must be in 0..C or 255.
        cache_file: JSON file to keep the counts in. It carries a fingerprint of the masks and
            is rebuilt when they changed; a folder that cannot be written to is warned about.
            None reads and writes no cache.
        num_workers: Processes that read masks; None takes the number of CPUs, at most 16, and
            one for few masks.
        fallback_file: Used where ``cache_file`` cannot be written.

    Raises:
        FileNotFoundError, ValueError: A mask is missing, unreadable, or holds unknown values.
    """
    caches = [Path(file) for file in (cache_file, fallback_file) if file is not None]
    key = fingerprint(masks, num_classes) if caches else ''
    for cache in caches:  # one that is stale or damaged is passed over
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            content = json.loads(cache.read_text(encoding='utf-8'))
            found = {
                image: {int(c): int(n) for c, n in areas.items()}
                for image, areas in content['areas'].items()
            }
            fresh = content['format'] == FORMAT and content['fingerprint'] == key
            if fresh and list(found) == list(masks) and content['digest'] == _digest(found):
                return ClassIndex(found)
    index = ClassIndex(_count(masks, num_classes, num_workers))
    digest = _digest(index.areas)
    text = json.dumps(dict(format=FORMAT, fingerprint=key, digest=digest, areas=index.areas))
    failures = []
    for cache in caches:  # the first that takes it
        try:
            write_text(cache, text)
            return index
        except OSError as error:
            failures.append(f'{cache} ({error})')
    if failures:
        warnings.warn(
            f'the class index could not be stored in {" or ".join(failures)}; it is built '
            'again at the next start. Give a writable class_index_file to keep it',
            stacklevel=2,
        )
    return index


def _digest(areas: Mapping[str, Mapping[int, int]]) -> str:
    """Of the counts themselves: one bit that fell over on the disk is another count."""
    listed = [(image, sorted(found.items())) for image, found in areas.items()]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _count(
    masks: Mapping[str, Masks], num_classes: int, num_workers: int | None
) -> dict[str, dict[int, int]]:
    """Areas of all images, with a progress bar where it takes seconds. In processes, since decoding
    holds the interpreter lock; forked, since starting others takes longer than the work. A data
    worker may not have processes of its own."""
    if num_workers is None:
        num_workers = min(os.cpu_count() or 1, 16) if len(masks) >= _MANY else 1
    if num_workers <= 1 or sys.platform != 'linux' or current_process().daemon:
        num_workers = 0
    counted = in_processes(
        partial(mask_areas, num_classes=num_classes),
        list(masks.values()),
        num_workers,
        _CHUNK,
        'fork',
        'a process that reads masks was killed, most likely for want of memory; free some and '
        'start again',
    )
    bar = tqdm(counted, total=len(masks), desc='class index', delay=2, unit='mask')
    return dict(zip(masks, bar, strict=True))
