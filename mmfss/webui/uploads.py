"""What visitors send: checked before it is decoded, and under names that can do no harm."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmfss.apis.images import as_bgr
from mmfss.webui.limits import Limits

FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF', 'PPM', 'GIF')
"""Pillow's names; MPO comes with JPEG. Others stay closed: some of
them start programs, as PostScript does."""
MAX_NAME_BYTES = 120
_WINDOWS_DEVICES = {'con', 'prn', 'aux', 'nul'} | {
    f'{port}{i}' for port in ('com', 'lpt') for i in range(1, 10)
}


def clean_name(name: str) -> str:
    """The name of a file without folders and without what file systems and archives dislike.

    Letters of all scripts stay. At most 120 bytes in UTF-8 besides the ending.
    """
    text = unicodedata.normalize('NFC', name).replace('\\', '/').rsplit('/', 1)[-1]
    text = ''.join('_' if c in '<>:"|?*' or _is_odd(c) else c for c in text)
    stem, suffix = os.path.splitext(text.strip(' .'))
    stem = stem.encode('utf-8', 'ignore')[:MAX_NAME_BYTES].decode('utf-8', 'ignore').rstrip(' .')
    if not stem or stem.casefold() in _WINDOWS_DEVICES:
        stem = f'image_{stem}'.rstrip('_')
    return stem + suffix[:12]


def _is_odd(character: str) -> bool:
    return unicodedata.category(character)[0] == 'C' or character in '\u2028\u2029'


def unused_name(name: str, taken: Iterable[str]) -> str:
    """``name``, or with a number before its ending where its stem is taken already: masks are
    named by the stem, on file systems that may not tell letter cases apart."""
    stems = {os.path.splitext(other)[0].casefold() for other in taken}
    stem, suffix = os.path.splitext(name)
    number, candidate = 2, stem
    while candidate.casefold() in stems:
        candidate, number = f'{stem}_{number}', number + 1
    return candidate + suffix


def check_header(path: str | os.PathLike, name: str, limits: Limits) -> None:
    """Refuse a file by its size and header, before any pixel is decoded.

    Args:
        path: the file.
        name: what messages call it.
        limits: of pixels and bytes.

    Raises:
        ValueError: No image, of another format, an animation, too large.
    """
    size = os.path.getsize(path)
    if size > limits.max_upload_bytes:
        raise ValueError(
            f'{name} has {size / 2**20:.1f} MB, allowed are {limits.max_upload_mb} MB; make it '
            'smaller'
        )
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise ValueError(_too_large(name, 'far more', limits)) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, KeyError) as error:
        raise ValueError(
            f'{name} is not an image, or damaged; these are read: JPEG, PNG, BMP, WebP, TIFF, PPM, '
            'GIF (still ones)'
        ) from error
    if width * height > limits.max_pixels:
        raise ValueError(_too_large(name, f'{width} x {height}', limits))


def _too_large(name: str, size: str, limits: Limits) -> str:
    return (
        f'{name} has {size} pixels, allowed are {limits.max_pixels / 1e6:g} million; make it '
        'smaller or cut it'
    )


def read_upload(path: str | os.PathLike, name: str, limits: Limits) -> np.ndarray:
    """Check and decode a file: uint8 (H, W, 3) BGR, upright.

    Raises:
        ValueError: See :func:`check_header` and :func:`mmfss.apis.images.as_bgr`; messages have
            the visitor's name of the file, not the server's path.
    """
    check_header(path, name, limits)
    try:
        return as_bgr(path)
    except (ValueError, OSError) as error:
        raise ValueError(str(error).replace(str(path), name)) from error
