"""What forms write: files that people may correct, links to photos; and what they are given."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmfss.files import atomic, write_text
from mmfss.labelling.formats.photos import LabelledPhoto

LEDGER = '.written'


@dataclass(frozen=True)
class Terms:
    """What all forms have in common.

    Attributes:
        classes: names of the labels 1..N.
        images: the folder that the names of photos are relative to, absolute.
        apart: regions are objects, and so each becomes one entry; else they are classes, and their
            connected parts are entries of their own, where a form knows one outline an entry.
        tolerance: of outlines, in pixels; see :func:`mmfss.regions.outlines_of`.
    """

    classes: tuple[str, ...]
    images: Path
    apart: bool = False
    tolerance: float = 0.0


class Form(Protocol):
    """Writes photos in one form."""

    def add(self, photo: LabelledPhoto) -> None:
        """Write a photo, or keep it for the end."""

    def finish(self) -> int:
        """Write the rest; how many files were kept as a person has changed them."""


class Files:
    """Files of a folder that are written anew by each run, unless a person has changed them.

    The sums of what was written are in ``.written``, a line for each before the file itself, so
    that a kill at any moment leaves nothing that looks like a person's work.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._ledger = folder, folder / LEDGER
        folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, set[str]] = {}
        if self._ledger.is_file():
            for line in self._ledger.read_text(encoding='utf-8', errors='replace').splitlines():
                code, _, name = line.partition(' ')
                self._known.setdefault(name, set()).add(code)
        self._lines = open(self._ledger, 'a', encoding='utf-8')  # noqa: SIM115
        self._now: dict[str, set[str]] = {}
        self.kept: list[str] = []

    def write(self, name: str, data: bytes) -> None:
        """Write a file, by its path below the folder; a changed one is kept."""
        path, code = self.folder / name, _sum(data)
        there = _sum(path.read_bytes()) if path.is_file() else ''
        if there and there != code and there not in self._known.get(name, ()):
            self.kept.append(name)
            self._now[name] = self._known.get(name, set())
            return
        self._now[name] = {code}
        if there == code:
            return
        self._lines.write(f'{code} {name}\n')
        self._lines.flush()
        with atomic(path, flush=False) as part:
            part.write_bytes(data)

    def finish(self) -> int:
        """Remove files of photos that are no more; how many files were kept."""
        self._lines.close()
        for name in self._known.keys() - self._now.keys():
            path = self.folder / name
            if path.is_file() and _sum(path.read_bytes()) in self._known[name]:
                path.unlink()
        lines = (f'{code} {name}\n' for name, codes in self._now.items() for code in sorted(codes))
        write_text(self._ledger, ''.join(lines))
        return len(self.kept)


def _sum(data: bytes) -> str:
    return f'{zlib.crc32(data):08x}'


def link_images(link: Path, images: Path) -> None:
    """A link to the folder of photos, for forms that have them below their own; what is there
    already stays, be it a copy.

    Raises:
        OSError: The file system knows no links.
    """
    if link.is_symlink():
        link.unlink()
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(images, link.parent.resolve()), target_is_directory=True)
