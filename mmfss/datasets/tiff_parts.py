"""The parts of a TIFF, strips and tiles: decompressed, unpacked and put together.

tifffile knows their places and most codecs; what it cannot decompress without further packages, LZW
and PackBits above all, OpenCV does. No part gives more than its header says.
"""

from __future__ import annotations

import lzma
import math
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, PREDICTOR = 258, 259, 262, 277, 284, 317
EXTRA, FORMAT = 338, 339
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
NONE, LZW, PACKBITS = 1, 5, 32773
_DEFLATE, _LZMA = (8, 32946), 34925
_PACKED = (10, 12, 14)


class Refused(ValueError):
    """A file that is whole, but of a kind that is not read; the message says which."""


def decoded(file: TiffFile, page: TiffPage, colours: int, name: str) -> np.ndarray:
    """(H, W), or (H, W, C) of the bands that are read."""
    from tifffile import TIFF

    method = getattr(page.compression, 'name', f'method {page.compression}')
    refused = Refused(
        f'image {name} has pixels of {page.bitspersample} bits, compressed by {method} (predictor '
        f'{int(page.predictor)}), which are not read here: pip install imagecodecs, or save it '
        'uncompressed or with deflate'
    )
    packed = page.bitspersample in _PACKED and page.fillorder == 1 and page.predictor == 1
    whole = page.bitspersample in (8, 16, 32, 64)
    known = page.compression == NONE or page.compression in TIFF.DECOMPRESSORS
    known &= page.predictor == 1 or page.predictor in TIFF.UNPREDICTORS
    if page.compression == PACKBITS and page.predictor != 1:
        raise Refused(
            f'image {name} is compressed by PACKBITS with a predictor, which TIFF does not '
            'know and readers take in two ways; save it uncompressed or with deflate'
        )
    if not (packed or whole):
        raise refused
    colours = min(colours, page.samplesperpixel)
    if known:
        try:
            out = _by_tifffile(file, page, colours, packed)
        except (ImportError, NotImplementedError) as error:  # of a codec that is not installed
            raise refused from error
    else:
        decompressed = None
        if whole and page.compression in (LZW, PACKBITS, *_DEFLATE):
            decompressed = _by_cv2(file, page, colours)
        if decompressed is None:
            raise refused
        out = decompressed
    return out if colours > 1 else out[..., 0]


