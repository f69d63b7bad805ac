"""Reading checkpoints without running code from them, on every supported torch and stack.

``torch.load(weights_only=True)`` admits tensors and plain containers. mmengine's own
checkpoints also pickle a ``HistoryBuffer`` (with a ``getattr`` for its methods) and numpy
numbers; those are admitted here, each through a function that serves nothing else.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import pickle
import re
import struct
import types
import urllib.error
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from isal import isal_zlib

_LOCAL = struct.Struct('<4s22xHH')
"""Header before an entry of an archive: signature, lengths of its name and of its extra field."""
_DAMAGE = (
    zipfile.BadZipFile,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    struct.error,
)
"""What zipfile raises for damaged archives."""


def load_checkpoint(
    filename: str | os.PathLike[str], map_location: Any = None, namespaces: bool = False
) -> Any:
    """Load a local checkpoint without running code from it, on every supported torch.

    Allowed are tensors, plain containers, numpy scalars and arrays of numbers, and mmengine's
    ``HistoryBuffer``.

    Args:
        filename: path; ``~`` is expanded.
        map_location: as in :func:`torch.load`.
        namespaces: ``argparse.Namespace``, in which training programs keep their options, is
            allowed too: names and values, which run nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged (its checksums are compared), no PyTorch file, or asks for
            anything not allowed.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        kind = 'is a directory' if os.path.isdir(path) else 'does not exist'
        raise FileNotFoundError(
            f'checkpoint {path} {kind}; allowed: the path of a .pth file that tools/train.py '
            'saved or that was downloaded. Remedy: correct the path.'
        )
    allowed = (argparse.Namespace,) if namespaces else ()
    with _translated(path), _allowed_globals(allowed), ThreadPoolExecutor(1) as pool:
        _check_kind(path)
        check = pool.submit(_check_archive, path)  # both are mostly reading, without Python's lock
        try:
            loaded = torch.load(path, map_location=map_location, weights_only=True)
        finally:
            check.result()
        return loaded


def _check_kind(path: str) -> None:
    """torch < 2.6 hands a TorchScript archive to ``torch.jit.load`` whatever ``weights_only``
    says."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith('/constants.pkl') for name in archive.namelist()):
                raise pickle.UnpicklingError('a TorchScript program, not weights')


def _check_archive(path: str) -> None:
    """Compare all of an archive with its checksums, which ``torch.load`` leaves out: a bit that
    fell over would be another weight. Files of the format before torch 1.6 have none."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive, open(path, 'rb', buffering=0) as file:
        buffer = memoryview(bytearray(2**20))
        for entry in archive.infolist():
            if entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1:
                checksum = _checksum(file, entry, buffer)
            else:  # torch compresses nothing; zipfile compares, and takes twice the time
                with archive.open(entry) as packed:
                    while packed.read(2**20):
                        pass
                checksum = entry.CRC
            if checksum != entry.CRC:
                raise zipfile.BadZipFile(
                    f'{entry.filename} in it does not fit its checksum (or it was saved without, '
                    'after torch.serialization.set_crc32_options(False): save it again with them)'
                )


def _checksum(file: io.FileIO, entry: zipfile.ZipInfo, buffer: memoryview) -> int:
    """CRC-32 of what is stored of an entry."""
    file.seek(entry.header_offset)
    head = file.read(_LOCAL.size)
    signature, name, extra = _LOCAL.unpack(head)
    if signature != b'PK\x03\x04':
        raise zipfile.BadZipFile(f'the header of {entry.filename} is damaged')
    file.seek(entry.header_offset + _LOCAL.size + name + extra)
    checksum, left = 0, entry.file_size
    while left:
        count = file.readinto(buffer[: min(left, len(buffer))])
        if not count:
            raise EOFError(f'{entry.filename} ends too early')
        checksum, left = isal_zlib.crc32(buffer[:count], checksum), left - count
    return checksum


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an archive of ``torch.save`` in which all fits its checksums; the pickle in
    it is not read. Files of the format before torch 1.6 have no checksums: False."""
    try:
        _check_kind(os.fspath(path))
        _check_archive(os.fspath(path))
        return zipfile.is_zipfile(path)
    except (OSError, pickle.UnpicklingError, *_DAMAGE):
        return False


def made_safe(loader: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap one of mmengine's checkpoint loaders so that it loads as :func:`load_checkpoint`."""

    @functools.wraps(loader)
    def safe(filename: str, map_location: Any = None) -> Any:
        with _translated(filename), _allowed_globals(), _weights_only_forced():
            return loader(filename, map_location)

    return safe


