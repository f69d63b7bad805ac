"""What is known of each image, in files that a kill cannot harm.

``records/<run>-<rank>.jsonl``: each process of each run has a file of its own and only adds to it,
a line per image::

    <CRC-32 of the rest, 8 hex digits> <JSON>

A line that is torn or damaged does not count, so its image is done again. The last line of an
image counts: files in the order of their names, lines from top to bottom. Only where it is, and
what tells whether it still holds, is kept in memory.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_SYNC_SECONDS = 5.0


@dataclass(frozen=True)
class Entry:
    """Where the record of an image is, and what it says in short.

    Attributes:
        file: number of the record file in :attr:`Records.files`.
        offset: first byte of its line.
        ok: whether the image was labelled; else it failed.
        stat: size and time of change of the image then.
        label: size and CRC-32 of its label file.
        certainty: of the result.
    """

    file: int
    offset: int
    ok: bool
    stat: tuple[int, int]
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
        self._file.write(b'%08x %s\n' % (zlib.crc32(text), text))
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._sync()
        finally:
            self._file.close()


def next_run(folder: Path) -> int:
    """Number of the next run: one more than the last that left a file."""
    runs = [int(file.name.split('-')[0]) for file in folder.glob('*-*.jsonl')]
    return max(runs, default=0) + 1


def _lines(file: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
    offset = file.tell()
    for line in file:
        code, _, text = line.rstrip(b'\n').partition(b' ')
        if code == b'%08x' % zlib.crc32(text):
            yield offset, json.loads(text)
        offset += len(line)
