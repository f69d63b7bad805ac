"""Reading downloads: lists, image sizes, black-and-white and colour-coded masks."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmfss.datasets.io import read_image
from mmfss.datasets.preparation.jobs import Done, is_complete, remove_parts, save_png
from mmfss.files import write_text

Colour = tuple[int, int, int]
THRESHOLD = 128
BLACK_WHITE = ((0, 0, 0), (255, 255, 255))
"""Palette of masks of 0 and 1: one bit a pixel, several times faster to write, and to be seen."""
_NO_CODE = 254
OPTIONS_FILE = '.options{}.json'


def begin(out: str | os.PathLike, options: Mapping, part: str = '') -> None:
    """Note what a preparation makes; refuse a folder that was begun otherwise.

    Complete files of an earlier run are kept unread, so they must have been made alike. What a
    killed run was just writing goes.

    Args:
        out: The output folder.
        options: Plain values that decide what is written.
        part: What they are about, where splits are made one by one.

    Raises:
        ValueError: The folder was begun with other options; both are named.
    """
    file, text = Path(out) / OPTIONS_FILE.format(part), json.dumps(dict(options), indent=1)
    remove_parts(out)
    if not file.is_file():
        write_text(file, text)
        return
    try:
        before = json.loads(file.read_text(encoding='utf-8'))
    except ValueError:
        before = {}
    now = json.loads(text)
    if before != now:
        keys = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        raise ValueError(
            f'{out} was begun with other options: '
            + '; '.join(f'{k} was {before.get(k)!r}, now {now.get(k)!r}' for k in keys)
            + '; choose another output folder, or delete this one'
        )


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
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice or not names:
        what = f'has lines twice: {twice[:5]}' if twice else 'is empty'
        raise ValueError(f'list {path} {what}; a list has one name a line, each once')
    return names


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) of an image as its header says; the pixels are not decoded.

    Raises:
        FileNotFoundError: No such file. ValueError: No image, or one of more pixels than Pillow
            takes.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
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


@dataclass(frozen=True)
class BinaryJob:
    """A black and white mask to write as label ``value``.

    Args:
        image: Its image.
        source: The mask as downloaded.
        out: Where to write it.
        value: What white becomes.
    """

    image: Path
    source: Path
    out: Path
    value: int = 1


def write_binary(job: BinaryJob) -> Done:
    """Write a mask unless it is complete; the result is whether it has any foreground.

    A mask without is not written: there is nothing to learn or test on it.
    """
    shape = image_size(job.image)
    if is_complete(job.out, shape, job.source):
        return Done(kept=1, result=True)
    mask = binary_mask(job.source, shape)
    if not mask.any():
        return Done(result=False)
    if job.value == 1:
        save_png(job.out, mask, BLACK_WHITE)
    else:
        save_png(job.out, mask * np.uint8(job.value))
    return Done(written=1, result=True)
