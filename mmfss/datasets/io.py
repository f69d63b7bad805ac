"""Reading and writing images and label masks; every failure names the file.

Pillow decodes, because it gives the label values of palette masks and refuses truncated files;
:mod:`mmfss.datasets.tiff` and :mod:`mmfss.datasets.deep` have what it gives otherwise than stored.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from mmfss.datasets import deep, tiff
from mmfss.datasets.grey_values import GreyValues, few_left
from mmfss.files import atomic

BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    ArithmeticError,
    struct.error,
    zlib.error,
)
"""What Pillow raises on files that are truncated, damaged or no images."""
_GREY_STEP = {'L;2': 85, 'L;4': 17}  # Pillow spreads 2- and 4-bit grey values over 0..255
_SIZE_IN_HEADER = ('JPEG', 'PNG', 'BMP', 'WEBP', 'PPM', 'GIF', 'TIFF')  # as large as when decoded
_DEEP = ('PNG', 'PPM', 'JPEG2000')  # may have more than 8 bits
_FULL = GreyValues()


HEIF = ('.heic', '.heif')
"""Photos of phones that Pillow reads with a plugin."""


def check_heif(path: str | os.PathLike, name: str) -> None:
    """Bring in what reads HEIC, where a file has its ending; ``name`` is for messages.

    Raises:
        ValueError: It is not installed.
    """
    if os.fspath(path).lower().endswith(HEIF):
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise tiff.Refused(
                f'{name} is HEIC, which needs a plugin: pip install pillow-heif; or save it as JPEG'
            ) from None
        register_heif_opener()


@dataclass
class _Decoded:
    """A file decoded by Pillow, or its values, where Pillow would give others."""

    image: Image.Image | None = None
    pixels: tiff.Pixels | None = None
    rawmode: str | None = None
    depth: int = 8


@contextmanager
def _reading(path: str | os.PathLike, kind: str) -> Iterator[None]:
    """What goes wrong with a file within becomes a FileNotFoundError or ValueError with its path.

    Args:
        path: The file.
        kind: 'image' or 'mask', for messages.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f'{kind} file not found: {path}')
    try:
        yield
    except (PermissionError, tiff.Refused):
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


def _decode(
    path: str | os.PathLike,
    kind: str,
    reduce_to: tuple[int, int] | None = None,
    upright: bool = False,
) -> _Decoded:
    """Decode a file wholly.

    Args:
        path: The file.
        kind: 'image' or 'mask', for messages; of images the one still picture.
        reduce_to: (w, h) that decoding may come close to, not below, where the codec can.
        upright: ``reduce_to`` is of the image as its EXIF tag turns it.
    """
    with _reading(path, kind):
        check_heif(path, f'{kind} {path}')
        try:
            opened = Image.open(path)
        except UnidentifiedImageError:
            if kind == 'image' and tiff.is_tiff(path):
                return _Decoded(pixels=tiff.read(path, f'{path}'))
            coding = deep.jpeg_coding(path)
            if coding is not None:
                raise tiff.Refused(
                    f'{kind} {path} is a JPEG of {coding}, which is not read; save it as PNG or '
                    'TIFF of 16 bits, or as a JPEG of 8 bits'
                ) from None
            raise
        with opened as image:
            # masks of other pixels are refused by their mode
            if image.format == 'TIFF' and (kind == 'image' or tiff.is_plain(image)):
                return _decode_tiff(path, image, f'{kind} {path}')
            rawmode = image.tile[0][3] if image.tile else None
            frames = getattr(image, 'n_frames', 1) if kind == 'image' else 1
            if reduce_to is not None and image.format in ('JPEG', 'MPO'):
                turned = upright and _is_sideways(image)
                image.draft(image.mode, reduce_to[::-1] if turned else reduce_to)
            depth = deep.depth_of(image, rawmode) if image.format in _DEEP else 8
            image.load()
    if frames > 1 and image.format != 'MPO':
        raise _moving(f'image {path}', frames)
    return _Decoded(image, None, _form(rawmode), depth)


def _form(rawmode: Any) -> str | None:
    """Of what a decoder of Pillow takes, the form of pixels, which may be the first of several."""
    if isinstance(rawmode, (tuple, list)):
        return rawmode[0] if rawmode else None
    return rawmode


