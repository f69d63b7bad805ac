"""The frame of an annotation: which pixels of a photo its numbers are of.

Photos of phones are stored on their side and say so in EXIF. Everything that is prepared or
labelled is upright, as viewers show it; annotations may be of the upright or of the stored pixels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmfss.datasets import tiff
from mmfss.datasets.account import Account, Reason
from mmfss.datasets.io import BROKEN, check_heif

Shape = tuple[int, int]
"""(height, width)."""
EXIF = ('upright', 'stored')
"""What annotations of a photo that EXIF turns may be of."""
STORED = Reason(
    'photo annotated on its stored pixels, as sizes say: turned upright with its annotations',
    '--exif upright, if they are of the photo as shown',
    lost=False,
)
ASSUMED = Reason(
    'photo that EXIF turns: annotations taken to be of it as shown',
    '--exif stored, if they are of its stored pixels',
    lost=False,
)
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101


@dataclass(frozen=True)
class Photo:
    """Size and orientation of a photo, from its header.

    Args:
        path: The file.
        stored: As stored.
        orientation: 1..8 as in EXIF; 1 is upright.
    """

    path: str
    stored: Shape
    orientation: int = 1

    @property
    def upright(self) -> Shape:
        """As a viewer shows it."""
        return self.stored[::-1] if self.orientation in tiff.SIDEWAYS else self.stored

    @property
    def size_tells(self) -> bool:
        """Whether the two frames differ in size."""
        return self.stored != self.upright

    def shape(self, exif: str) -> Shape:
        """Of one of :data:`EXIF`."""
        return self.stored if exif == 'stored' else self.upright

    def frame(self, said: Shape | None, exif: str | None) -> str | None:
        """The frame, one of :data:`EXIF`, that annotations of a size are of; None if of neither.

        Args:
            said: The size that they state or have, None where they state none.
            exif: What the user says; None where the size is to tell: the upright one if it may.
        """
        allowed = EXIF if exif is None else (exif,)
        return next((one for one in allowed if said in (None, self.shape(one))), None)


def read_frame(path: str | os.PathLike) -> Photo:
    """Read the header of a photo; the pixels are not decoded.

    Raises:
        FileNotFoundError: No such file. ValueError: No image, or one of more pixels than Pillow
            takes.
    """
    check_heif(path, f'image {path}')
    try:
        try:
            opened = Image.open(path)
        except UnidentifiedImageError:
            if not tiff.is_tiff(path):
                raise
            return Photo(os.fspath(path), *tiff.frame_of(path))
        with opened as image:
            value = image.getexif().get(tiff.ORIENTATION, 1)
            orientation = value if isinstance(value, int) and 1 <= value <= 8 else 1
            stored = image.height, image.width
            if image.format == 'TIFF':  # which Pillow may have turned already
                image.seek(tiff.page_of(image, path)[0])
                tags = image.tag_v2  # type: ignore[attr-defined]
                stored = int(tags[_TIFF_HEIGHT]), int(tags[_TIFF_WIDTH])
            return Photo(os.fspath(path), stored, orientation)
    except FileNotFoundError:
        raise FileNotFoundError(f'image not found: {path}') from None
    except PermissionError:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(f'image {path} is too large to be read: {error}; shrink it') from error
    except (UnidentifiedImageError, *BROKEN) as error:
        raise ValueError(
            f'cannot read image file {path}: it is truncated, damaged or not an image ({error}); '
            'restore the file, or take it away'
        ) from error


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels (H, W, ...) as a viewer shows them, C-contiguous; orientation as in EXIF."""
    return np.ascontiguousarray(tiff.turned(pixels, orientation))


def upright_mask(
    mask: np.ndarray, photo: Photo, exif: str | None = None, name: str = 'the mask'
) -> np.ndarray:
    """A mask of an upright or stored photo, upright.

    Args:
        mask: (H, W).
        photo: Its photo.
        exif: What the user says it is of; see :meth:`Photo.frame`.
        name: What messages call it.

    Raises:
        ValueError: It is of another size.
    """
    frame = photo.frame(mask.shape[:2], exif)
    if frame is None:
        raise ValueError(
            f'{name} is {size_of(mask.shape)} pixels (width x height), its image {photo.path} is '
            f'{size_of(photo.shape(exif or EXIF[0]))}; they must be equal{exif_hint(photo)}'
        )
    return turned(mask, photo.orientation) if frame == 'stored' else mask


def size_of(shape: tuple[int, ...]) -> str:
    """'width x height'."""
    return f'{shape[1]} x {shape[0]}'


def exif_hint(photo: Photo) -> str:
    """What to know of a photo that is not stored upright; '' for all others."""
    if photo.orientation == 1:
        return ''
    return (
        f'; the image has EXIF orientation {photo.orientation}: it is stored '
        f'{size_of(photo.stored)} and shown {size_of(photo.upright)}; annotations are of the photo '
        'as shown, or of the stored pixels with --exif stored'
    )


def note_frame(
    account: Account, photo: Photo, frame: str, exif: str | None, class_name: str, image: str
) -> None:
    """Say which frame was taken where the user has not, and it is not plain."""
    if exif is None and photo.orientation > 1:
        if frame == 'stored':
            account.add(STORED, class_name, '', image)
        elif not photo.size_tells:
            account.add(ASSUMED, class_name, '', image)
