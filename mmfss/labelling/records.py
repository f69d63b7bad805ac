"""What a run leaves of each image: its label, its overlay, its record; and what is known of them
later. No kill can harm any of it.

``records/<run>-<rank>.jsonl``: each process of each run has a file of its own and only adds to it,
a line per image, once the image's files are written::

    <CRC-32 of the rest, 8 hex digits> <JSON>

A line that is torn or damaged does not count, so its image is done again. The last line of an
image counts: files in the order of their names, lines from top to bottom. Only where it is, and
what tells whether it still holds, is kept in memory.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import mmcv
import numpy as np
from isal import isal_zlib
from PIL import Image

from mmfss.apis.photos import large_photos
from mmfss.apis.prediction import Marked
from mmfss.datasets.classes import label_palette
from mmfss.datasets.io import read_image, read_mask, save_png
from mmfss.files import atomic, checksum_of, name_file
from mmfss.labelling.annotations import objects_of, regions_of
from mmfss.labelling.folder import ANN_DIR, OVERLAYS, label_name, stem_of

OVERLAY_SIDE = 1600
_DIGITS = 6
_SYNC_SECONDS = 5.0
_SETTLED = 0.1


@dataclass(frozen=True)
class Entry:
    """Where the record of an image is, and what it says in short.

    Attributes:
        file: number of the record file in :attr:`Records.files`.
        offset: first byte of its line.
        ok: whether the image was labelled; else it failed.
        stat: of the image then, see :func:`image_state`.
        content: CRC-32 of the image then.
        label: size and CRC-32 of its label file.
        certainty: of the result.
    """

    file: int
    offset: int
    ok: bool
    stat: tuple[int, int, int]
    content: int
    label: tuple[int, int]
    certainty: float


class Records:
    """The records in a folder, by image. Reading them is a pass over all files."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob('*.jsonl'))
        self.entries: dict[str, Entry] = {}
        for number, file in enumerate(self.files):
            with open(file, 'rb') as lines:
                for offset, record in _lines(lines):
                    self.entries[record['image']] = Entry(
                        number,
                        offset,
                        record['ok'],
                        tuple(record.get('stat', ())),
                        record.get('content', -1),
                        tuple(record.get('label', ())),
                        record.get('certainty', 0.0),
                    )

    def read(self, name: str) -> dict[str, Any]:
        """The whole record of an image."""
        entry = self.entries[name]
        with open(self.files[entry.file], 'rb') as lines:
            lines.seek(entry.offset)
            return next(_lines(lines))[1]