def _decode_tiff(
    source: str | os.PathLike | BinaryIO, image: ImageFile.ImageFile, name: str
) -> _Decoded:
    """Decode what Pillow has opened, by Pillow where it gives the right pixels; ``name`` begins
    with its kind."""
    if not tiff.is_plain(image):
        return _Decoded(pixels=tiff.read(source, name.removeprefix('image ')))
    page, pages = tiff.page_of(image, source)
    if pages > 1:
        raise _moving(name, image.n_frames)  # type: ignore[attr-defined]
    rawmode = _form(image.tile[0][3]) if image.tile else None
    if _is_sideways(image) and isinstance(source, (str, os.PathLike)):
        # opened by its path Pillow maps the pixels with the sides exchanged
        with open(source, 'rb') as file, Image.open(file) as again:
            again.seek(page)
            again.load()
        return _Decoded(again, None, rawmode)
    if page:
        image.seek(page)
    image.load()
    return _Decoded(image, None, rawmode)


def _moving(name: str, frames: int) -> ValueError:
    """Of an animation one frame would be taken silently. A photo with a second picture for depth
    or preview (MPO) is a still one."""
    return tiff.Refused(
        f'{name} has {frames} frames or pages, allowed are still images; save the one that you mean'
    )


def read_image(
    path: str | os.PathLike,
    exif_orientation: bool = False,
    reduce_to: tuple[int, int] | None = None,
    grey_values: GreyValues = _FULL,
) -> np.ndarray:
    """Read an image as 8-bit BGR.

    Grey is copied to three channels, alpha is dropped, palette, CMYK, YCbCr and the like are
    converted. Of 16-bit channels the high byte is kept, unless another range is given.

    Args:
        path: The file.
        exif_orientation: Turn the image upright as its EXIF tag says. Off by default: label
            masks are drawn on the stored pixels. A TIFF is always upright.
        reduce_to: (w, h): a JPEG that is 2, 4 or 8 times as large, or more, is decoded at a half,
            quarter or eighth of its sides, which is never below (w, h). Faster; the pixels are
            averages of blocks, rounded a little differently from those of a later resize.
        grey_values: What black and white stand for in photos of more than 8 bits.

    Returns:
        uint8 (H, W, 3), BGR, C-contiguous.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, not an image, an animation or one of several pages, of
            bands that are no colours, or of 32-bit, float or negative values without a range.
    """
    decoded = _decode(path, 'image', reduce_to, exif_orientation)
    return _as_bgr(decoded, exif_orientation, f'{path}', grey_values, path)


def image_shape(path: str | os.PathLike, exif_orientation: bool = False) -> tuple[int, int]:
    """(H, W) of what :func:`read_image` gives without ``reduce_to``, from the header where its
    form tells.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an image.
    """
    with _reading(path, 'image'):
        check_heif(path, f'image {path}')
        try:
            opened = Image.open(path)
        except UnidentifiedImageError:
            if tiff.is_tiff(path):
                return tiff.shape_of(path)
            raise
        with opened as image:
            if image.format not in _SIZE_IN_HEADER:
                image.load()
            if image.format == 'TIFF':
                page = tiff.page_of(image, path)[0]
                if page:
                    image.seek(page)
                return image.height, image.width  # upright
            turned = exif_orientation and _is_sideways(image)
            width, height = image.size[::-1] if turned else image.size
            return height, width


def _is_sideways(image: Image.Image) -> bool:
    """Whether its EXIF tag exchanges the sides of an image."""
    return image.getexif().get(tiff.ORIENTATION) in tiff.SIDEWAYS


def read_photo(
    photo: str | os.PathLike | Image.Image,
    name: str = 'given by Pillow',
    grey_values: GreyValues = _FULL,
) -> np.ndarray:
    """Read an image as a viewer shows it: turned upright as its EXIF tag says, still images only.

    Args:
        photo: The file, or an image of Pillow.
        name: What messages call an image of Pillow.
        grey_values: See :func:`read_image`.

    Returns:
        uint8 (H, W, 3), BGR, C-contiguous.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_image`.
    """
    if not isinstance(photo, Image.Image):
        return _as_bgr(_decode(photo, 'image', None, True), True, f'{photo}', grey_values, photo)
    file = photo if isinstance(photo, ImageFile.ImageFile) and photo.tile else None
    if file is not None and file.format in _DEEP and file.filename:  # not loaded yet
        return read_photo(os.fsdecode(file.filename), name, grey_values)
    try:
        frames = getattr(photo, 'n_frames', 1)
        if file is not None and file.format == 'TIFF':
            source = cast('str | BinaryIO', file.filename or file.fp)
            return _as_bgr(_decode_tiff(source, file, f'image {name}'), True, name, grey_values)
        if frames > 1 and photo.format != 'MPO':
            raise _moving(f'image {name}', frames)
        photo.load()
    except tiff.Refused:
        raise
    except BROKEN as error:
        raise ValueError(f'image {name} is truncated or damaged ({error})') from error
    return _as_bgr(_Decoded(photo, None, photo.mode), True, name, grey_values)


