"""Features of images on disk, for many processes and runs at once, without a lock.

A file takes its place by one rename when it is whole, so that a reader meets all of it or none;
whoever loses a race has written the same. No write is forced to the platter: what a power failure
leaves half-written has a wrong checksum and is made anew. Works on any file system, also a network
one, on which a rename within a folder is atomic (NFS is such; what another machine has just
written may be seen seconds late there, which costs an encoding and nothing else).
"""

from __future__ import annotations

import errno
import logging
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import Tensor

from mmfss.features import entries, folders
from mmfss.features.folders import in_words
from mmfss.files import atomic


@dataclass
class CacheStats:
    """What a cache did; ``misses`` include the damaged."""

    memory_hits: int = 0
    disk_hits: int = 0
    misses: int = 0
    damaged: int = 0
    written: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def __str__(self) -> str:
        return (
            f'{self.memory_hits} from memory, {self.disk_hits} from disk '
            f'({in_words(self.bytes_read)}), {self.misses} computed ({self.damaged} of them '
            f'damaged on disk), {self.written} written ({in_words(self.bytes_written)})'
        )


_RESCAN_SECONDS = 60.0
_NAMED = 5  # folders named in a message
_RESERVE_BYTES, _RESERVE_SHARE = 2**30, 0.02  # of a disk, whichever is less, is left to others