class RecordWriter:
    """Adds records to a file of its own; what was added survives a kill, and after some seconds
    a loss of power too."""

    def __init__(self, folder: Path, run: int, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(folder / f'{run:06d}-{rank:04d}.jsonl', 'ab')  # noqa: SIM115
        self._synced = time.monotonic()

    def add(self, record: dict[str, Any]) -> None:
        """Add the record of an image: JSON types, with 'image' and 'ok'.

        Raises:
            OSError: It cannot be written, e.g. the disk is full.
        """
        text = json.dumps(record, separators=(',', ':')).encode()
        try:
            self._file.write(b'%08x %s\n' % (isal_zlib.crc32(text), text))
            self._file.flush()
        except OSError as error:
            name_file(error, self._file.name)
            raise
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            with self._file:
                os.fsync(self._file.fileno())
        except OSError as error:
            name_file(error, self._file.name)
            raise


def next_run(folder: Path) -> int:
    """Number of the next run: one more than the last that left a file."""
    runs = [int(file.name.split('-')[0]) for file in folder.glob('*-*.jsonl')]
    return max(runs, default=0) + 1


def _lines(file: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
    offset = file.tell()
    for line in file:
        code, _, text = line.rstrip(b'\n').partition(b' ')
        if code == b'%08x' % isal_zlib.crc32(text):
            yield offset, json.loads(text)
        offset += len(line)


# ---------------------------------------------------------------------------------- writing
def write_result(
    out: Path, name: str, small: np.ndarray | None, prediction: Marked, apart: bool = False
) -> dict[str, Any]:
    """Write the palette PNG of an image and, where it is asked for, the image with its classes as
    JPEG.

    Args:
        out: the output folder.
        name: of the image.
        small: the image uint8 (h, w, 3) BGR as it is to be drawn on; None for no overlay.
        prediction: for it.
        apart: annotate objects, not classes.

    Returns:
        What its record says of the result: see :func:`describe_label`, and how sure it is:
        'certainty', and per class 'scores' and 'confidence', rounded.
    """
    if small is not None:
        shown = prediction
        if small.shape[:2] != prediction.labels.shape:
            size = (small.shape[1], small.shape[0])
            labels = mmcv.imresize(prediction.labels, size, interpolation='nearest')
            shown = replace(prediction, labels=labels)
        rgb, encoded = np.ascontiguousarray(shown.draw(small, legend=True)[..., ::-1]), io.BytesIO()
        Image.fromarray(rgb).save(encoded, 'JPEG', quality=90)
        with atomic(out / OVERLAYS / f'{stem_of(name)}.jpg', flush=False) as part:
            part.write_bytes(encoded.getvalue())
    path, count = out / ANN_DIR / label_name(name), len(prediction.classes)
    save_png(path, prediction.labels, prediction.palette)
    if apart:
        annotations = objects_of(prediction.labels, count, prediction)
    else:
        annotations = regions_of(prediction.labels, count)
    return dict(
        **describe_label(path, prediction.labels, annotations),
        certainty=round(prediction.certainty, _DIGITS),
        scores=[round(float(score), _DIGITS) for score in prediction.scores],
        confidence=[round(prediction.confidence(c), _DIGITS) for c in prediction.classes],
    )


def describe_label(
    path: Path, labels: np.ndarray, annotations: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What a record says of a label.

    Args:
        path: its file.
        labels: its content, uint8 (H, W) of 0..N.
        annotations: see :mod:`mmfss.labelling.annotations`.

    Returns:
        'label' (size and CRC-32 of the file), 'height', 'width', and 'annotations'.
    """
    height, width = labels.shape
    state = label_state(path)
    return dict(label=state, height=height, width=width, annotations=list(annotations))


# ---------------------------------------------------------------------------------- what is there
def label_state(path: Path) -> tuple[int, int] | None:
    """Size and CRC-32 of a label file; None where there is none."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return len(data), isal_zlib.crc32(data)


def edited_label(path: Path, shape: Sequence[int], num_classes: int) -> np.ndarray | None:
    """The label uint8 (H, W) that a person has put in the place of the one written; None where
    there is none, or half of one.

    Args:
        path: of the label.
        shape: (H, W) of the image.
        num_classes: N.

    Raises:
        ValueError: It is a whole image but no label map of this size with labels 0..N in their
            colours: somebody's work, which is not to be written over.
    """
    with large_photos():
        try:
            read_image(path)
        except (FileNotFoundError, ValueError):
            return None
        labels = read_mask(path)
    if labels.shape != tuple(shape):
        raise ValueError(
            f'label {path} is {labels.shape[1]} x {labels.shape[0]} pixels (width x height), its '
            f'image {shape[1]} x {shape[0]}'
        )
    used = np.flatnonzero(np.bincount(labels.ravel()))
    if used[-1] > num_classes:
        raise ValueError(f'label {path} has the value {used[-1]}, allowed are 0..{num_classes}')
    with large_photos(), Image.open(path) as image:
        colours = image.getpalette('RGB') if image.mode == 'P' else None
    ours = label_palette(num_classes)
    if colours and any(list(colours[3 * v : 3 * v + 3]) != ours[v] for v in used):
        raise ValueError(
            f'label {path} has another palette: the drawing program has numbered the colours anew'
        )
    return labels


def image_state(source: Path) -> tuple[int, int, int] | None:
    """What tells at a glance that an image has not changed: size, mtime and ctime (ns; an mtime can
    be set, a ctime cannot). None where there is no image.

    The ctime of a file that was written a moment ago is 0, which tells nothing: it could be written
    again within the same step of the file system's clock.
    """
    try:
        stat = source.stat()
    except OSError:
        return None
    settled = abs(time.time() - stat.st_ctime) > _SETTLED
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns if settled else 0


def is_unchanged(source: Path, stat: tuple[int, int, int] | None, entry: Entry) -> bool:
    """Whether an image is the one that was labelled: at a glance, else by its content. So one that
    was copied, moved or touched is not done again, and another one in its place is, whatever times
    it was given.

    Args:
        source: its file.
        stat: of it now, see :func:`image_state`.
        entry: of its record.
    """
    if stat is None or stat[0] != entry.stat[0]:
        return False
    return stat == entry.stat and stat[2] > 0 or checksum_of(source) == entry.content
