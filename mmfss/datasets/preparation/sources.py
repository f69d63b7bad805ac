"""Reading downloads: lists, image sizes, black-and-white and colour-coded masks."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmfss.datasets.io import image_shape, read_image, save_png
from mmfss.datasets.preparation.jobs import Done, read_complete
from mmfss.datasets.prepared import mask_path
from mmfss.words import repeated

Colour = tuple[int, int, int]
Content = TypeVar('Content')
THRESHOLD = 128
BLACK_WHITE = ((0, 0, 0), (255, 255, 255))
"""Palette of masks of 0 and 1: one bit a pixel, several times faster to write, and to be seen."""
_NO_CODE = 254


def find_folder(path: str | os.PathLike, remedy: str) -> Path:
    """The path, if it is a folder; FileNotFoundError with the remedy if not."""
    if not Path(path).is_dir():
        raise FileNotFoundError(f'folder {path} not found; {remedy}')
    return Path(path)


def read_names(path: str | os.PathLike) -> list[str]:
    """The lines of a list, without empty ones.

    Raises:
        FileNotFoundError: No such file. ValueError: It is empty, no UTF-8, or has a line twice.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'list not found: {path}')
    try:
        text = Path(path).read_text(encoding='utf-8-sig')  # editors may put a mark before the text
    except UnicodeDecodeError as error:
        raise ValueError(f'list {path} is no UTF-8 text ({error}); save it as UTF-8') from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    twice = repeated(names)
    if twice or not names:
        what = f'has lines twice: {sorted(twice)[:5]}' if twice else 'is empty'
        raise ValueError(f'list {path} {what}; a list has one name a line, each once')
    return names


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) of an image as its header says; the pixels are not decoded.

    Raises:
        FileNotFoundError: No such file. ValueError: No image, or one of more pixels than Pillow
            takes.
    """
    try:
        try:
            with Image.open(path) as image:
                return image.height, image.width
        except UnidentifiedImageError:
            return image_shape(path)  # of a TIFF that Pillow does not know
    except FileNotFoundError:
        raise FileNotFoundError(f'image not found: {path}') from None
    except Image.DecompressionBombError as error:
        raise ValueError(f'image {path} is too large to be read: {error}; shrink it') from error
    except (UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise ValueError(f'cannot read image {path}: {error}; download it again') from error


def check_size(mask: np.ndarray, path: str | os.PathLike, shape: tuple[int, int]) -> None:
    """ValueError if a mask is not of its image's (height, width)."""
    if mask.shape[:2] != tuple(shape):
        raise ValueError(
            f'mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels (width x height), its image '
            f'{shape[1]} x {shape[0]}; they must be equal'
        )


def binary_mask(path: str | Path, shape: tuple[int, int]) -> np.ndarray:
    """A mask drawn in black and white as uint8 (height, width) of 0 and 1.

    Grey (borders are often smoothed) counts as white from :data:`THRESHOLD` of 255 on, as the
    papers that use these datasets read them; colour is turned to grey first.

    Raises:
        FileNotFoundError, ValueError: No such file, damaged, of another size than its image.
    """
    bgr = read_image(path)
    check_size(bgr, path, shape)
    grey = np.asarray(Image.fromarray(np.ascontiguousarray(bgr[..., ::-1])).convert('L'))
    return (grey >= THRESHOLD).astype(np.uint8)


def coded_mask(
    path: str | Path, codes: Mapping[Colour, int], shape: tuple[int, int], round_to: int = 1
) -> np.ndarray:
    """A mask of RGB codes as label values, uint8 (height, width).

    Args:
        path: The file.
        codes: ``{(red, green, blue): label}``, labels up to 253, or 255.
        shape: (height, width) of its image.
        round_to: 255 takes each channel for 0 below 128 and for 255 from there on.

    Raises:
        FileNotFoundError: No such file. ValueError: Damaged, of another size than its image, or
            with colours that are no code; they are named.
    """
    rgb = read_image(path)[..., ::-1]
    check_size(rgb, path, shape)
    if round_to == 255:
        rgb = (rgb >= THRESHOLD) * np.uint8(255)
    packed = rgb[..., 0].astype(np.uint32)
    for channel in (1, 2):
        packed <<= 8
        packed |= rgb[..., channel]
    table = np.full(1 << 24, _NO_CODE, np.uint8)  # images of 50 megapixels: no sorting
    for (red, green, blue), label in codes.items():
        table[(red << 16) + (green << 8) + blue] = label
    labels = table[packed]
    unknown = np.unique(packed[labels == _NO_CODE])
    if len(unknown):
        shown = [(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in unknown[:5]]
        raise ValueError(
            f'mask {path} has {len(unknown)} colours outside the class table: {shown}; allowed '
            f'(red, green, blue) are {sorted(codes)}; it was altered (lossy compression, scaling) '
            'or is of another dataset: download it again'
        )
    return labels


def need_scipy() -> None:
    """ValueError with the command that installs scipy, where it is not."""
    if importlib.util.find_spec('scipy') is None:
        raise ValueError(
            'scipy, which reads .mat files, is not installed; pip install -r '
            'requirements/common.txt'
        )


def read_mat(
    path: Path, get: Callable[[dict], Content], has: str, archive: str, **options: Any
) -> Content:
    """What ``get`` takes out of a MATLAB file.

    Args:
        path: The file; it is there.
        get: Its argument is what scipy's ``loadmat`` gives.
        has: What a whole file has, for messages.
        archive: What to unpack again where it has not.
        options: Of ``loadmat``.

    Raises:
        ValueError: It is cut off, or has no such thing.
    """
    from scipy.io import loadmat

    try:
        return get(loadmat(str(path), **options))
    except Exception as error:  # scipy raises nearly anything on a damaged file
        raise ValueError(
            f'cannot read {path}: it is cut off, or has no {has} ({type(error).__name__}: '
            f'{error}); unpack {archive} again'
        ) from error


@dataclass(frozen=True)
class Drawn:
    """An image and its mask.

    Args:
        image: The image.
        mask: The mask as downloaded.
        name: What the image is called in the output: that of the list, or without its suffix.
        class_id: What is drawn, where masks are black and white.
    """

    image: Path
    mask: Path
    name: str
    class_id: int = 1


def write_binary(job: Drawn, out: Path, kind: str) -> Done:
    """Write a black and white mask as one of a ``kind`` of masks, unless it is complete.

    One without foreground is not written: there is nothing to learn or test on it.
    """
    single = kind == 'class_masks'
    path = mask_path(out, job.name, job.class_id if single else None)
    shape = image_size(job.image)
    made, mask = False, read_complete(path, shape, job.mask)
    if mask is None:
        value = np.uint8(1 if single else job.class_id)
        mask = binary_mask(job.mask, shape) * value
        made = bool(mask.any())
        if made:
            save_png(path, mask, BLACK_WHITE if value == 1 else None)
    area = int(np.count_nonzero(mask))
    found = {job.name: {job.class_id: area} if area else None}
    return Done(int(made), int(not made and area > 0), found)