class DiskStore:
    """Entries below ``directory``.

    Args:
        directory: made when something is written.
        budget: bytes that all entries in the directory may take; None for no limit. Other
            processes' files are counted now and then, so several of them together may go over it
            by what they write in a minute.
        stats: counters to keep.
    """

    def __init__(self, directory: Path, budget: int | None, stats: CacheStats) -> None:
        self.directory = directory
        self.budget = budget
        self.stats = stats
        self.writes = True
        """Becomes False at the first error in writing."""
        self.has_room = True
        """Whether there was room at the last attempt to write."""
        self._opened: dict[str, Mapping[str, Any]] = {}
        self._reported: set[Path] = set()
        self._said: set[str] = set()
        self._used = 0
        self._scanned: float | None = None
        self._scan_seconds = 0.0

    def open(self, encoder: str, about: Mapping[str, Any]) -> None:
        """Begin to use an encoder key; says which folders of other encoders lie there. Of many
        processes one looks: a large directory on a network takes a while."""
        self._opened[encoder] = about
        if is_main_process():
            self._report_others(self._scan(), about)
        try:
            folders.write_about(folders.folder_of(self.directory, encoder), encoder, about)
        except OSError as error:
            self._stop_writing(error)

    def path_of(self, encoder: str, image: str) -> Path:
        """The file of an image's features."""
        folder = folders.folder_of(self.directory, encoder)
        return folder / image[:2] / f'{image}{entries.SUFFIX}'

    def read(self, encoder: str, image: str) -> list[Tensor] | None:
        """The features on the CPU, bit for bit as written, or None where there are none that are
        whole. A damaged file is removed; one that cannot be read now is left, and replaced
        by the next :meth:`write`."""
        path = self.path_of(encoder, image)
        try:
            features = self._read(path, encoder, image)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except entries.DamagedEntry as error:
            self._set_aside(path, f'is damaged ({error})')
            with suppress(OSError):
                path.unlink()
            return None
        except OSError as error:
            self._set_aside(path, f'cannot be read ({error.strerror or error})')
            return None
        self.stats.bytes_read += sum(t.numel() * t.element_size() for t in features)
        return features

    @staticmethod
    def _read(path: Path, encoder: str, image: str) -> list[Tensor]:
        try:
            return entries.read(path, encoder, image)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            # another machine put a new file in the place of the one that was open
            return entries.read(path, encoder, image)

    def write(self, encoder: str, image: str, features: Sequence[Tensor]) -> None:
        """Keep the features, as :func:`entries.pack` gives them, if there is room and a way."""
        size = sum(t.numel() * t.element_size() for t in features)
        if not self.writes or not self._has_room(size):
            return
        content = entries.encode(encoder, image, features)
        try:
            with atomic(self.path_of(encoder, image), flush=False) as part:  # has a checksum
                part.write_bytes(content)
        except OSError as error:
            self._stop_writing(error)
            return
        self._used += len(content)
        self.stats.written += 1
        self.stats.bytes_written += len(content)

    def _set_aside(self, path: Path, problem: str) -> None:
        self.stats.damaged += 1
        self._say(
            'damaged',
            f'Feature cache: {path} {problem}. Its features are computed again. Further such '
            'files of this run are counted, not named.',
        )

    def _stop_writing(self, error: OSError) -> None:
        self.writes = False
        self._say(
            'writing',
            f'Feature cache: cannot write to {self.directory} ({error.strerror or error}). This '
            'run goes on without writing to it; what is there is still read. Make room or make '
            "it writable, give another 'directory', or limit it with 'disk_bytes'.",
        )

    # ------------------------------------------------------------------ budget, other encoders

    def _has_room(self, size: int) -> bool:
        self.has_room = self._disk_has_room(size) and self._budget_has_room(size)
        return self.has_room

    def _disk_has_room(self, size: int) -> bool:
        """A cache must not take the room that checkpoints and results of the run need."""
        try:
            disk = shutil.disk_usage(self.directory)
        except OSError:
            return True  # writing will tell
        reserve = min(_RESERVE_BYTES, int(_RESERVE_SHARE * disk.total))
        if disk.free - size >= reserve:
            return True
        self._say(
            'full disk',
            f'Feature cache: only {folders.in_words(disk.free)} are free on the disk of '
            f'{self.directory}, and {folders.in_words(reserve)} are left for other things. No '
            'more features are written there until there is room; they are computed when needed. '
            "Make room, or give another 'directory'.",
        )
        return False

    def _budget_has_room(self, size: int) -> bool:
        if self.budget is None:
            return True
        # scanning takes 2 % of the time at most
        pause = max(_RESCAN_SECONDS, 50 * self._scan_seconds)
        if self._scanned is None or time.monotonic() - self._scanned > pause:
            self._scan()
        if self._used + size <= self.budget:
            return True
        self._say(
            'full',
            f'Feature cache: {self.directory} holds {folders.in_words(self._used)} and its budget '
            f'(disk_bytes) is {folders.in_words(self.budget)}. No more features are written to '
            'it; they are computed when needed. Raise disk_bytes, or remove folders of encoders '
            'that are not used any more.',
        )
        return False

    def _scan(self) -> list[folders.Folder]:
        start = time.monotonic()
        found = folders.scan(self.directory)
        self._used = sum(folder.bytes for folder in found)
        self._scanned = time.monotonic()
        self._scan_seconds = self._scanned - start
        return found

    def _report_others(self, found: list[folders.Folder], about: Mapping[str, Any]) -> None:
        """Name each folder of an encoder key that was not opened in this run, once."""
        opened = {folders.folder_of(self.directory, encoder) for encoder in self._opened}
        others = [f for f in found if f.path not in opened | self._reported]
        if not others:
            return
        self._reported.update(folder.path for folder in others)
        named = [
            f'  {f.path.name}: {f.files} images, {folders.in_words(f.bytes)}; '
            f'{_what_differs(f, about)}'
            for f in others[:_NAMED]
        ]
        if len(others) > _NAMED:
            named.append(f'  and {len(others) - _NAMED} more')
        total = folders.in_words(sum(folder.bytes for folder in others))
        paths = ' '.join(shlex.quote(str(folder.path)) for folder in others[:_NAMED])
        text = '\n'.join(
            [
                f'Feature cache: {self.directory} also holds features of {len(others)} other '
                f'encoder(s) or version(s), {total}, which are not used here:',
                *named,
                f'Where no other run needs them: rm -r {paths}',
            ]
        )
        print_log(text, logger='current', level=logging.WARNING)

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            print_log(text, logger='current', level=logging.WARNING)


def _what_differs(folder: folders.Folder, about: Mapping[str, Any]) -> str:
    if folder.encoder is None:
        return 'its about.json cannot be read'
    if folder.format != entries.FORMAT:
        return f'format {folder.format}, here {entries.FORMAT}'
    return folders.differences(folder.about, about)