def _by_tifffile(file: TiffFile, page: TiffPage, colours: int, packed: bool) -> np.ndarray:
    """(H, W, C)"""
    out = np.zeros((page.imagelength, page.imagewidth, colours), page.dtype)
    if page.nodata:
        out[...] = page.nodata
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    total = len(page.dataoffsets)
    if total < math.prod(page.chunked) or len(page.databytecounts) < total or total % planes:
        raise ValueError(f'it lists {total} parts, its size asks for {math.prod(page.chunked)}')
    for index in range(total if planes == 1 else total // planes * min(planes, colours)):
        part = _part(file, page, index, packed)
        if part is None:
            continue
        data, (plane, _, top, left, _) = part
        height, width = min(len(data), len(out) - top), min(data.shape[1], out.shape[1] - left)
        bands = slice(plane, plane + 1) if planes > 1 else slice(None)
        out[top : top + height, left : left + width, bands] = data[:height, :width, :colours]
    return out


def _part(
    file: TiffFile, page: TiffPage, index: int, packed: bool
) -> tuple[np.ndarray, tuple[int, ...]] | None:
    """A strip or tile, (h, w, C), and where it belongs; None for one that the file leaves out."""
    offset, size = page.dataoffsets[index], page.databytecounts[index]
    if not size:
        return None
    if offset + size > file.filehandle.size:
        raise ValueError(f'part {index} ends at byte {offset + size} of {file.filehandle.size}')
    file.filehandle.seek(offset)
    data = file.filehandle.read(size)
    rows, columns = page.chunks[:2] if page.planarconfig != 2 else page.chunks[-2:]
    samples = 1 if page.planarconfig == 2 else page.samplesperpixel
    wanted = rows * -(-columns * samples * page.bitspersample // 8)
    _check_expansion(data, page.compression, wanted)
    if packed:
        if page.compression != NONE:
            from tifffile import TIFF

            data = TIFF.DECOMPRESSORS[page.compression](data)
        values = _unpacked(bytes(data), page.bitspersample, columns * samples)
        values = values.astype(page.dtype).reshape(-1, columns, samples)
        across = -(-page.imagewidth // columns)
        down = -(-page.imagelength // rows)
        plane, inside = divmod(index, across * down)
        where: tuple[int, ...] = (plane, 0, inside // across * rows, inside % across * columns, 0)
        if len(values) < min(rows, page.imagelength - where[2]):
            raise ValueError(f'part {index} is too short')
        return values, where
    decoded, where, shape = page.decode(data, index, jpegtables=page.jpegtables)
    return None if decoded is None else (decoded.reshape(shape)[0], where)


def _check_expansion(data: bytes, compression: int, wanted: int) -> None:
    """Refuse a part that unpacks to more than its header says."""
    if compression in _DEFLATE:
        got = len(zlib.decompressobj().decompress(data, wanted + 1))
    elif compression == _LZMA:
        got = len(lzma.LZMADecompressor().decompress(data, wanted + 1))
    else:
        return
    if got > wanted:
        raise ValueError(f'a part holds more than the {wanted} bytes that its header says')


def _unpacked(data: bytes, bits: int, run: int) -> np.ndarray:
    """Integers of ``bits`` bits, the first bit first; each ``run`` of them ends with a byte."""
    row = -(-run * bits // 8)
    rows = np.frombuffer(data, np.uint8, len(data) // row * row).reshape(-1, row)
    out = np.empty((len(rows), run), np.uint16)
    weights = (1 << np.arange(bits)[::-1]).astype(np.uint16)
    step = max(1, 2**20 // row)
    for top in range(0, len(rows), step):
        single = np.unpackbits(rows[top : top + step], axis=1)[:, : run * bits]
        out[top : top + step] = single.reshape(-1, run, bits) @ weights
    return out


def _by_cv2(file: TiffFile, page: TiffPage, colours: int) -> np.ndarray | None:
    """What OpenCV decompresses and tifffile does not, (H, W, C); None where it does not either.

    OpenCV mixes up bands that are stored one after another and some orientations, so that it gets
    each part of a file as one of its own.
    """
    import cv2

    bands = page.samplesperpixel if page.planarconfig != 2 else 1
    if bands not in (1, 3, 4):
        return None
    planes = []
    for plane in range(1 if bands > 1 else min(colours, page.samplesperpixel)):
        data = np.frombuffer(_alone(file, page, plane, bands), np.uint8)
        found = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        shape = (page.imagelength, page.imagewidth, *([bands] if bands > 1 else []))
        if found is None or found.dtype != page.dtype or found.shape != shape:
            return None
        planes.append(found)
    if bands == 1:
        return np.stack(planes, axis=-1)
    return planes[0][..., [2, 1, 0, 3][:colours]]


def _alone(file: TiffFile, page: TiffPage, plane: int, bands: int) -> bytes:
    """A TIFF of one plane of a page, its parts copied as they are compressed."""
    total = len(page.dataoffsets) // (page.samplesperpixel if page.planarconfig == 2 else 1)
    places = range(plane * total, (plane + 1) * total)
    order, parts, starts = file.byteorder, [], []
    here = 8
    for place in places:
        offset, size = page.dataoffsets[place], page.databytecounts[place]
        if not size or offset + size > file.filehandle.size:
            raise ValueError(f'part {place} is cut off')
        file.filehandle.seek(offset)
        parts.append(file.filehandle.read(size))
        starts.append(here)
        here += size
    sizes = [len(part) for part in parts]
    tags = {
        256: [page.imagewidth], 257: [page.imagelength], BITS: [page.bitspersample] * bands,
        COMPRESSION: [page.compression], PHOTOMETRIC: [RGB if bands > 1 else BLACK_IS_ZERO],
        SAMPLES: [bands], PLANAR: [1], PREDICTOR: [page.predictor],
        FORMAT: [page.sampleformat] * bands,
    }  # fmt: skip
    if page.is_tiled:
        tags |= {322: [page.tilewidth], 323: [page.tilelength], 324: starts, 325: sizes}
    else:
        tags |= {273: starts, 278: [page.rowsperstrip], 279: sizes}
    if bands == 4:
        tags[EXTRA] = [2]
    entries, lists, after = b'', b'', here + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        values = [int(value) for value in tags[tag]]
        raw = struct.pack(f'{order}{len(values)}I', *values)
        inside = len(raw) == 4
        entries += struct.pack(f'{order}HHI', tag, 4, len(values))
        entries += raw if inside else struct.pack(f'{order}I', after + len(lists))
        lists += b'' if inside else raw
    head = (b'II' if order == '<' else b'MM') + struct.pack(f'{order}HI', 42, here)
    count = struct.pack(f'{order}H', len(tags))
    return b''.join([head, *parts, count, entries, b'\0' * 4, lists])
