"""TIFF files whose pixels Pillow gives wrongly or not at all: of more than 8 bits, floats, bands.

Pillow opens some of them as what they are not (16-bit colours stored band after band, packed 12
bits, signed values, 16-bit white-is-zero), and others not at all. Sizes are checked before anything
is decoded, see :mod:`mmfss.datasets.tiff_parts`.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from PIL import Image, TiffImagePlugin

from mmfss.datasets.tiff_parts import (
    BITS,
    BLACK_IS_ZERO,
    COMPRESSION,
    EXTRA,
    FORMAT,
    NONE,
    PACKBITS,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    RGB,
    SAMPLES,
    WHITE_IS_ZERO,
    Refused,
    decoded,
)

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
ORIENTATION = 274
"""Tag of how a photo is to be turned, in EXIF as in TIFF."""
SIDEWAYS = (5, 6, 7, 8)
"""Its values that exchange the sides."""
_SUBFILE, _OLD_SUBFILE, _DESCRIPTION, _DEPTH = 254, 255, 270, 32997
_PALETTE, _CMYK, _YCBCR = 3, 5, 6
_ALPHA = ((1,), (2,))
_NOT_PILLOWS = (34712, 34887, 50001, 50002)  # JPEG 2000, LERC, WebP, JPEG XL
_BYTES_PER_PIXEL = 8
"""At most, of an image of the largest size that Pillow takes; of smaller ones accordingly more."""
_TILE_PIXELS = 2**24  # that a tile may have more than its image
_PAGES = 1000
_FORMATS = {4: 'of no stated kind', 5: 'complex', 6: 'complex'}
_COLOURS = {
    4: 'a transparency mask', _CMYK: 'CMYK', _YCBCR: 'YCbCr without JPEG', 8: 'CIELAB',
    9: 'ICC LAB', 10: 'ITU LAB', 32803: 'raw of a sensor', 32844: 'LogL', 32845: 'LogLuv',
    34892: 'linear raw data', 51177: 'a depth map',
}  # fmt: skip
NO_ALPHA = (
    'band {band} of image {name} is marked as alpha, and by its values it is another picture '
    '(infrared, say); it is left out; said once'
)
_ALPHA_ENDS = 0.5  # share of pixels that are hidden or shown wholly, in a band that is alpha
_TURNS = {2: (0, 1), 3: (2, 0), 4: (2, 1), 5: (3, 1), 6: (3, 0), 7: (1, 1), 8: (1, 0)}
"""Orientation -> quarter turns against the clock, then whether left and right are exchanged."""
logging.getLogger('tifffile').addHandler(logging.NullHandler())  # what is wrong is raised here


@dataclass(frozen=True)
class Pixels:
    """What a file holds, upright.

    Attributes:
        values: (H, W) grey or (H, W, 3) RGB, integers or floats of the machine's byte order.
        bits: B where values are 0..2**B - 1, else None: signed ones below zero, more than 16 bits,
            floats.
        white_is_zero: the largest value is black.
        nodata: value of pixels that hold none.
        remark: what is to be said of bands that are left out or guessed, or ''.
    """

    values: np.ndarray
    bits: int | None
    white_is_zero: bool = False
    nodata: float | None = None
    remark: str = ''


def is_tiff(path: str | os.PathLike) -> bool:
    """Whether a file begins as one."""
    with open(path, 'rb') as file:
        return file.read(4) in _MAGIC


def is_plain(image: Image.Image) -> bool:
    """Whether Pillow gives the pixels of a TIFF, which it has opened, as they are: 8 bits and less,
    and no bands but colours and alpha."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return True
    tags = image.tag_v2
    bits, colour = tags.get(BITS, (1,)), tags.get(PHOTOMETRIC)
    if f'{tags.get(_DESCRIPTION, "")}'.startswith('ImageJ=') or tags.get(_DEPTH, 1) != 1:
        return False  # may hold more than one picture
    if colour == _CMYK and max(bits) == 16 and tags.get(PLANAR, 1) == 1:
        return True
    method = tags.get(COMPRESSION, NONE)
    if (method, colour) == (NONE, _YCBCR) or method in _NOT_PILLOWS:
        return False
    if method == PACKBITS and tags.get(PREDICTOR, 1) != 1:  # which libtiff passes over
        return False
    if max(bits) > 8 or any(kind not in (1, 4) for kind in tags.get(FORMAT, (1,))):
        return False
    if colour not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, _PALETTE, _CMYK, _YCBCR):
        return False
    extra = tuple(tags.get(EXTRA, ()))
    return not extra or (extra in _ALPHA and tags.get(SAMPLES, 1) in (2, 4, 5))


