"""Images that people give: one, in any form; those in a folder; many, read ahead in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import mmcv
import numpy as np
from PIL import Image

from mmfss.datasets.grey_values import GreyValues
from mmfss.datasets.io import read_photo
from mmfss.files import walk
from mmfss.functional import RESIZES

ImageInput = str | os.PathLike | np.ndarray | Image.Image
"""A file, a uint8 array (H, W, 3) in BGR or (H, W) in grey, or an image of Pillow."""

Item = TypeVar('Item')
Read = TypeVar('Read')
_THREADS = 4  # that read ahead

SUFFIXES = (
    '.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.jp2', '.avif', '.ppm', '.pgm',
    '.gif',
)  # fmt: skip


def as_bgr(
    image: ImageInput, name: str | None = None, grey_values: GreyValues | None = None
) -> np.ndarray:
    """An image as uint8 (H, W, 3) BGR. Files are turned upright as their EXIF tag says.

    Args:
        image: See :data:`ImageInput`. Arrays are BGR, as everywhere in mmseg; a fourth channel
            (alpha) is dropped, grey ones are copied to three.
        name: What messages call it; default: its path.
        grey_values: What black and white stand for in photos of more than 8 bits, see
            :class:`mmfss.datasets.grey_values.GreyValues`; None: the whole range of 16 bits.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No image, an animation, floats without a range, or an array of another shape or
            dtype.
    """
    known = () if grey_values is None else (grey_values,)
    if isinstance(image, (str, os.PathLike)):
        return read_photo(image, '', *known)
    name = name or 'the image'
    if isinstance(image, Image.Image):
        return read_photo(image, name, *known)
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f'{name} must be a path, an array or an image of Pillow, got {type(image).__name__}'
        )
    form = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))
    if image.dtype != np.uint8 or not form or 0 in image.shape:
        raise ValueError(
            f'{name} must be a uint8 array (H, W, 3) in BGR, or (H, W) in grey, of at least one '
            f'pixel; got {image.dtype} {image.shape}'
        )
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def to_model_size(image: np.ndarray, side: int, resize: str = 'bilinear') -> np.ndarray:
    """Resize (H, W, 3) to (side, side, 3) as ``Resize`` of the test pipelines does, without keeping
    the proportions; ``resize`` is that of the model, out of ``RESIZES``."""
    return mmcv.imresize(image, (side, side), **RESIZES[resize])


def mask_to_model_size(mask: np.ndarray, side: int) -> np.ndarray:
    """Resize a mask (H, W) to (side, side) by nearest neighbour, as the test pipelines do."""
    return mmcv.imresize(mask, (side, side), interpolation='nearest')


def files_below(folder: str | os.PathLike) -> list[Path]:
    """Image files in a folder and below, sorted by their path; links to folders are followed, and
    hidden ones are left out.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There is no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f'folder of images {root} not found; give an existing folder')
    found = sorted(path for path in _files(root) if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(
            f'folder {root} holds no image; files with these endings are read, in folders below '
            f'too: {", ".join(SUFFIXES)}'
        )
    return found


def other_files_below(folder: str | os.PathLike) -> list[Path]:
    """Files that :func:`files_below` leaves out for their ending."""
    return sorted(path for path in _files(folder) if path.suffix.lower() not in SUFFIXES)


def _files(folder: str | os.PathLike) -> Iterator[Path]:
    return (path for path, is_folder in walk(folder) if not is_folder)


def read_ahead(
    read: Callable[[Item], Read], items: Iterable[Item], batch: int = 1
) -> Iterator[list[Future[Read]]]:
    """What ``read`` gives for each item, in order, in lists of ``batch`` (the last may be shorter).

    While the caller works on one list the next is read in threads: ``items`` is asked for one list
    more than was handed out. A list is emptied when the next one is asked for, so that two of them
    are held at a time. An error, of ``read`` or of ``items``, is the result of its own place; after
    one of ``items`` there is nothing more.

    Args:
        read: runs in a thread.
        items: may be endless.
        batch: >= 1.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(min(batch, _THREADS))

    def submit() -> list[Future[Read]]:
        begun: list[Future[Read]] = []
        try:
            while len(begun) < batch:
                begun.append(pool.submit(read, next(source)))
        except StopIteration:
            pass
        except Exception as error:  # of the caller's own generator; results before it come first
            failed: Future[Read] = Future()
            failed.set_exception(error)
            begun.append(failed)
        return begun

    try:
        coming = submit()
        while coming:
            now, coming = coming, submit()
            yield now
            now.clear()  # makes room for what is read next
    finally:
        pool.shutdown(cancel_futures=True)
