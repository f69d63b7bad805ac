"""Values of more than 8 bits per channel in files of other formats than TIFF: Pillow gives grey
ones, and of colours the high bytes alone."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from mmfss.datasets.tiff import Pixels

_GREY_16_BIT = ('I;16', 'I;16B', 'I;16L', 'I;16N')
_COLOUR_16_BIT = ('RGB;16B', 'RGBA;16B', 'LA;16B')
_CODESTREAM = b'\xff\x4f\xff\x51'  # of JPEG 2000: its begin, and the marker of sizes
_DEPTH = 42  # bytes from there to the depth of the first component


def grey_pixels(
    image: Image.Image, rawmode: str | None, kind: str | None = None, depth: int = 16
) -> Pixels | None:
    """Of a loaded image of Pillow with one channel of more than 8 bits; None for any other.

    Args:
        image: The image.
        rawmode: Pillow's name of the form of pixels in its file.
        kind: Pillow's name of its format, which turned copies do not have.
        depth: Bits that the file states; Pillow spreads them to 16.
    """
    if image.mode == 'F':
        return Pixels(np.asarray(image), None)
    if not image.mode.startswith('I'):
        return None
    values = np.asarray(image)
    forms = (f'{rawmode}', image.mode)
    if not any(form.startswith(_GREY_16_BIT) for form in forms) and kind != 'PPM':
        return Pixels(values, None)  # of 32 bits
    depth = depth if depth > 8 else 16
    return Pixels(values.astype(np.uint16) >> (16 - depth), depth)


def depth_of(image: Image.Image, rawmode: object) -> int:
    """Bits per channel that a file of colours, or one whose grey values Pillow spreads, states, as
    far as more than 8 are read; else 8.

    Args:
        image: As Pillow opened it, not loaded.
        rawmode: See :func:`grey_pixels`.
    """
    if image.format == 'PNG':
        return 16 if rawmode in (*_COLOUR_16_BIT, 'I;16B') else 8
    if image.format == 'PPM' and isinstance(rawmode, tuple):
        most = rawmode[-1] if isinstance(rawmode[-1], int) else 255
        if most & (most + 1):  # no power of two: Pillow spreads it
            return 16 if image.mode == 'I' else 8
        return max(8, most.bit_length())
    if image.format == 'JPEG2000' and image.fp is not None:
        here = image.fp.tell()
        image.fp.seek(0)
        head = image.fp.read(2**16)
        image.fp.seek(here)
        start = head.find(_CODESTREAM)
        if 0 <= start < len(head) - _DEPTH:
            return max(8, (head[start + _DEPTH] & 127) + 1)
    return 8


def jpeg_coding(path: str | os.PathLike) -> str | None:
    """What is unusual in a JPEG, '12 bits per channel' say; None for other files, and cut ones."""
    with open(path, 'rb') as file:
        if file.read(2) != b'\xff\xd8':
            return None
        for _ in range(200):  # markers
            head = file.read(4)
            if len(head) < 4 or head[0] != 0xFF:
                return None
            if 0xC0 <= head[1] <= 0xCF and head[1] not in (0xC4, 0xC8, 0xCC):
                bits, lossless = file.read(1)[:1], head[1] in (0xC3, 0xC7, 0xCB, 0xCF)
                if not bits or (bits[0] == 8 and not lossless):
                    return None
                return f'{bits[0]} bits per channel' + ', lossless' * lossless
            file.seek(int.from_bytes(head[2:], 'big') - 2, os.SEEK_CUR)
    return None


def colour_pixels(path: str | os.PathLike, shape: tuple[int, int]) -> np.ndarray | None:
    """The values of a file of (H, W) as OpenCV gives them: uint16 (H, W) or (H, W, 3) RGB; None
    where it gives others."""
    import cv2  # takes long, and most photos need it not

    values = cv2.imread(os.fspath(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.shape[:2] != shape:
        return None
    if values.ndim == 2:
        return values
    return values[..., 2::-1] if values.shape[2] >= 3 else values[..., 0]
