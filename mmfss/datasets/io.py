"""Reading and writing images and label masks; every failure names the file.

Pillow decodes, because it gives the label values of palette masks and refuses truncated files.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile, ImageOps

from mmfss.files import atomic

BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    struct.error,
    zlib.error,
)
"""What Pillow raises on files that are truncated, damaged or no images."""
_RAW_16_BIT = ('I;16', 'I;16B', 'I;16L', 'I;16N')
_GREY_STEP = {'L;2': 85, 'L;4': 17}  # Pillow spreads 2- and 4-bit grey values over 0..255
_SIZE_IN_HEADER = ('JPEG', 'PNG', 'BMP', 'WEBP', 'PPM', 'GIF')  # as large as it is when decoded
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 are turned by a quarter


@contextmanager
def _reading(path: str | os.PathLike, kind: str) -> Iterator[ImageFile.ImageFile]:
    """A file opened by Pillow; FileNotFoundError or ValueError with its path.

    Args:
        path: The file.
        kind: 'image' or 'mask', for messages.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f'{kind} file not found: {path}')
    try:
        with Image.open(path) as image:
            yield image
    except PermissionError:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(
            f'{kind} file {path} has too many pixels: {error}. Make it smaller or cut it'
        ) from error
    except BROKEN as error:
        raise ValueError(
            f'cannot read {kind} file {path}: it is truncated, damaged or not an '
            f'image ({error}); restore the file or leave it out of the list'
        ) from error


def _open(
    path: str | os.PathLike,
    kind: str,
    still: bool = False,
    reduce_to: tuple[int, int] | None = None,
    upright: bool = False,
) -> tuple[Image.Image, str | None]:
    """Open and decode a file wholly.

    Args:
        path: The file.
        kind: 'image' or 'mask', for messages.
        still: Refuse animations.
        reduce_to: (w, h) that decoding may come close to, not below, where the codec can.
        upright: ``reduce_to`` is of the image as its EXIF tag turns it.

    Returns:
        The image, and Pillow's name of the form of pixels in the file.
    """
    with _reading(path, kind) as image:
        rawmode = image.tile[0][3] if image.tile else None
        frames = getattr(image, 'n_frames', 1) if still else 1
        if reduce_to is not None and image.format in ('JPEG', 'MPO'):
            turned = upright and image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
            image.draft(image.mode, reduce_to[::-1] if turned else reduce_to)
        image.load()
    if still:
        _check_still(image, frames, f'{path}')
    if isinstance(rawmode, (tuple, list)):  # some decoders take more than the form
        rawmode = rawmode[0] if rawmode else None
    return image, rawmode


def read_image(
    path: str | os.PathLike,
    exif_orientation: bool = False,
    reduce_to: tuple[int, int] | None = None,
) -> np.ndarray:
    """Read an image as 8-bit BGR.

    Grey is copied to three channels, 16-bit channels keep their high byte, alpha is dropped,
    palette, CMYK, YCbCr and the like are converted.

    Args:
        path: The file.
        exif_orientation: Turn the image upright as its EXIF tag says. Off by default: label
            masks are drawn on the stored pixels.
        reduce_to: (w, h): a JPEG that is 2, 4 or 8 times as large, or more, is decoded at a half,
            quarter or eighth of its sides, which is never below (w, h). Faster; the pixels are
            averages of blocks, rounded a little differently from those of a later resize.

    Returns:
        uint8 (H, W, 3), BGR, C-contiguous.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, not an image, or of 32-bit or float pixels.
    """
    image, rawmode = _open(path, 'image', reduce_to=reduce_to, upright=exif_orientation)
    return _as_bgr(image, rawmode, exif_orientation, f'{path}')


def image_shape(path: str | os.PathLike, exif_orientation: bool = False) -> tuple[int, int]:
    """(H, W) of what :func:`read_image` gives without ``reduce_to``, from the header where its
    form tells.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an image.
    """
    with _reading(path, 'image') as image:
        if image.format not in _SIZE_IN_HEADER:
            image.load()
        turned = exif_orientation and image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
        width, height = image.size[::-1] if turned else image.size
        return height, width


def read_photo(photo: str | os.PathLike | Image.Image, name: str = 'given by Pillow') -> np.ndarray:
    """Read an image as a viewer shows it: turned upright as its EXIF tag says, still images only.

    Args:
        photo: The file, or an image of Pillow.
        name: What messages call an image of Pillow.

    Returns:
        uint8 (H, W, 3), BGR, C-contiguous.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_image`; also ValueError for animations and
            files of several pages.
    """
    if not isinstance(photo, Image.Image):
        image, rawmode = _open(photo, 'image', still=True)
        return _as_bgr(image, rawmode, True, f'{photo}')
    _check_still(photo, getattr(photo, 'n_frames', 1), name)
    try:
        photo.load()
    except BROKEN as error:
        raise ValueError(f'image {name} is truncated or damaged ({error})') from error
    return _as_bgr(photo, photo.mode, True, name)


def _check_still(image: Image.Image, frames: int, name: str) -> None:
    """Of an animation one frame would be taken silently. A photo with a second picture for depth
    or preview (MPO) is a still one."""
    if frames > 1 and image.format != 'MPO':
        raise ValueError(
            f'image {name} has {frames} frames or pages, allowed are still images; save the one '
            'that you mean'
        )


def _as_bgr(image: Image.Image, rawmode: str | None, upright: bool, name: str) -> np.ndarray:
    is_16_bit = f'{rawmode}'.startswith(_RAW_16_BIT) or image.format == 'PPM'
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode == 'F' or (image.mode == 'I' and not is_16_bit):
        raise ValueError(
            f'image {name} has {"float" if image.mode == "F" else "32-bit"} pixels, allowed are '
            '8 or 16 bits per channel; convert it to 8-bit RGB'
        )
    if image.mode.startswith('I'):  # 16-bit grey: its high byte
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    rgb = np.asarray(image.convert('RGB'))
    return np.ascontiguousarray(rgb[..., ::-1])


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """Read a label mask: one label value per pixel, palette or grey of up to 8 bits.

    Returns:
        uint8 (H, W), the palette indices or grey values as stored.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, not an image, or of another mode.
    """
    image, rawmode = _open(path, 'mask')
    if image.mode not in ('P', 'L', '1'):
        raise ValueError(
            f"mask {path} must be a palette ('P') or 8-bit grey ('L') image of label values, "
            f'got mode {image.mode!r}; convert colour-coded or 16-bit masks to label values'
        )
    values = np.array(image, np.uint8)  # 0 and 1 of one bit
    step = _GREY_STEP.get(rawmode or '')
    return values if step is None else values // step


def save_png(
    path: str | os.PathLike, array: np.ndarray, palette: Sequence[Sequence[int]] | None = None
) -> None:
    """Write a uint8 array (H, W) or (H, W, 3) RGB as PNG, whole or not at all.

    Args:
        path: The file; its folder is made.
        array: Grey values or label values, or a picture.
        palette: RGB colours of the label values from 0 on; only the view of them changes.
    """
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette([channel for colour in palette for channel in colour])
    with atomic(path) as part:
        image.save(part, 'PNG', compress_level=3)  # 20 % more bytes than level 6 in half the time
