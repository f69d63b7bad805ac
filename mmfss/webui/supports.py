"""A visitor's images to mark, and the objects marked in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open

from mmfss.apis.support import (
    FORMAT,
    Shot,
    SupportSet,
    check_classes,
    make_negative,
    make_shot,
)
from mmfss.webui.limits import Limits
from mmfss.webui.marking import mask_to_png, png_to_mask, preview, resize_mask
from mmfss.webui.uploads import read_upload

THUMB_SIDE = 320
SUPPORT_SUFFIX = '.safetensors'


@dataclass(frozen=True, eq=False)
class Photo:
    """An image to mark: name, file, (height, width), thumbnail uint8 (h, w, 3) BGR."""

    name: str
    path: Path
    shape: tuple[int, int]
    thumb: np.ndarray

    @classmethod
    def of(cls, name: str, path: Path, image: np.ndarray) -> Photo:
        """Of an image uint8 (H, W, 3) BGR that is at ``path``."""
        return cls(name, path, image.shape[:2], preview(image, THUMB_SIDE))


@dataclass(frozen=True, eq=False)
class MarkedShot:
    """A support: its class, what the model sees, and its thumbnail with the mask.

    Attributes:
        class_name: of the class.
        shot: at the model's size; its source is the name of the image.
        thumb: uint8 (h, w, 3) BGR.
        thumb_mask: bool (h, w).
        photo: what was marked; None where it came in a support file.
        negative: what is marked is not the class.
        mask: PNG of the mask at the photo's own size, for other methods; None with ``photo``.
    """

    class_name: str
    shot: Shot
    thumb: np.ndarray
    thumb_mask: np.ndarray
    photo: Photo | None = None
    negative: bool = False
    mask: bytes | None = None

    @property
    def title(self) -> str:
        """Of which class it is, or is not."""
        return f'not {self.class_name}' if self.negative else self.class_name

    @classmethod
    def of_photo(
        cls,
        class_name: str,
        photo: Photo,
        image: np.ndarray,
        mask: np.ndarray,
        size: int,
        resize: str,
        negative: bool = False,
    ) -> MarkedShot:
        """An object in a photo.

        Args:
            class_name: of the class.
            photo: with its pixels ``image``, uint8 (H, W, 3) BGR.
            mask: bool (H, W).
            size, resize: of the model.
            negative: what is marked is not the class.

        Raises:
            ValueError: See :func:`mmfss.apis.support.make_shot`.
        """
        make = make_negative if negative else make_shot
        shot = make((image, mask), size, photo.name, resize)
        small = resize_mask(mask, photo.thumb.shape[:2])
        return cls(class_name, shot, photo.thumb, small, photo, negative, mask_to_png(mask))

    def remade(self, size: int, resize: str, limits: Limits) -> MarkedShot:
        """The same for another model, made of its photo.

        Raises:
            ValueError: It came in a file, which has it at another size, or cannot be used.
        """
        if self.photo is None or self.mask is None:
            raise ValueError(
                f'{self.shot.source} came in a support file for models of '
                f'{self.shot.image.shape[0]} pixels, this method takes {size}; remove it, or mark '
                'its photo here'
            )
        photo, mask = self.photo, png_to_mask(self.mask)
        image = read_upload(photo.path, photo.name, limits)
        return self.of_photo(self.class_name, photo, image, mask, size, resize, self.negative)

    @classmethod
    def of_file(cls, class_name: str, shot: Shot, negative: bool = False) -> MarkedShot:
        """One of a support file: its thumbnail is made of what the model sees."""
        scale = THUMB_SIDE / max(*shot.shape, 1)
        size = (max(1, round(shot.shape[1] * scale)), max(1, round(shot.shape[0] * scale)))
        mask = cv2.resize((shot.mask == 1).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        thumb = cv2.resize(shot.image, size, interpolation=cv2.INTER_AREA)
        return cls(class_name, shot, thumb, mask.astype(bool), negative=negative)


@dataclass(frozen=True, eq=False)
class Supports:
    """Marked objects, in the order in which they were marked."""

    shots: tuple[MarkedShot, ...] = ()

    def __len__(self) -> int:
        return len(self.shots)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels 1..N, in the order in which they were first marked."""
        return tuple(dict.fromkeys(shot.class_name for shot in self.shots))

    def by_class(self) -> tuple[MarkedShot, ...]:
        """All, class by class, negatives last."""
        order = self.classes
        key = lambda shot: (order.index(shot.class_name), shot.negative)  # noqa: E731
        return tuple(sorted(self.shots, key=key))

    def of_image(self, photo: Photo) -> list[str]:
        """Classes that an image was marked as, or as not being."""
        names = (shot.title for shot in self.shots if shot.photo is photo)
        return list(dict.fromkeys(names))

    def name_for(self, text: str) -> str:
        """The name of a class as it is written: that of a class that is there, letter case aside,
        or a new one.

        Raises:
            ValueError: See :func:`mmfss.apis.support.check_classes`.
        """
        if not (text or '').strip():
            raise ValueError('the object has no name yet; write the name of its class')
        (name,) = check_classes([text])
        known = {other.casefold(): other for other in self.classes}
        if name.casefold() in known:
            return known[name.casefold()]
        return check_classes([*self.classes, name])[-1]

    def with_shots(self, shots: Sequence[MarkedShot], most: int) -> Supports:
        """With some more.

        Raises:
            ValueError: There are then more than ``most``.
        """
        if len(self.shots) + len(shots) > most:
            raise ValueError(f'{most} marked objects are the most; remove one first')
        return Supports((*self.shots, *shots))

    def with_file(self, path: Path, name: str, image_size: int, most: int) -> Supports:
        """With the marked objects of a support file; classes of the same name are joined.

        Args:
            path: the file.
            name: what messages call it.
            image_size: S of the model.
            most: marked objects.

        Raises:
            ValueError: It is no support file, one for another image size S, or there are then more
                than ``most``.
        """
        try:
            _check_header(path, image_size, most)
            loaded = SupportSet.load(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name)) from error
        known = self
        for text, shots in loaded.shots.items():
            label = known.name_for(text)
            more = [MarkedShot.of_file(label, shot) for shot in shots]
            more += [
                MarkedShot.of_file(label, shot, True) for shot in loaded.negatives.get(text, ())
            ]
            known = known.with_shots(more, most)
        return known

    def without(self, index: int) -> Supports:
        """Without one of :meth:`by_class`.

        Raises:
            ValueError: There is none of that number.
        """
        ordered = self.by_class()
        if not 0 <= index < len(ordered):
            raise ValueError('no marked object is chosen; click one in the list first')
        return Supports(tuple(shot for shot in self.shots if shot is not ordered[index]))

    def as_set(self, image_size: int, resize: str = 'bilinear') -> SupportSet:
        """What the model is shown.

        Args:
            image_size, resize: of the model.

        Raises:
            ValueError: Nothing is marked yet, or of a class only what it is not.
        """
        if not self.shots:
            raise ValueError('no object is marked yet; mark one in step 1 first')
        shots, negatives = (
            {
                name: tuple(
                    shot.shot
                    for shot in self.shots
                    if shot.class_name == name and shot.negative == negative
                )
                for name in self.classes
            }
            for negative in (False, True)
        )
        for name, some in shots.items():
            if not some:
                raise ValueError(
                    f'of {name} only what it is not is marked; mark one object of it in step 1, or '
                    'remove the others'
                )
        kept = {name: some for name, some in negatives.items() if some}
        return SupportSet(shots, image_size, resize, kept)


def _check_header(path: Path, image_size: int, most: int) -> None:
    """Before any image of a support file is decoded; what is no support file is said later."""
    try:
        with safe_open(path, 'numpy') as file:
            content = json.loads((file.metadata() or {})[FORMAT])
        side = content['image_size']
        count = sum(
            len(entry['shots']) + len(entry.get('negatives', ())) for entry in content['classes']
        )
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        return
    if side != image_size:
        raise ValueError(
            f'{path} is for models of {side} x {side} pixels, this one takes {image_size}; mark '
            'the images anew'
        )
    if count > most:
        raise ValueError(f'{path} has {count} marked objects, {most} are the most')
