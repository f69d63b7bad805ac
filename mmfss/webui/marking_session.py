"""A visitor's images to mark, clicks and proposals, and the marked objects: the first half of a
session."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mmfss.methods.base import check_takes_negatives
from mmfss.webui import marking
from mmfss.webui.folders import VisitorFolder
from mmfss.webui.limits import Limits
from mmfss.webui.marking import Click, Kind
from mmfss.webui.supports import SUPPORT_SUFFIX, MarkedShot, Photo, Supports
from mmfss.webui.uploads import Upload, read_upload, take
from mmfss.webui.worker import ModelWorker

PATIENCE_S = 20.0
"""How long a step waits for the visitor's last one, in seconds."""


class MarkingSession:
    """Photos, marks and supports of one visitor, see :class:`mmfss.webui.session.Session`."""

    def __init__(self, worker: ModelWorker, limits: Limits, folder: VisitorFolder) -> None:
        self.worker, self.limits, self.folder = worker, limits, folder
        self._lock = threading.Lock()
        self._inferencer = worker.new_inferencer()
        self.photos: tuple[Photo, ...] = ()
        self.current: int | None = None
        self.clicks: tuple[Click, ...] = ()
        self.proposal: np.ndarray | None = None
        self.made_by = ''  # the proposal, where it was not the heads for prompts
        self.supports = Supports()

    def close(self) -> None:
        """Remove the session's files."""
        self.folder.remove()

    @property
    def busy(self) -> bool:
        """Whether a step runs."""
        return self._lock.locked()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Within, no other step of this visitor runs; what it did is kept at its end.

        Raises:
            ValueError: The one before does not end.
            OSError: It cannot be kept.
        """
        if not self._lock.acquire(timeout=PATIENCE_S):
            raise ValueError('the step before is still running; wait for it, then try again')
        try:
            yield
            self.save()
        finally:
            self._lock.release()

    def save(self) -> None:
        """Keep what was done so far; within a step."""
        raise NotImplementedError

    def add_photos(self, uploads: Sequence[Upload]) -> list[str]:
        """Take images to mark, and support files with marked ones; the first new image is then
        the current one.

        Returns:
            Why which files were left out, and what is lost of grey values.
        """
        size, most, lost = self.worker.image_size, self.limits.max_shots, list[str]()

        def add_file(path: Path, name: str) -> None:
            self.supports = self.supports.with_file(path, name, size, most)

        def photo(path: Path, name: str) -> Photo:
            image = read_upload(path, name, self.limits, lost.append)
            return Photo.of(name, self.folder.keep(path), image)

        with self.step():
            files = [one for one in uploads if one[1].lower().endswith(SUPPORT_SUFFIX)]
            refused = take(files, (), most, add_file)[1]
            images = [one for one in uploads if one not in files]
            known = [one.name for one in self.photos]
            new, others = take(images, known, self.limits.max_photos, photo)
            if new:
                self._choose(len(self.photos))
                self.photos += tuple(new)
            return refused + others + lost[:1]

    def choose_photo(self, index: int) -> None:
        """Make another image the current one; clicks and proposal are dropped.

        Raises:
            ValueError: No image of that number.
        """
        with self.step():
            if not 0 <= index < len(self.photos):
                raise ValueError(f'there is no image {index + 1}; there are {len(self.photos)}')
            self._choose(index)

    def _choose(self, index: int | None) -> None:
        self.current, self.clicks, self.proposal, self.made_by = index, (), None, ''

    def drop_photo(self) -> None:
        """Take the current image off the list; supports made of it stay."""
        with self.step():
            index = self._current_index()
            self.photos = self.photos[:index] + self.photos[index + 1 :]
            self._choose(min(index, len(self.photos) - 1) if self.photos else None)

    def _current_index(self) -> int:
        if self.current is None:
            raise ValueError('there is no image to mark yet; load one first')
        return self.current

    def _current_image(self) -> tuple[Photo, np.ndarray]:
        photo = self.photos[self._current_index()]
        return photo, read_upload(photo.path, photo.name, self.limits)

    def current_preview(self) -> np.ndarray | None:
        """The current image, uint8 (h, w, 3) BGR, or None without one."""
        return None if self.current is None else marking.preview(self._current_image()[1])

    def proposal_preview(self) -> np.ndarray | None:
        """The proposed mask at the size of the preview, bool (h, w), or None without one."""
        return None if self.proposal is None else _small(self.proposal)

    def click(self, kind: Kind, x: float, y: float) -> None:
        """A click at a pixel of the preview. When the clicks say enough, the model proposes a mask.

        Raises:
            ValueError: No image, or the model cannot use the prompt.
        """
        with self.step():
            photo, image = self._current_image()
            self._propose(image, marking.add_click(self.clicks, _click(kind, x, y, photo)))

    def drag(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """A box from one pixel of the preview to another, see :meth:`click`."""
        with self.step():
            photo, image = self._current_image()
            corners = _click('corner', x1, y1, photo), _click('corner', x2, y2, photo)
            self._propose(image, marking.with_box(self.clicks, *corners))

    def undo_click(self) -> None:
        """Take back the last click."""
        with self.step():
            _, image = self._current_image()
            self._propose(image, self.clicks[:-1])

    def clear_clicks(self) -> None:
        """Take back all clicks."""
        with self.step():
            self._choose(self.current)

    def _propose(self, image: np.ndarray, clicks: tuple[Click, ...]) -> None:
        prompt = marking.as_prompt(clicks)
        found = None if prompt is None else self.worker.propose(image, prompt)
        self.proposal = None if found is None else np.asarray(found.mask, bool)
        self.clicks, self.made_by = clicks, getattr(found, 'how', '')

    def use_mask(self, class_name: str, painted: str = '', negative: bool = False) -> str:
        """Add the current image to a class, with the mask that is shown.

        Args:
            class_name: a new one, or one that is there (letter case aside).
            painted: the mask as the page's canvas has it, see :func:`marking.painted_mask`; ''
                takes the proposal as it is.
            negative: what is marked is not the class, or nothing in the image where there is no
                mask.

        Returns:
            The name of the class.

        Raises:
            ValueError: No name, no mask, one that the model cannot use, or too many supports; a
                ``negative`` of a class of which nothing is marked yet, or that the method does not
                take.
        """
        with self.step():
            name = self.class_for(class_name, negative)
            photo, image = self._current_image()
            if painted:
                whole = np.zeros(photo.shape, bool) if self.proposal is None else self.proposal
                before = _small(whole)
                drawn = marking.painted_mask(painted, (before.shape[0], before.shape[1]))
                mask = marking.repainted(whole, before, drawn)
            elif self.proposal is not None:
                mask = self.proposal
            elif negative:
                mask = np.ones(photo.shape, bool)
            else:
                raise ValueError(
                    'there is no mask yet: drag a box around the object, click a point on it, or '
                    'paint it with the brush'
                )
            self.add_shot(name, photo, image, mask, negative)
            now = self._current_index()
            others = [*range(now + 1, len(self.photos)), *range(now)]
            self._choose(next((i for i in others if not self.marked_as(i)), now))
            return name

    def class_for(self, text: str, negative: bool = False) -> str:
        """The class that a mask is to be of, see :meth:`Supports.name_for`.

        Raises:
            ValueError: See :meth:`use_mask`.
        """
        name = self.supports.name_for(text)
        if negative:
            check_takes_negatives(self._inferencer.model)
            if name not in self.supports.classes:
                raise ValueError(
                    f'no {name} is marked yet; mark an object of it first, then what it is not'
                )
        return name

    def add_shot(
        self, name: str, photo: Photo, image: np.ndarray, mask: np.ndarray, negative: bool
    ) -> None:
        """Add a support, see :meth:`MarkedShot.of_photo`; within a step."""
        size, resize = self.worker.image_size, self.worker.resize
        marked = MarkedShot.of_photo(name, photo, image, mask, size, resize, negative)
        self.supports = self.supports.with_shots([marked], self.limits.max_shots)

    @property
    def no_negatives(self) -> str:
        """Why the method takes no negatives; '' where it does."""
        try:
            check_takes_negatives(self._inferencer.model)
        except ValueError as error:
            return str(error)
        return ''

    def marked_as(self, index: int) -> list[str]:
        """Classes that an image of the list was marked as, or as not being."""
        return self.supports.of_image(self.photos[index])

    def drop_shot(self, index: int) -> None:
        """Remove a support, see :meth:`Supports.without`."""
        with self.step():
            self.supports = self.supports.without(index)

    def clear_shots(self) -> None:
        """Remove all supports."""
        with self.step():
            self.supports = Supports()


def _small(mask: np.ndarray) -> np.ndarray:
    """A mask as the preview of its image has it."""
    height, width = marking.preview_shape((mask.shape[0], mask.shape[1]))
    return marking.resize_mask(mask, (height, width))


def _click(kind: Kind, x: float, y: float, photo: Photo) -> Click:
    return Click(kind, *marking.to_whole(x, y, marking.preview_shape(photo.shape), photo.shape))