@contextmanager
def _weights_only_forced() -> Iterator[None]:
    """Within, ``torch.load`` is safe even where a caller passes ``weights_only=False``."""
    force, never = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
    before = {key: os.environ.pop(key, None) for key in (force, never)}
    os.environ[force] = '1'
    try:
        yield
    finally:
        del os.environ[force]
        os.environ.update({key: value for key, value in before.items() if value is not None})


@contextmanager
def _allowed_globals(more: Sequence[type] = ()) -> Iterator[None]:
    """Within, ``weights_only`` loading also admits what mmengine's checkpoints hold, and more."""
    known = torch.serialization.get_safe_globals()
    wanted = [x for x in (*_safe_globals(), *more) if x not in known]
    with torch.serialization.safe_globals(wanted):
        yield


@functools.lru_cache(maxsize=1)
def _safe_globals() -> tuple[Any, ...]:
    """Names are taken from ``__module__`` and ``__qualname__`` (pairs need torch >= 2.6)."""
    from mmengine.logging import HistoryBuffer

    methods = ('min', 'max', 'mean', 'current', 'statistics')

    def history_getattr(owner: Any, name: str) -> Any:
        if owner is not HistoryBuffer or name not in methods:
            raise pickle.UnpicklingError(f'Unsupported global: GLOBAL builtins.getattr of {name}')
        return getattr(owner, name)

    def scalar(dtype: np.dtype, value: Any) -> Any:
        if dtype.hasobject:
            raise pickle.UnpicklingError('Unsupported global: GLOBAL numpy.object_')
        return np.frombuffer(value, dtype)[0]

    def reconstruct(subtype: type, shape: tuple[int, ...], typecode: bytes) -> np.ndarray:
        if subtype is not np.ndarray:
            raise pickle.UnpicklingError(f'Unsupported global: GLOBAL numpy array of {subtype!r}')
        return np.empty(0, np.uint8)  # its state, which follows in the file, sets all

    aliases = [_alias(history_getattr, 'builtins', 'getattr')]
    for core in ('numpy.core', 'numpy._core'):  # numpy 1 and 2
        aliases.append(_alias(scalar, f'{core}.multiarray', 'scalar'))
        aliases.append(_alias(reconstruct, f'{core}.multiarray', '_reconstruct'))
    codes = '?bBhHiIlLqQefdg'
    dtypes = {type(np.dtype(code)) for code in codes} - {np.dtype}
    return (HistoryBuffer, np.ndarray, np.dtype, *dtypes, *aliases)


def _alias(function: Callable[..., Any], module: str, name: str) -> Callable[..., Any]:
    """A copy of the function that a checkpoint finds under the name of the real one."""
    copy = types.FunctionType(
        function.__code__, function.__globals__, name, None, function.__closure__
    )
    copy.__module__, copy.__qualname__ = module, name
    return copy


@contextmanager
def _translated(filename: str) -> Iterator[None]:
    """Turn what loading raises into errors that name the file and the remedy."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, FileNotFoundError):
        raise  # not the file's fault, or said already
    except urllib.error.URLError as error:
        raise FileNotFoundError(
            f'checkpoint {filename} cannot be fetched ({error}). Remedy: check the address and '
            'the network, or download the file elsewhere and give its local path.'
        ) from error
    except pickle.UnpicklingError as error:
        text = str(error)
        wants = re.search(r"(?:GLOBAL|class|function|but got) (?:<[\w -]+ )?'?(\w[\w.]*)", text)
        if wants is None or 'Unsupported operand' in text:
            raise _damaged(filename, error) from error
        raise ValueError(
            f'checkpoint {filename} was refused: it needs {wants[1]}, and loading that could run '
            'code. Allowed: tensors, plain containers, numpy numbers and arrays, '
            'mmengine.HistoryBuffer; nothing of it was run. Remedy: get the file from a source '
            'you trust, or save only its weights again with '
            "torch.save({'state_dict': model.state_dict()}, path)."
        ) from error
    except Exception as error:
        if not os.path.isfile(filename) and not isinstance(error, (RuntimeError, EOFError)):
            raise  # not about a file: an unknown model name, say
        raise _damaged(filename, error) from error


def _damaged(filename: str, error: Exception) -> ValueError:
    size = f', {os.path.getsize(filename)} bytes' if os.path.isfile(filename) else ''
    text = str(error).strip() or 'it ends too early'
    inner = re.search(r'WeightsUnpickler error:\s*(.+)', text)  # without advice to load it unsafely
    reason = inner[1] if inner else re.split(r'\n|\. In PyTorch|\. Re-running', text)[0]
    return ValueError(
        f'checkpoint {filename}{size} cannot be read: {type(error).__name__}: {reason}. It is '
        'truncated, damaged or no file of torch.save. Remedy: copy or download it again.'
    )
