"""Files: written so that no reader, and no later run, ever meets half of one; checksums; errors."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from isal import isal_zlib

PART_SUFFIX = '.part'
"""How the names of files end that are being written; they begin with a dot."""


@contextmanager
def atomic(path: str | os.PathLike, flush: bool = True, mode: int = 0o644) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to; it takes its place when all went well.

    The folder is made. After an error, an interruption or a kill, what was at ``path`` is still
    there as it was.

    Args:
        path: The file.
        flush: It is on the disk before it takes its name, so that this also holds when the machine
            goes down. That takes milliseconds; files that are compared with a checksum before they
            are used, and made again, can do without.
        mode: Who may read and write it; temporary files are private.

    Raises:
        OSError: The folder cannot be written to, the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f'.{path.name[:40]}.', suffix=PART_SUFFIX
    )
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, mode)
        if flush:
            written = os.open(name, os.O_RDONLY)
            try:
                os.fsync(written)
            finally:
                os.close(written)
        os.replace(name, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(name)
        name_file(error, path)
        raise


def name_file(error: BaseException, path: str | os.PathLike) -> None:
    """Give an error of the system the name of the file that it is of, where it has none: what is
    written to an open file fails without one."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        error.filename = os.fspath(path)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding='utf-8')


_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


def take_lock(file: IO) -> None:
    """Take the lock of an open file, which ends with it or its process. Where the file system has
    no locks, there is none.

    Raises:
        BlockingIOError: Another process has it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


@contextmanager
def locked(path: str | os.PathLike, doing: str) -> Iterator[None]:
    """Within, no other process gets this lock, see :func:`take_lock`.

    Args:
        path: File of the lock, which is made and removed; its folder is made.
        doing: What one who has it does, e.g. 'is labelling into OUT', for the message to others.

    Raises:
        ValueError: Another process has it.
        OSError: It cannot be made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, 'a+') as file:
            try:
                take_lock(file)
            except BlockingIOError as error:
                file.seek(0)
                raise ValueError(
                    f'another run (process {file.read().strip() or "unknown"}) {doing}; wait for '
                    'it, end it, or give another output'
                ) from error
            try:
                taken = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            except FileNotFoundError:
                taken = False
            if not taken:  # whoever had it has just removed it
                continue
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


_FORMULA = ('=', '+', '-', '@', '\t', '\r', "'")


def as_cell(text: str) -> str:
    """A text, such as a name, as a cell of a CSV file: one that spreadsheets would run as a formula
    gets an apostrophe before it, which they hide and :func:`from_cell` takes away. Numbers stay."""
    if not text.startswith(_FORMULA):
        return text
    with suppress(ValueError):
        float(text)
        return text
    return f"'{text}"


def from_cell(cell: str) -> str:
    """The text of a cell of :func:`as_cell`."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


def write_csv(path: str | os.PathLike, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table of texts, whole or not at all, see :func:`as_cell`. Names of files that are no
    UTF-8 have their bytes shown."""
    with (
        atomic(path) as part,
        open(part, 'w', encoding='utf-8', errors='backslashreplace', newline='') as file,
    ):
        table = csv.writer(file, lineterminator='\n')
        table.writerows([as_cell(text) for text in row] for row in (head, *rows))


def read_csv(path: str | os.PathLike) -> list[list[str]]:
    """All rows of a table of :func:`write_csv`, the head too."""
    with open(path, encoding='utf-8', newline='') as file:
        return [[from_cell(cell) for cell in row] for row in csv.reader(file)]


def remove_parts(folder: str | os.PathLike) -> None:
    """Remove what a killed run was just writing in a folder and below; the files are unread."""
    for part in Path(folder).rglob(f'.*{PART_SUFFIX}'):
        part.unlink(missing_ok=True)


def walk(
    folder: str | os.PathLike[str], _above: tuple[str, ...] = ()
) -> Iterator[tuple[Path, bool]]:
    """All below a folder but what is hidden, and whether it is a folder: folders before what is in
    them, files, and links to nothing, which are to be reported. Links to folders are followed, but
    for those that lead back. The one walk of all tools, so that none sees what another does not.

    Raises:
        OSError: A folder cannot be read.
    """
    above = (*_above, os.path.realpath(folder))
    for entry in os.scandir(os.fspath(folder)):
        if entry.name.startswith('.') or entry.name == '__MACOSX':
            continue
        path = Path(entry.path)
        if path.is_dir():  # False for a link to itself, where entry.is_dir() raises
            if os.path.realpath(path) not in above:
                yield path, True
                yield from walk(path, above)
        elif path.is_file() or path.is_symlink():
            yield path, False


def check_writable(path: str | os.PathLike, what: str) -> Path:
    """Make sure that a file can be written, before the work that it is to hold is done.

    Makes its folder; the file itself is neither made nor changed.

    Args:
        path: The file.
        what: What it is called in messages, e.g. '--out'.

    Raises:
        ValueError: The path is a folder, or its folder cannot be made or written to.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError('it is a folder')
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(
            f'{what}: {path} cannot be written ({error.strerror or error}); give the path of a '
            'file in a folder that you may write to'
        ) from error
    return path


def digest_of(path: str | os.PathLike[str], kind: str = 'sha256') -> str:
    """Hexadecimal digest of a file, of a kind that hashlib knows; for telling files apart."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, 'rb') as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def identity_of(path: str | os.PathLike[str]) -> dict[str, str]:
    """Name and SHA-256 of a file, as what is made from it records them."""
    return dict(name=Path(path).name, sha256=digest_of(path))


def checksum_of(path: str | os.PathLike[str]) -> int:
    """CRC-32 of a file, which costs little beside reading it."""
    checksum = 0
    with open(path, 'rb') as file:
        while block := file.read(2**20):
            checksum = isal_zlib.crc32(block, checksum)
    return checksum


_FULL = (errno.ENOSPC, errno.EDQUOT)
_REMEDIES = {
    **dict.fromkeys(_FULL, 'free some space'),
    errno.EROFS: 'choose another output folder',
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM), 'change its rights or choose another output folder'
    ),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR),
        'a file is where a folder must be: remove it or choose another output folder',
    ),
}


def explained(error: OSError) -> OSError:
    """The same error with what to do, where something could not be read or written."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None or remedy in f'{error.strerror}':
        return error
    if error.errno in _FULL and error.filename is not None:
        remedy += f' on the disk of {os.path.dirname(os.path.abspath(error.filename))}'
    return OSError(
        error.errno,
        f'{error.strerror}; {remedy}, then run the command again: what is complete is kept',
        error.filename,
    )
