"""A visitor's images: those to mark, the marked objects, those to label.

Images to label are kept small, as there may be many: what needs room is on disk, the image, its
preview, the logits. The labels that the page shows are those of the preview; :meth:`Query.whole`
decides them at the image's own size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open

from mmfss.apis.prediction import Prediction
from mmfss.apis.support import FORMAT, Shot, SupportSet, check_classes
from mmfss.webui.marking import preview

THUMB_SIDE = 320
RESULT_SIDE = 768
SUPPORT_SUFFIX = '.safetensors'


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


@dataclass(frozen=True)
class Query:
    """An image to label.

    Attributes:
        name: what the visitor calls it.
        path: of the server's copy.
        shape: (height, width).
        prediction: at the preview's size, with its logits on disk; None until it is labelled.
    """

    name: str
    path: Path
    shape: tuple[int, int]
    prediction: Prediction | None = None

    @classmethod
    def keep(cls, name: str, path: Path, image: np.ndarray) -> Query:
        """Write the preview of an image, uint8 (H, W, 3) BGR, that is at ``path``."""
        query = cls(name, path, image.shape[:2])
        done, data = cv2.imencode('.png', preview(image, RESULT_SIDE))
        if not done:
            raise ValueError(f'the preview of {name} cannot be written')
        query._beside('.preview').write_bytes(data.tobytes())
        return query

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def preview(self) -> np.ndarray:
        """The image with its long side at most ``RESULT_SIDE``: uint8 (h, w, 3) BGR."""
        data = np.frombuffer(self._beside('.preview').read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f'the preview of {self.name} is damaged; remove the image')
        return image

    def labelled(self, prediction: Prediction) -> Query:
        """With a result for the whole image; its logits go to disk."""
        file = self._beside('.npy')
        file.unlink(missing_ok=True)  # an older result may still be mapped
        np.save(file, prediction.logits)
        made = Prediction.make(
            prediction.classes,
            prediction.scores,
            prediction.thresholds,
            np.load(file, mmap_mode='c'),
            self.preview().shape[:2],
            self.name,
        )
        return replace(self, prediction=made)

    def with_threshold(self, threshold: float) -> Query:
        """Decided anew, where there is a result."""
        if self.prediction is None:
            return self
        return replace(self, prediction=self.prediction.with_threshold(threshold))

    def whole(self) -> Prediction:
        """The result at the image's own size.

        Raises:
            ValueError: The image is not labelled.
        """
        if self.prediction is None:
            raise ValueError(f'{self.name} is not labelled yet')
        made = self.prediction
        return Prediction.make(
            made.classes, made.scores, made.thresholds, made.logits, self.shape, self.name
        )

    def drawn(self) -> np.ndarray:
        """The preview with its classes, or as it is before it is labelled: uint8 (h, w, 3) BGR."""
        image = self.preview()
        return image if self.prediction is None else self.prediction.draw(image)

    def forget(self) -> None:
        """Remove its files."""
        for file in (self.path, self._beside('.preview'), self._beside('.npy')):
            file.unlink(missing_ok=True)
