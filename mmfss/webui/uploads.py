"""What visitors send: checked before it is decoded, under names that can do no harm."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmfss.apis.images import as_bgr
from mmfss.datasets import tiff
from mmfss.datasets.grey_values import GreyValues
from mmfss.webui.limits import Limits

T = TypeVar('T')
Upload = tuple[Path, str]
"""A file on the server, and what the visitor calls it."""
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
    odd = '<>:"|?*\u2028\u2029'
    text = ''.join('_' if c in odd or unicodedata.category(c)[0] == 'C' else c for c in text)
    stem, suffix = os.path.splitext(text.strip(' .'))
    stem = stem.encode('utf-8', 'ignore')[:MAX_NAME_BYTES].decode('utf-8', 'ignore').rstrip(' .')
    if not stem or stem.casefold() in _WINDOWS_DEVICES:
        stem = f'image_{stem}'.rstrip('_')
    return stem + suffix[:12]


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
    too_large = None
    try:
        try:
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
        except UnidentifiedImageError:
            if not tiff.is_tiff(path):  # one that Pillow does not know may be read all the same
                raise
            height, width = tiff.shape_of(path)
        if width * height > limits.max_pixels:
            too_large = f'{width} x {height}'
    except Image.DecompressionBombError:
        too_large = 'far more'
    except (OSError, ValueError, SyntaxError, EOFError, KeyError) as error:
        raise ValueError(
            f'{name} is not an image, or damaged; these are read: JPEG, PNG, BMP, WebP, TIFF, PPM, '
            'GIF (still ones)'
        ) from error
    if too_large is not None:
        raise ValueError(
            f'{name} has {too_large} pixels, allowed are {limits.max_pixels / 1e6:g} million; make '
            'it smaller or cut it'
        )


def read_upload(
    path: str | os.PathLike,
    name: str,
    limits: Limits,
    say: Callable[[str], object] = lambda text: None,
) -> np.ndarray:
    """Check and decode a file: uint8 (H, W, 3) BGR, upright.

    Args:
        path: the file.
        name: what messages call it.
        limits: of pixels and bytes, and how more than 8 bits are read.
        say: called with what is lost of grey values and bands, once.

    Raises:
        ValueError: See :func:`check_header` and :func:`mmfss.apis.images.as_bgr`; messages have
            the visitor's name of the file, not the server's path.
    """
    check_header(path, name, limits)
    try:
        told = partial(_renamed, say, str(path), name)
        return as_bgr(path, None, GreyValues(**(limits.grey_values or {}), say=told))
    except (ValueError, OSError) as error:
        raise ValueError(str(error).replace(str(path), name)) from error


def _renamed(say: Callable[[str], object], path: str, name: str, text: str) -> None:
    say(text.replace(path, name))


def take(
    uploads: Iterable[Upload], known: Iterable[str], limit: int, read: Callable[[Path, str], T]
) -> tuple[list[T], list[str]]:
    """Read uploads, under names that are harmless and differ.

    Args:
        uploads: the files.
        known: names that are taken.
        limit: of all names.
        read: of a file and its name; may raise ValueError and OSError.

    Returns:
        What was read, and why which others were left out.
    """
    names, taken, refused = list(known), [], []
    for path, given in uploads:
        name = unused_name(clean_name(given), names)
        if len(names) >= limit:
            refused.append(f'{clean_name(given)} was left out: {limit} images are the most')
            continue
        try:
            taken.append(read(path, name))
            names.append(name)
        except (ValueError, OSError) as error:
            refused.append(str(error))
    return taken, refused