def page_of(image: Image.Image, source: str | os.PathLike | BinaryIO) -> tuple[int, int]:
    """Number of the one page of a file that is no reduced copy and no mask of another; and how many
    such pages there are, at least."""
    frames = getattr(image, 'n_frames', 1)
    if frames == 1:
        return 0, 1
    with _opened(source) as file:
        found = _full_pages(file)
    return found[0], len(found)


def read(source: str | os.PathLike | BinaryIO, name: str) -> Pixels:
    """Read a TIFF, turned as its Orientation says, as Pillow does with every TIFF.

    Args:
        source: The file.
        name: What messages call it.

    Raises:
        Refused: It is of a kind that is not read, or has several pages.
        ValueError: It is truncated or damaged. Image.DecompressionBombError: It is too large.
    """
    with _opened(source) as file:
        found = _full_pages(file)
        if len(found) > 1:
            raise Refused(
                f'image {name} has {len(file.pages)} frames or pages, allowed are still images; '
                'save the one that you mean'
            )
        page = cast('TiffPage', file.pages[found[0]])
        colours, remark = _check_kind(page, name)
        _check_size(page)
        alpha = tuple(page.extrasamples) in _ALPHA
        values = decoded(file, page, colours + alpha, name)
        if alpha and values.ndim == 3 and values.shape[2] == colours + 1:
            if not is_alpha(values[..., -1]):
                remark = NO_ALPHA.format(name=name, band=colours + 1)
            values = values[..., 0] if colours == 1 else values[..., :3]
        bits: int | None = page.bitspersample
        if values.dtype.kind not in 'ui' or page.bitspersample > 16:
            bits = None
        elif values.dtype.kind == 'i':
            # those that no value below zero shows to be signed are read as ever
            bits = None if page.bitspersample == 8 or (values < 0).any() else page.bitspersample
            values = values if bits is None else values.view(f'u{values.dtype.itemsize}')
        white = page.photometric == WHITE_IS_ZERO
        nodata = page.nodata if 42113 in page.tags else None
        values = turned(values, page.tags.valueof(ORIENTATION, 1))
        return Pixels(np.ascontiguousarray(values), bits, white, nodata, remark)


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) as its Orientation, 1 to 8, is to be shown."""
    quarters, mirrored = _TURNS.get(orientation, (0, 0))
    values = np.rot90(values, quarters)
    return values[:, ::-1] if mirrored else values


def is_alpha(band: np.ndarray) -> bool:
    """Whether most of the values of a band, uint (H, W), hide or show their pixels wholly."""
    step = max(1, math.isqrt(band.size // 2**18))
    some = band[::step, ::step]
    top = np.iinfo(band.dtype).max if band.dtype.kind in 'ui' else 1
    return bool(np.mean((some == 0) | (some == top)) >= _ALPHA_ENDS)


def shape_of(path: str | os.PathLike) -> tuple[int, int]:
    """(H, W) of what :func:`read` gives, from the header.

    Raises:
        ValueError: It is truncated or damaged.
    """
    (height, width), orientation = frame_of(path)
    return (width, height) if orientation in SIDEWAYS else (height, width)


def frame_of(path: str | os.PathLike) -> tuple[tuple[int, int], int]:
    """(H, W) as stored, and the Orientation, 1 to 8, from the header.

    Raises:
        ValueError: It is truncated or damaged.
    """
    with _opened(path) as file:
        page = cast('TiffPage', file.pages[_full_pages(file)[0]])
        orientation = page.tags.valueof(ORIENTATION, 1)
        known = int(orientation) if orientation in _TURNS else 1
        return (page.imagelength, page.imagewidth), known


@contextmanager
def _opened(source: str | os.PathLike | BinaryIO) -> Iterator[TiffFile]:
    """A file opened by tifffile, which raises nearly anything on damaged ones."""
    from tifffile import TiffFile

    try:
        with TiffFile(source) as file:
            yield file
    except (Refused, Image.DecompressionBombError, MemoryError, PermissionError):
        raise
    except Exception as error:
        raise ValueError(f'{type(error).__name__}: {error}') from error


def _full_pages(file: TiffFile) -> list[int]:
    """Numbers of the pages that are no reduced copies and no masks, up to the second; the first
    where there are only such."""
    found = []
    for number in range(_PAGES):
        try:
            page = file.pages[number]
        except IndexError:
            break
        kind = page.tags.valueof(_SUBFILE, 0)
        if not (kind & 5 or page.tags.valueof(_OLD_SUBFILE) == 2):
            found.append(number)
        images = re.search(r'^images=(\d+)', f'{page.tags.valueof(_DESCRIPTION, "")}', re.MULTILINE)
        if page.is_imagej and images and int(images[1]) > 1 and len(file.pages) == 1:
            found.append(number)
        if len(found) > 1:
            break
    return found or [0]


def _check_kind(page: TiffPage, name: str) -> tuple[int, str]:
    """How many of the bands are read, and what is to be said of the others."""
    bands, colour, extra = page.samplesperpixel, int(page.photometric), tuple(page.extrasamples)
    bits = page.bitspersample
    said = f'image {name} has {bands} bands of {bits} bits per pixel'
    remedy = 'write grey values, or red, green and blue, to a file of 8 or 16 bits'
    if colour in _COLOURS or colour not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        kind = _COLOURS.get(colour, f'of photometric interpretation {colour}')
        raise Refused(
            f'image {name} has colours that are not read, {kind} of {bits} bits; {remedy}'
        )
    if page.sampleformat in _FORMATS or page.dtype is None:
        kind = _FORMATS.get(page.sampleformat, f'of {bits} bits')
        raise Refused(f'image {name} has pixels that are not read, {kind}; {remedy}')
    if page.imagedepth != 1:
        raise Refused(
            f'image {name} is a volume of {page.imagedepth} layers; save the one you mean'
        )
    if colour == RGB and bands >= 3:
        if bands == 3 or extra in _ALPHA:
            return 3, ''
        return 3, (
            f'{said}: red, green and blue and {bands - 3} that are no alpha, which are left out; '
            'said once'
        )
    if bands == 1 or (bands == 2 and extra in _ALPHA):
        return 1, ''
    if bands == 2:
        return 1, f'{said}: the first is read as grey, the second left out; said once'
    if bands == 3:
        return 3, f'{said} that are not said to be colours; read as red, green, blue; said once'
    raise Refused(
        f'{said}, and which of them are red, green and blue it does not say; write these three, or '
        'the one that you mean, to a file of their own (e.g. gdal_translate -b 4 -b 3 -b 2 -co '
        'PHOTOMETRIC=RGB)'
    )


def _check_size(page: TiffPage) -> None:
    """Refuse a file that would take more than the largest that Pillow takes."""
    pixels, limit = page.imagewidth * page.imagelength, Image.MAX_IMAGE_PIXELS
    needed = pixels * page.samplesperpixel * page.dtype.itemsize  # type: ignore[union-attr]
    if limit is not None and (pixels > 2 * limit or needed > 2 * limit * _BYTES_PER_PIXEL):
        raise Image.DecompressionBombError(
            f'{page.imagewidth} x {page.imagelength} pixels of {page.samplesperpixel} bands, '
            f'{needed / 2**20:.0f} MB; the limit is {2 * limit} pixels of {_BYTES_PER_PIXEL} bytes'
        )
    if page.is_tiled and page.tilewidth * page.tilelength > pixels + _TILE_PIXELS:
        raise ValueError(f'its tiles have {page.tilewidth} x {page.tilelength} pixels')
