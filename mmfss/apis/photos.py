"""Photos of hundreds of megapixels, read window by window.

=====================================  ===========================================================
8-bit TIFF in tiles or short strips    read by window with rasterio where it is installed, if its
                                       compression keeps all pixels as they are
8-bit JPEG, PNG, WebP, BMP, TIFF       decoded once by Pillow; windows are copies of parts of it
any other, and what is small           decoded whole: uint8 (H, W, 3)
=====================================  ===========================================================

The pixels are those of :func:`mmfss.apis.images.as_bgr` in all three cases.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, cast

import cv2
import mmcv
import numpy as np
from PIL import Image, ImageOps

from mmfss.apis.images import ImageInput, as_bgr
from mmfss.apis.windows import Window
from mmfss.datasets import tiff
from mmfss.datasets.grey_values import GreyValues
from mmfss.datasets.io import BROKEN, check_alpha

MAX_PIXELS = 2**28
"""Of a photo that is labelled in windows: 268 megapixels, such as 16384 x 16384."""
_WHOLE = 2**25
"""Pixels up to which a photo is simply decoded; 100 MB."""
_BYTES_PER_PIXEL = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr')
_FORMATS = ('JPEG', 'MPO', 'PNG', 'WEBP', 'BMP', 'TIFF')
_SHORT = 2048  # rows of a strip; longer ones are decoded again for each row of windows
_LOSSLESS = ('none', 'deflate', 'lzw', 'packbits', 'zstd')
_ALPHA_STEP = 8  # of which a look at every 64th pixel tells
_CACHE_MEGABYTES = 256  # of GDAL, whose default grows with the machine

_lock = threading.Lock()
_users: list[int | None] = []


@contextmanager
def large_photos() -> Iterator[None]:
    """Within, Pillow opens images of up to :data:`MAX_PIXELS` and says nothing; by default it
    warns of more than 89 megapixels and refuses more than 179.
    """
    with _lock:  # as a process-wide setting: the first to come sets it, the last one restores it
        _users.append(Image.MAX_IMAGE_PIXELS if not _users else _users[0])
        Image.MAX_IMAGE_PIXELS = max(MAX_PIXELS, _users[0] or 0)
    try:
        yield
    finally:
        with _lock:
            before = _users.pop()
            if not _users:
                Image.MAX_IMAGE_PIXELS = before


class Photo(AbstractContextManager):
    """A photo that is decoded.

    Args:
        pixels: uint8 (H, W, 3) BGR.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels: np.ndarray | None = pixels

    @property
    def pixels(self) -> np.ndarray:
        """All of them: uint8 (H, W, 3) BGR.

        Raises:
            ValueError: They were given free.
        """
        if self._pixels is None:
            raise ValueError('the photo is closed')
        return self._pixels

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W), upright."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def window(self, window: Window) -> np.ndarray:
        """The pixels of a window, uint8 (h, w, 3) BGR; may be called in several threads.

        Raises:
            ValueError: They cannot be read.
        """
        rows = slice(window.top, window.top + window.height)
        return np.ascontiguousarray(self._pixels[rows, window.left : window.left + window.width])

    def small(self, side: int) -> np.ndarray:
        """The photo with its long side at most ``side``: uint8 (h, w, 3) BGR, the mean of what a
        pixel covers; by bands of rows."""
        height, width = self.shape
        rows, columns = self._small_shape(side)
        made = np.empty((rows, columns, 3), np.uint8)
        step = rows if height * width <= _WHOLE else max(1, _SHORT * rows // height)
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            top, bottom = start * height // rows, -(-stop * height // rows)
            band = self.window(Window((0, 0), top, 0, bottom - top, width))
            made[start:stop] = mmcv.imresize(band, (columns, stop - start), interpolation='area')
        return made

    def _small_shape(self, side: int) -> tuple[int, int]:
        height, width = self.shape
        scale = min(1.0, side / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def __exit__(self, *exception: object) -> None:
        """Give the pixels free."""
        self._pixels = None


class _PillowPhoto(Photo):
    """Decoded by Pillow, upright, in which an RGB pixel takes four bytes."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image

    @property
    def shape(self) -> tuple[int, int]:
        return self._image.height, self._image.width

    def window(self, window: Window) -> np.ndarray:
        right, bottom = window.left + window.width, window.top + window.height
        part = self._image.crop((window.left, window.top, right, bottom))
        if part.mode == 'RGB':  # as below, without two copies
            return cv2.cvtColor(np.asarray(part), cv2.COLOR_RGB2BGR)
        return as_bgr(part)

    def small(self, side: int) -> np.ndarray:
        factor = max(self.shape) // (2 * side)
        if self._image.mode != 'RGB' or factor < 2:
            return super().small(side)
        rows, columns = self._small_shape(side)
        reduced = self._image.reduce(factor)  # blocks of pixels first: much faster
        bgr = cv2.cvtColor(np.asarray(reduced), cv2.COLOR_RGB2BGR)
        return mmcv.imresize(bgr, (columns, rows), interpolation='area')

    def __exit__(self, *exception: object) -> None:
        self._image.close()


class _TiledFile(Photo):
    """A TIFF that rasterio reads by windows."""

    def __init__(self, path: str, grey_values: GreyValues) -> None:
        import rasterio

        self._stack = ExitStack()
        self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=_CACHE_MEGABYTES))
        self._file = self._stack.enter_context(rasterio.open(path))
        self._reading = threading.Lock()
        if self._file.count == 4:
            shape = tuple(-(-side // _ALPHA_STEP) for side in self.shape)
            check_alpha(self._file.read(4, out_shape=shape), path, 'RGBA', grey_values)

    @property
    def shape(self) -> tuple[int, int]:
        return self._file.height, self._file.width

    def window(self, window: Window) -> np.ndarray:
        from rasterio.errors import RasterioError
        from rasterio.windows import Window as Part

        part = Part(window.left, window.top, window.width, window.height)
        colours = (3, 2, 1) if self._file.count >= 3 else (1, 1, 1)
        try:
            with self._reading:
                bands = self._file.read(colours, window=part)
        except (RasterioError, OSError) as error:
            raise ValueError(
                f'cannot read image file {self._file.name}: it is truncated or damaged ({error}); '
                'restore the file or leave it out of the list'
            ) from error
        return np.ascontiguousarray(bands.transpose(1, 2, 0))

    def __exit__(self, *exception: object) -> None:
        self._stack.close()


def open_photo(
    image: ImageInput, name: str | None = None, grey_values: GreyValues | None = None
) -> Photo:
    """Open a photo for reading by windows; to be used in a ``with``.

    Args:
        image, name, grey_values: see :func:`mmfss.apis.images.as_bgr`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No image, an animation, or more than ``MAX_PIXELS`` pixels.
    """
    if isinstance(image, (np.ndarray, Image.Image)):
        name = name or 'the image'
        with large_photos():
            pixels = as_bgr(image, name, grey_values)
        _check_size(pixels.shape[1], pixels.shape[0], name)
        return Photo(pixels)
    with large_photos():
        opened = _by_windows(f'{image}', grey_values or GreyValues())
        if opened is None:
            opened = Photo(as_bgr(image, name, grey_values))
            _check_size(opened.shape[1], opened.shape[0], f'{image}')
        return opened


def _by_windows(path: str, grey_values: GreyValues) -> Photo | None:
    """Of a large photo that need not be decoded whole into an array; None of any other, and of
    what cannot be opened, which is said better by who reads it.

    Raises:
        ValueError: More than ``MAX_PIXELS`` pixels.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except BROKEN:
        return None
    _check_size(width, height, path)
    if width * height <= _WHOLE:
        return None
    try:
        with Image.open(path) as image:
            rawmode = image.tile[0][3] if image.tile else None
            plain = image.mode in _BYTES_PER_PIXEL and '16' not in f'{rawmode}'
            if image.format == 'TIFF':
                tags = cast(Any, image).tag_v2
                # turned ones are left to who knows what Pillow makes of them
                plain &= tiff.is_plain(image) and tags.get(tiff.ORIENTATION, 1) == 1
                plain = plain and tiff.page_of(image, path) == (0, 1)
                if plain and _reads_by_windows(path, image):
                    return _TiledFile(path, grey_values)
            elif image.format != 'MPO' and getattr(image, 'n_frames', 1) > 1:
                return None
            if image.format not in _FORMATS or not plain:
                return None
            image.load()
            if image.format == 'TIFF' and image.mode in ('RGBA', 'LA'):
                check_alpha(np.asarray(image.getchannel('A')), path, image.mode, grey_values)
            ImageOps.exif_transpose(image, in_place=True)
            return _PillowPhoto(image)
    except BROKEN:
        return None


def _reads_by_windows(path: str, image: Image.Image) -> bool:
    """Whether rasterio is there and gives the pixels that Pillow does, without decoding a part of
    the file again and again."""
    try:
        import rasterio
        from rasterio.enums import ColorInterp
        from rasterio.errors import RasterioError
    except ImportError:
        return False
    tags = cast(Any, image).tag_v2
    if tags.get(262) not in (1, 2):  # upright; grey from black on, or RGB
        return False
    red, green, blue, grey = (getattr(ColorInterp, c) for c in ('red', 'green', 'blue', 'gray'))
    kinds = ((red, green, blue), (red, green, blue, ColorInterp.alpha), (grey,))
    try:
        with rasterio.open(path) as file:
            compression = file.compression.value.lower() if file.compression else 'none'
            return (
                set(file.dtypes) == {'uint8'}
                and set(tags.get(258, (1,))) == {8}
                and file.colorinterp in kinds
                and compression in _LOSSLESS
                and file.block_shapes[0][0] <= _SHORT
                and not file.subdatasets
            )
    except RasterioError:
        return False


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f'image {name} has {width} x {height} pixels, {width * height / 1e6:.0f} megapixels; '
            f'in tiles at most {MAX_PIXELS / 1e6:.0f} are labelled. Cut it into files'
        )
