"""Which file of a folder an annotation file means: tools write names as they knew them."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from mmfss.words import listed

_UPLOAD = re.compile(r'^[0-9a-f]{8}-(?=.)')  # Label Studio puts it before the names of uploads


class ImageNames:
    """Files below a folder, found by the names that an annotation file has for them.

    A name is taken as it is where such a file is there, below the first of the roots that has it.
    Else it is unquoted, a backslash is '/', and the file whose path shares the longest tail with it
    is taken, if it is the only one; letters may differ in case, and the mark that Label Studio puts
    before the names of uploads may be absent.

    Args:
        roots: What exact names are relative to.
        files: Those that may be meant.
    """

    def __init__(self, roots: Sequence[Path], files: Iterable[Path]) -> None:
        self.roots = roots
        self._files = {*files}
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_bare: dict[str, list[Path]] = defaultdict(list)
        for file in sorted(self._files):
            name = _key(file.name)
            self._by_name[name].append(file)
            self._by_bare[_UPLOAD.sub('', name)].append(file)

    def find(self, name: str) -> Path | None:
        """The file that is meant, None if none is there.

        Raises:
            ValueError: Several may be meant; they are named.
        """
        for root in self.roots:
            if root / name in self._files:
                return root / name
        for text in _readings(name):
            parts = [part for part in text.split('/') if part not in ('', '.', '..')]
            if not parts:
                continue
            last = _key(parts[-1])
            bare = _UPLOAD.sub('', last)
            for found in (self._by_name.get(last), self._by_bare.get(bare)):
                if found:
                    return self._longest(name, parts, found)
        return None

    def _longest(self, name: str, parts: list[str], found: list[Path]) -> Path:
        """Of files of one name the one whose folders are those of the name, too."""

        def shared(file: Path) -> int:
            own = [_key(part) for part in file.parts[:-1]]
            number = 0
            for a, b in zip(reversed(own), reversed(parts[:-1])):
                if a != _key(b):
                    break
                number += 1
            return number

        most = max(map(shared, found))
        best = [file for file in found if shared(file) == most]
        same = [file for file in best if file.name == parts[-1]]
        best = same if len(same) == 1 else best
        if len(best) > 1:
            raise ValueError(
                f'image {name!r} may be any of {len(best)} files: '
                f'{listed(best, 4)}; write their folders into its name, or give --images'
            )
        return best[0]


def _key(name: str) -> str:
    """The same for a name in any case, and with accents composed (Linux) or apart (macOS)."""
    return unicodedata.normalize('NFC', name).casefold()


def _readings(name: str) -> Iterable[str]:
    """A name with '/' between folders: as it is, and unquoted; of an address its path, or what
    Label Studio's ``/data/local-files/?d=`` names."""
    for text in dict.fromkeys((name, unquote(name))):
        yield text.replace('\\', '/')
    if '?' in name or '://' in name:
        address = urlsplit(name)
        inner = parse_qs(address.query).get('d', [])
        yield from inner
        yield unquote(address.path).replace('\\', '/')
