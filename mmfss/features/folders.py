"""What lies in a cache directory: a folder per encoder, what each is of, and how large it is.

::

    DIRECTORY/<encoder key, 16 characters>/about.json
                                           <image key, 2>/<image key>.safetensors

Anything else in the directory is left alone and not counted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfss.features.entries import FORMAT, SUFFIX
from mmfss.files import PART_SUFFIX, write_text

ABOUT = 'about.json'
KEY_CHARACTERS = 16
OLD_PART_SECONDS = 24 * 3600
"""A file that is being written is touched every moment; after a day its writer is dead. (Were it
not, its last step would fail as on a full disk, and it would go on without.)"""


@dataclass(frozen=True)
class Folder:
    """One encoder's folder: its full key and description (None, {} if unreadable), its entries."""

    path: Path
    encoder: str | None
    about: dict[str, Any]
    format: Any
    files: int
    bytes: int


def folder_of(directory: Path, encoder: str) -> Path:
    """Where the entries of an encoder key are."""
    return directory / encoder[:KEY_CHARACTERS]


def write_about(folder: Path, encoder: str, about: Mapping[str, Any]) -> None:
    """Say in the folder what it is of, unless it says so already.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(dict(format=FORMAT, encoder=encoder, about=about), indent=1, sort_keys=True)
    path = folder / ABOUT
    with suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding='utf-8') == text:
            return
    write_text(path, text)


def scan(directory: Path) -> list[Folder]:
    """All encoders' folders, by name; left-over part files of dead writers are removed.

    What cannot be listed (any more) counts as empty.
    """
    return [_scan_folder(path) for path in _folders(directory)]


def _folders(directory: Path) -> list[Path]:
    found = [Path(item.path) for item in _listed(directory) if item.is_dir()]
    return sorted(path for path in found if (path / ABOUT).is_file())


def _scan_folder(path: Path) -> Folder:
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        loaded = json.loads((path / ABOUT).read_text(encoding='utf-8'))
        known = loaded if isinstance(loaded, dict) else {}
    about = known.get('about')
    files = size = 0
    for item in _items(path):
        part = item.name.startswith('.') and item.name.endswith(PART_SUFFIX)
        if not part and not item.name.endswith(SUFFIX):
            continue
        with suppress(OSError):
            found = item.stat()
            if part and time.time() - found.st_mtime > OLD_PART_SECONDS:
                os.unlink(item.path)
                continue
            size += found.st_size
            files += not part
    about = about if isinstance(about, dict) else {}
    return Folder(path, known.get('encoder'), about, known.get('format'), files, size)


def _items(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The files of an encoder's folder and of the folders in it."""
    for item in _listed(folder):
        if item.is_dir(follow_symlinks=False):
            yield from _listed(item.path)
        else:
            yield item


def _listed(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return list(items)
    except OSError:
        return []


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], most: int = 4) -> str:
    """In a few words what another encoder's description says otherwise than ours."""
    a, b = _flat(theirs), _flat(ours)
    names = [name for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
    said = [_difference(name, a.get(name), b.get(name)) for name in names[:most]]
    more = [f'{len(names) - most} more'] if len(names) > most else []
    return ', '.join(said + more) or 'nothing that its about.json tells'


def _difference(name: str, theirs: Any, ours: Any) -> str:
    if any(isinstance(value, str) and len(value) >= 32 for value in (theirs, ours)):
        return f'other {name}'  # digests tell nobody anything
    return f'{name} {theirs}, here {ours}'


def _flat(about: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in about.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f'{prefix}{name}.'))
        else:
            flat[f'{prefix}{name}'] = value
    return flat


def in_words(size: float) -> str:
    """1536 -> '1.5 KB'."""
    units = ['bytes', 'KB', 'MB', 'GB', 'TB']
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f'{size:.0f} bytes' if units[0] == 'bytes' else f'{size:.1f} {units[0]}'