def _as_bgr(
    decoded: _Decoded,
    upright: bool,
    name: str,
    grey_values: GreyValues,
    path: str | os.PathLike | None = None,
) -> np.ndarray:
    image, pixels = decoded.image, decoded.pixels
    if image is not None:
        kind = image.format
        if kind == 'TIFF' and image.mode in ('RGBA', 'LA'):
            check_alpha(np.asarray(image.getchannel('A')), name, image.mode, grey_values)
        if upright:
            image = ImageOps.exif_transpose(image)
        pixels = deep.grey_pixels(image, decoded.rawmode, kind, decoded.depth)
        if pixels is None:
            rgb = np.asarray(image.convert('RGB'))
            if decoded.depth > 8 and path is not None:
                rgb = _all_bits(rgb, decoded, upright, path, grey_values)
            return np.ascontiguousarray(rgb[..., ::-1])
    assert pixels is not None
    if pixels.remark:
        grey_values.say('bands', pixels.remark)
    grey = pixels.values
    if grey.dtype != np.uint8:
        grey = grey_values.to_8_bit(grey, name, pixels.bits, pixels.nodata)
    if pixels.white_is_zero:
        grey = 255 - grey
    if grey.ndim == 2:
        grey = np.repeat(grey[..., None], 3, axis=2)
    return np.ascontiguousarray(grey[..., ::-1])


def _all_bits(
    rgb: np.ndarray,
    decoded: _Decoded,
    upright: bool,
    path: str | os.PathLike,
    grey_values: GreyValues,
) -> np.ndarray:
    """Colours of all bits of a file, where a range is given, or where those of its high bytes,
    uint8 (H, W, 3), are so few that this may have to be said."""
    image = decoded.image
    assert image is not None
    # of PPM Pillow rounds the values, of JPEG 2000 it wraps those that round up to 256
    high_bytes = image.format == 'PNG'
    if high_bytes and grey_values.record() is None and not few_left(rgb):
        return rgb
    values = deep.colour_pixels(path, image.size[::-1])
    if values is None:
        raise ValueError(
            f'image {path} has {decoded.depth} bits per channel, which OpenCV as it is installed '
            'does not read; convert it to PNG or TIFF'
        )
    grey = grey_values.to_8_bit(values, f'{path}', decoded.depth)
    grey = np.broadcast_to(grey if grey.ndim == 3 else grey[..., None], (*grey.shape[:2], 3))
    return tiff.turned(grey, image.getexif().get(tiff.ORIENTATION, 1)) if upright else grey


def check_alpha(alpha: np.ndarray, name: str, mode: str, grey_values: GreyValues) -> None:
    """Say it where what a TIFF calls alpha, the last band of its mode, is none by its values."""
    if not tiff.is_alpha(alpha):
        grey_values.say('bands', tiff.NO_ALPHA.format(name=name, band=len(mode)))


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """Read a label mask: one label value per pixel, palette or grey of up to 8 bits.

    Returns:
        uint8 (H, W), the palette indices or grey values as stored.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, not an image, or of another mode.
    """
    decoded = _decode(path, 'mask')
    image, rawmode = decoded.image, decoded.rawmode
    assert image is not None
    if image.mode not in ('P', 'L', '1'):
        raise ValueError(
            f"mask {path} must be a palette ('P') or 8-bit grey ('L') image of label values, "
            f'got mode {image.mode!r}; convert colour-coded or 16-bit masks to label values'
        )
    values = np.array(image, np.uint8)  # 0 and 1 of one bit
    step = _GREY_STEP.get(rawmode or '')
    return values if step is None else values // step


def png_of(array: np.ndarray, palette: Sequence[Sequence[int]] | None = None) -> bytes:
    """The PNG that :func:`save_png` writes."""
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette([channel for colour in palette for channel in colour])
    encoded = BytesIO()
    image.save(encoded, 'PNG', compress_level=3)  # 20 % more bytes than level 6 in half the time
    return encoded.getvalue()


def save_png(
    path: str | os.PathLike, array: np.ndarray, palette: Sequence[Sequence[int]] | None = None
) -> None:
    """Write a uint8 array (H, W) or (H, W, 3) RGB as PNG, whole or not at all.

    Args:
        path: The file; its folder is made.
        array: Grey values or label values, or a picture.
        palette: RGB colours of the label values from 0 on; only the view of them changes.
    """
    # into memory first: encoders that write to a descriptor may not notice that the disk is full
    encoded = png_of(array, palette)
    with atomic(path, flush=False) as part:  # what uses masks again compares their content first
        part.write_bytes(encoded)
