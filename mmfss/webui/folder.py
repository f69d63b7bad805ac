"""The files of one visitor: a folder that goes with its session."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from mmfss.webui.uploads import clean_name, unused_name

T = TypeVar('T')
Upload = tuple[Path, str]
"""A file on the server, and what the visitor calls it."""


class VisitorFolder:
    """A folder below ``root``; it is removed by :meth:`remove`, with this object, or at exit.

    Attributes:
        path: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix='visitor_', dir=root))
        # the page may forget a session without a word
        self._finalizer = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        self._number = 0

    def remove(self) -> None:
        """Remove the folder."""
        self._finalizer()

    def keep(self, path: Path) -> Path:
        """Copy an upload into the folder; there its name is a number and its ending."""
        self._number += 1
        suffix = Path(clean_name(path.name)).suffix.lower()
        kept = self.path / f'{self._number:05d}{suffix}'
        shutil.copyfile(path, kept)
        return kept


def take(
    uploads: Iterable[Upload], known: Iterable[str], limit: int, read: Callable[[Path, str], T]
) -> tuple[list[T], list[str]]:
    """Read uploads, under names that are harmless and differ.

    Args:
        uploads: the files.
        known: names that are taken.
        limit: of all names.
        read: of a file and its name; may raise ValueError and OSError.

    Returns:
        What was read, and why which others were left out.
    """
    names, taken, refused = list(known), [], []
    for path, given in uploads:
        name = unused_name(clean_name(given), names)
        if len(names) >= limit:
            refused.append(f'{clean_name(given)} was left out: {limit} images are the most')
            continue
        try:
            taken.append(read(path, name))
            names.append(name)
        except (ValueError, OSError) as error:
            refused.append(str(error))
    return taken, refused
