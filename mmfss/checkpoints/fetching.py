"""Fetching official weights: what is there counts, what was interrupted goes on, what is wrong is
never taken for whole.

A file is written as ``NAME.part`` and gets its name when it is complete and checked. Beside it
``NAME.sha256`` keeps the digest in the form of ``sha256sum``: where authors publish no checksum,
the first fetch sets it and later ones are compared with it.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from mmfss.checkpoints.official import VARIABLE, Official, fault_of, folders, local_file, remedy
from mmfss.files import PART_SUFFIX, atomic, digest_of

ATTEMPTS = 5
"""How often a connection may end early in a row before a fetch gives up."""
PAUSE = 1.0
"""Seconds between two attempts, more after each."""
TIMEOUT = 60.0
"""Seconds of silence after which a connection counts as ended."""
BLOCK = 2**20
DIGEST_SUFFIX = '.sha256'
_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)
_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fetch(one: Official, say: Callable[[str], Any] = print, progress: bool = True) -> Path:
    """Make sure that weights are there, whole and checked.

    Args:
        one: which.
        say: told in words what is done.
        progress: draw a bar on stderr.

    Returns:
        The file.

    Raises:
        ValueError: the weights are gated; what came is not the published file.
        ConnectionError: no network, or it ended too often; what came is kept for the next time.
        OSError: the folder cannot be written to, the disk is full; what came is kept.
    """
    path = local_file(one)
    if path is not None:
        fault = fault_of_file(one, path)
        if not fault:
            say(f'{one.name}: {path} is there; {_checked(one, path)}')
            return path
        say(f'{one.name}: {path} {fault}, and is fetched anew')
    if not one.url:
        raise ValueError(remedy([one]))
    target = folders()[0] / one.file
    with _part_of(one, target) as file:
        part = Path(file.name)
        _download(one, file, say, progress)
        fault = fault_of_file(one, part, target)
        if fault:
            part.unlink()
            raise ValueError(
                f'what {one.url} gave is not {one.name}: it {fault}. It was removed; run `mmfss '
                f'weights fetch {one.name}` again, from another network if it stays so'
            )
        os.replace(part, target)
        said = _checked(one, target)
    say(f'{one.name}: {target}, {target.stat().st_size / 1e6:.0f} MB; {said}')
    return target


@contextmanager
def _part_of(one: Official, target: Path) -> Iterator[IO[bytes]]:
    """The part of a file, open for one process; errors of its folder say what to do."""
    part = target.with_name(target.name + PART_SUFFIX)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, 'a+b') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = os.path.samestat(os.fstat(file.fileno()), os.stat(part))
            except (BlockingIOError, FileNotFoundError):
                mine = False
            if not mine:
                raise BlockingIOError(
                    f'another process fetches {one.name} to {part}; wait until it is done'
                )
            try:
                yield file
            finally:
                if not (_length(file) and part.exists()):  # nothing to go on with
                    part.unlink(missing_ok=True)
                    _version_of(file).unlink(missing_ok=True)
    except OSError as error:
        if error.errno in _PLACE:
            raise OSError(
                error.errno,
                f'{error.strerror}: the folder of weights cannot be written to; set {VARIABLE} to '
                f'one that can, or have somebody put the file there. {remedy([one])}',
                str(target.parent),
            ) from error
        if error.errno in _SPACE:
            raise OSError(
                error.errno,
                f'{error.strerror}: free some space, or set {VARIABLE} to a folder of another '
                'disk, then run the command again; what came is kept, and it goes on there',
                str(part),
            ) from error
        raise


# --------------------------------------------------------------------------------------- checks
def fault_of_file(one: Official, path: Path, name: Path | None = None) -> str:
    """What is wrong with a whole file, '' for nothing: its form, the sums in it, its digest.

    Args:
        one: what it should be.
        path: the file.
        name: under which its digest is kept, by default ``path``.
    """
    fault = fault_of(path, one.bytes)
    size = path.stat().st_size
    if fault and one.bytes and size < one.bytes:
        return f'{fault} ({size} of {one.bytes} bytes)'
    if fault:
        return fault
    if zipfile.is_zipfile(path):  # torch keeps a sum of each tensor
        try:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
            return f'is damaged ({error})'
        if broken:
            return f'is damaged (at {broken})'
    for kind, wanted, whose in _digests(one, name or path):
        found = digest_of(path, kind)
        if not found.startswith(wanted):
            return (
                f'has the {kind.upper()} {found[: max(8, len(wanted))]}..., not {wanted} as {whose}'
            )
    return ''


def _digests(one: Official, path: Path) -> list[tuple[str, str, str]]:
    """Kind, first digits and origin of the checksums that a file must have."""
    found = [] if one.digest is None else [(*one.digest, 'its name states')]
    kept = path.with_name(path.name + DIGEST_SUFFIX)
    if kept.is_file():
        match = re.match(r'[0-9a-f]{64}\b', kept.read_text(encoding='utf-8', errors='replace'))
        if match:
            found.append(('sha256', match[0], f'{kept} keeps it from an earlier fetch'))
    return found


def _checked(one: Official, path: Path) -> str:
    """What the file was compared with, in words; its digest is kept where it was not yet."""
    known = [whose for _, _, whose in _digests(one, path)]
    kept = path.with_name(path.name + DIGEST_SUFFIX)
    if not kept.is_file():
        with suppress(OSError), atomic(kept) as file:  # in a folder that is read alone: not kept
            file.write_text(f'{digest_of(path)}  {path.name}\n', encoding='utf-8')
    if known:
        return f'its checksum is as {" and as ".join(known)}'
    return f'its authors publish no checksum, so {kept.name} keeps this one for later'


# -------------------------------------------------------------------------------------- network
def _download(one: Official, file: IO[bytes], say: Callable[[str], Any], progress: bool) -> None:
    """Bring a part to the length that the server states, in as many connections as it takes."""
    failed = first = 0
    while failed < ATTEMPTS:
        before = _length(file)
        try:
            if _connection(one, file, say, progress):
                return
            reason = 'the connection ended early'
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, 'errno', None) in (*_PLACE, *_SPACE):
                raise
            reason = f'{error}'.removeprefix('<urlopen error ').removesuffix('>')
            if isinstance(error, urllib.error.URLError) and not first:
                break  # refused, or no network
        first = 1
        failed = 0 if _length(file) > before else failed + 1
        time.sleep(PAUSE * failed)
    came = _length(file)
    kept = f' The {came} bytes that came are kept, and the command goes on there.' if came else ''
    raise ConnectionError(f'{one.url} cannot be fetched: {reason}.{kept} {remedy([one])}')


def _connection(one: Official, file: IO[bytes], say: Callable[[str], Any], progress: bool) -> bool:
    """Read as much as one connection gives; whether the file is complete after it."""
    start, version = _length(file), _version_of(file)
    request = urllib.request.Request(one.url, headers={'User-Agent': 'mmfss'})
    if start:
        request.add_header('Range', f'bytes={start}-')
        if version.is_file():  # of another version the server sends the whole file
            request.add_header('If-Range', version.read_text(encoding='latin-1'))
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get('Content-Range') == f'bytes */{start}':
            return True
        file.truncate(0)  # it is longer than what the server has: of something else
        return False
    with answer:
        begin, _, total = answer.headers.get('Content-Range', '').rpartition('/')
        if answer.status != 206:
            start, total = 0, answer.headers.get('Content-Length', '')
        elif not begin.startswith(f'bytes {start}-'):
            raise ConnectionError(f'the server goes on elsewhere than at byte {start}')
        size = int(total) if total.isdecimal() else None
        if one.bytes and size and size != one.bytes:
            raise ValueError(
                f'{one.url} offers {size} bytes, and {one.name} has {one.bytes}: something answers '
                f'in the place of its authors, or they have put out another file. {remedy([one])}'
            )
        free = shutil.disk_usage(Path(file.name).parent).free
        if size and size - start > free:
            raise OSError(errno.ENOSPC, f'{size - start} bytes are to come and {free} are free')
        file.truncate(start)
        tag = answer.headers.get('ETag', '') or answer.headers.get('Last-Modified', '')
        if tag and not tag.startswith('W/'):  # a weak one cannot be asked for
            version.write_text(tag, encoding='latin-1')
        say(f'{one.name}: {"goes on" if start else "from"} {one.url}')
        with tqdm(
            total=size,
            initial=start,
            unit='B',
            unit_scale=True,
            desc=one.name,
            disable=not progress,
        ) as bar:
            while block := answer.read(BLOCK):
                file.write(block)
                bar.update(len(block))
        file.flush()
    return size is None or _length(file) == size


def _length(file: IO[bytes]) -> int:
    file.flush()
    return os.fstat(file.fileno()).st_size


def _version_of(file: IO[bytes]) -> Path:
    """Where it is kept of which version a part is."""
    return Path(f'{file.name}.version')
