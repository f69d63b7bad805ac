"""The file of one image's features: safetensors, checked down to the last bit when it is read.

The tensors lie in the file as flat bytes in the order of memory, under the names 000, 001, ...
(so any dtype will do); what they are is said in the metadata::

    entry     JSON: format, encoder, image, tensors: [[dtype, shape, strides], ...]
    checksum  crc32 of ``entry`` and crc32 of the bytes, 8 hexadecimal digits each

A file is read with plain reads, not memory-mapped: one that is replaced or lost on a network file
system would end the process otherwise. Each tensor gets memory of its own from torch, aligned as
torch aligns it, since some matrix libraries give other last bits on unaligned memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
import torch
from isal import isal_zlib
from torch import Tensor

FORMAT = 1
"""Version of the layout; goes up whenever a file would be read differently."""

SUFFIX = '.safetensors'
_MAX_HEADER = 2**20  # bytes; ours are below 1 KB per tensor


class DamagedEntry(Exception):
    """The file is not, whole and unchanged, what was written for this encoder and image."""


def pack(features: Iterable[Tensor]) -> list[Tensor]:
    """The features as they are kept: detached, dense, with no memory but their own.

    Values, dtype, shape and device stay, and so do strides where the tensor is dense
    (channels-last stays channels-last). A tensor that is so already is returned without a copy.

    Raises:
        ValueError: something is not a dense tensor.
    """
    with torch.inference_mode(False):  # what is kept may be needed outside of it, in training
        return [_pack(tensor) for tensor in features]


def _pack(tensor: Tensor) -> Tensor:
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        kind = tensor.layout if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ValueError(f'features to keep must be dense tensors, got {kind}')
    own = tensor.numel() * tensor.element_size()
    tensor = tensor.detach().resolve_conj().resolve_neg()
    whole = tensor.untyped_storage().nbytes() == own and _is_dense(tensor.shape, tensor.stride())
    return tensor if whole and not tensor.is_inference() else tensor.clone()


def _is_dense(shape: Iterable[int], strides: Iterable[int]) -> bool:
    """Whether the elements fill a piece of memory, each at a place of its own."""
    expected = 1
    for stride, side in sorted((st, s) for st, s in zip(strides, shape) if s > 1):
        if stride != expected:
            return False
        expected *= side
    return True


def as_bytes(tensor: Tensor) -> np.ndarray:
    """The bytes of a packed CPU tensor in the order of memory, uint8, sharing its memory."""
    flat = tensor.as_strided((tensor.numel(),), (1,))
    return flat.view(torch.uint8).numpy()


def encode(encoder: str, image: str, features: Iterable[Tensor]) -> bytes:
    """Content of the file of ``features``, as :func:`pack` gives them, of any device."""
    tensors = [tensor.cpu() for tensor in features]
    entry = json.dumps(
        dict(
            format=FORMAT,
            encoder=encoder,
            image=image,
            tensors=[[str(t.dtype)[6:], list(t.shape), list(t.stride())] for t in tensors],
        )
    )
    arrays = [as_bytes(tensor) for tensor in tensors]
    checksum = f'{isal_zlib.crc32(entry.encode()):08x}{_crc(arrays):08x}'
    named = {f'{index:03d}': array for index, array in enumerate(arrays)}
    return safetensors.numpy.save(named, dict(entry=entry, checksum=checksum))


def read(path: str | Path, encoder: str, image: str) -> list[Tensor]:
    """Read and check the file of an image's features; new CPU tensors.

    Raises:
        DamagedEntry: truncated, changed, of another encoder, image or format, or no such file at
            all; the text says which.
        FileNotFoundError: there is none.
        OSError: the file cannot be read.
    """
    with open(path, 'rb', buffering=0) as file, torch.inference_mode(False):
        size = file.seek(0, 2)
        file.seek(0)
        entry, checksum = _read_entry(file, size)
        wanted = dict(format=FORMAT, encoder=encoder, image=image)
        for name, value in wanted.items():
            if entry.get(name) != value:
                raise DamagedEntry(f'its {name} is {entry.get(name)}, not {value}')
        tensors = [
            torch.empty_strided(shape, strides, dtype=getattr(torch, dtype))
            for dtype, shape, strides in entry['tensors']
        ]
        arrays = [as_bytes(tensor) for tensor in tensors]
        if size - file.tell() != sum(array.nbytes for array in arrays):
            raise DamagedEntry('it has not the size that its header tells')
        for array in arrays:
            _fill(file, array)
    if _crc(arrays) != checksum:
        raise DamagedEntry('the checksum of the features is wrong')
    return tensors


def _read_entry(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The description in the metadata, and the checksum of the bytes that follow."""
    length = int.from_bytes(file.read(8), 'little')
    if not 0 < length <= min(size - 8, _MAX_HEADER):
        raise DamagedEntry('it is cut off or no safetensors file')
    try:
        meta = json.loads(file.read(length))['__metadata__']
        text, checksum = str(meta['entry']), int(meta['checksum'], 16)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedEntry('its header is garbage') from error
    if isal_zlib.crc32(text.encode(errors='replace')) != checksum >> 32:
        raise DamagedEntry('the checksum of its header is wrong')
    return json.loads(text), checksum & 0xFFFFFFFF


def _fill(file: BinaryIO, array: np.ndarray) -> None:
    """Read as many bytes as the array has; one read may bring fewer."""
    view = array.data
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise DamagedEntry('it ended while it was read')
        view = view[count:]


def _crc(arrays: Iterable[np.ndarray]) -> int:
    value = 0
    for array in arrays:
        value = isal_zlib.crc32(array.data, value)
    return value
