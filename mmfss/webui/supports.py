"""The images to mark and the marked objects of one visitor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmfss.apis.support import Shot, SupportSet, check_classes


@dataclass(frozen=True, eq=False)
class Photo:
    """An image to mark: name, file, (height, width), thumbnail uint8 (h, w, 3) BGR."""

    name: str
    path: Path
    shape: tuple[int, int]
    thumb: np.ndarray


@dataclass(frozen=True, eq=False)
class MarkedShot:
    """A support: its class, what the model sees, and its thumbnail with the mask.

    Attributes:
        class_name: of the class.
        shot: at the model's size; its source is the name of the image.
        thumb: uint8 (h, w, 3) BGR.
        thumb_mask: bool (h, w).
    """

    class_name: str
    shot: Shot
    thumb: np.ndarray
    thumb_mask: np.ndarray


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
        """All, class by class."""
        order = self.classes
        return tuple(sorted(self.shots, key=lambda shot: order.index(shot.class_name)))

    def of_image(self, name: str) -> list[str]:
        """Classes that an image was marked as."""
        names = (shot.class_name for shot in self.shots if shot.shot.source == name)
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

    def with_shot(self, shot: MarkedShot) -> Supports:
        """With one more."""
        return Supports((*self.shots, shot))

    def without(self, index: int) -> Supports:
        """Without one of :meth:`by_class`.

        Raises:
            ValueError: There is none of that number.
        """
        ordered = self.by_class()
        if not 0 <= index < len(ordered):
            raise ValueError('no marked object is chosen; click one in the list first')
        return Supports(tuple(shot for shot in self.shots if shot is not ordered[index]))

    def as_set(self, image_size: int) -> SupportSet:
        """What the model is shown.

        Args:
            image_size: S of the model.

        Raises:
            ValueError: Nothing is marked yet.
        """
        if not self.shots:
            raise ValueError('no object is marked yet; mark one in step 1 first')
        grouped = {
            name: tuple(shot.shot for shot in self.shots if shot.class_name == name)
            for name in self.classes
        }
        return SupportSet(grouped, image_size)
