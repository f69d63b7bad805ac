"""What one visitor has done so far. No other visitor's data is reachable from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from mmfss.apis.check_result import SelfCheck
from mmfss.apis.prediction import Prediction, check_threshold
from mmfss.apis.support import make_negative, make_shot
from mmfss.methods.base import check_takes_negatives
from mmfss.webui import marking
from mmfss.webui.images import SUPPORT_SUFFIX, THUMB_SIDE, MarkedShot, Photo, Query, Supports
from mmfss.webui.limits import Limits
from mmfss.webui.marking import LEAST_SIDE, Click, Kind
from mmfss.webui.memory import bytes_of
from mmfss.webui.uploads import Upload, VisitorFolder, read_upload, take
from mmfss.webui.worker import ModelWorker

PATIENCE_S = 20.0
"""How long a step waits for the visitor's last one, in seconds."""


class Session:
    """Images, marks, supports and results of one visitor.

    Each public method does one step, under the session's lock; one that raises leaves all as it
    was. Files live in a folder of the session's own that goes with it.

    Args:
        worker: the shared model.
        limits: how much the visitor may bring.
        root: where the folder is made.
    """

    def __init__(self, worker: ModelWorker, limits: Limits, root: Path) -> None:
        self.worker, self.limits = worker, limits
        self.folder = VisitorFolder(root)
        self._lock = threading.Lock()
        self._inferencer = worker.new_inferencer()
        self._encoded = Supports()
        self.photos: tuple[Photo, ...] = ()
        self.current: int | None = None
        self.clicks: tuple[Click, ...] = ()
        self.proposal: np.ndarray | None = None
        self.supports = self._encoded
        self.queries: tuple[Query, ...] = ()
        self.threshold = worker.threshold
        self._checked: tuple[Supports, SelfCheck] | None = None
        self.closed = False

    def close(self) -> None:
        """Give up all that the session holds, and remove its files."""
        self.closed = True
        self._inferencer = self.worker.new_inferencer()
        self.photos, self.queries, self.current = (), (), None
        self.clicks, self.proposal, self._checked = (), None, None
        self._encoded = self.supports = Supports()
        self.folder.remove()

    def close_if_idle(self) -> bool:
        """:meth:`close`, unless a step runs; whether that was done."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self.close()
        finally:
            self._lock.release()
        return True

    def nbytes(self) -> int:
        """Bytes of memory that the session holds; what is on disk does not count."""
        held = [self.photos, self.supports, self.proposal, self.queries, self._inferencer.states]
        return bytes_of(held if self._encoded is self.supports else [*held, self._encoded])

    @contextmanager
    def step(self) -> Iterator[None]:
        """Within, no other step of this visitor runs.

        Raises:
            ValueError: The one before does not end.
        """
        if not self._lock.acquire(timeout=PATIENCE_S):
            raise ValueError('the step before is still running; wait for it, then try again')
        try:
            yield
        finally:
            self._lock.release()

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
            kept = self.folder.keep(path)
            return Photo(name, kept, image.shape[:2], marking.preview(image, THUMB_SIDE))

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
        self.current, self.clicks, self.proposal = index, (), None

    def drop_photo(self) -> None:
        """Take the current image off the list; supports made of it stay."""
        with self.step():
            index = self._current_index()
            if not self.supports.of_image(self.photos[index]):  # else another method may ask for it
                self.photos[index].path.unlink(missing_ok=True)
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

    def current_marks(self) -> np.ndarray | None:
        """The current image with clicks and proposal, enlarged where it is small: uint8 (h, w, 3)
        BGR, or None without one."""
        if self.current is None:
            return None
        photo, image = self._current_image()
        shown = marking.preview(image, least=LEAST_SIDE)
        return marking.draw_marks(shown, self.clicks, photo.shape, self.proposal)

    def click(self, kind: Kind, x: float, y: float) -> None:
        """A click at a pixel of the preview. When the clicks say enough, the model proposes a mask.

        Raises:
            ValueError: No image, or the model cannot use the prompt.
        """
        with self.step():
            photo, image = self._current_image()
            shown = marking.preview(image, least=LEAST_SIDE)
            place = marking.to_whole(x, y, shown.shape[:2], photo.shape)
            self._propose(image, marking.add_click(self.clicks, Click(kind, *place)))

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
        proposal = None if prompt is None else self.worker.propose(image, prompt)
        self.clicks, self.proposal = clicks, proposal

    def use_mask(self, class_name: str, painted: dict | None = None, negative: bool = False) -> str:
        """Add the current image to a class, with the mask that is shown.

        Args:
            class_name: a new one, or one that is there (letter case aside).
            painted: of the page's editor, see :func:`mmfss.webui.marking.brush_mask`; None takes
                the proposal.
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
            name = self.supports.name_for(class_name)
            photo, image = self._current_image()
            if negative:
                check_takes_negatives(self._inferencer.model)
                if name not in self.supports.classes:
                    raise ValueError(
                        f'no {name} is marked yet; mark an object of it first, then what it is not'
                    )
            if negative and self.proposal is None and not marking.is_painted(painted):
                mask = np.ones(photo.shape, bool)
            elif painted is not None:
                mask = marking.brush_mask(painted, photo.shape)
            elif self.proposal is not None:
                mask = self.proposal
            else:
                raise ValueError(
                    'there is no mask yet: click two corners of a box around the object, or a '
                    'point on it; or paint it with the brush'
                )
            size, resize = self.worker.image_size, self.worker.resize
            make = make_negative if negative else make_shot
            shot = make((image, mask), size, photo.name, resize)
            small = marking.resize_mask(mask, photo.thumb.shape[:2])
            kept = marking.mask_to_png(mask)
            marked = MarkedShot(name, shot, photo.thumb, small, photo, negative, kept)
            self.supports = self.supports.with_shots([marked], self.limits.max_shots)
            now = self._current_index()
            others = [*range(now + 1, len(self.photos)), *range(now)]
            self._choose(next((i for i in others if not self.marked_as(i)), now))
            return name

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

    def add_queries(self, uploads: Sequence[Upload]) -> list[str]:
        """Take images to label.

        Returns:
            Why which files were left out, and what is lost of grey values.
        """
        lost = list[str]()

        def query(path: Path, name: str) -> Query:
            image = read_upload(path, name, self.limits, lost.append)
            return Query.keep(name, self.folder.keep(path), image)

        with self.step():
            known = [one.name for one in self.queries]
            new, refused = take(uploads, known, self.limits.max_queries, query)
            self.queries += tuple(new)
            return refused + lost[:1]

    def clear_queries(self) -> None:
        """Remove all images to label, and their results."""
        with self.step():
            for query in self.queries:
                query.forget()
            self.queries = ()

    def choose_method(self, worker: ModelWorker) -> None:
        """Go on with another model: supports are made of the photos anew, at its size, and results
        are dropped.

        Raises:
            ValueError: A support came in a file, which has it at another size, or cannot be used;
                all is then as it was.
        """
        with self.step():
            if worker is self.worker:
                return
            inferencer = worker.new_inferencer()
            if any(one.negative for one in self.supports.shots):
                check_takes_negatives(inferencer.model)
            supports = Supports(tuple(self._remade(one, worker) for one in self.supports.shots))
            self.worker, self._inferencer = worker, inferencer
            self._encoded, self.supports = Supports(), supports
            self.queries = tuple(replace(query, prediction=None) for query in self.queries)
            self.threshold = worker.threshold
            self._choose(self.current)  # a mask that is proposed is of the model before

    def _remade(self, marked: MarkedShot, worker: ModelWorker) -> MarkedShot:
        size, resize = worker.image_size, worker.resize
        if (size, resize) == (self.worker.image_size, self.worker.resize):
            return marked
        if marked.photo is None or marked.mask is None:
            raise ValueError(
                f'{marked.shot.source} came in a support file for models of '
                f'{self.worker.image_size} pixels, this method takes {size}; remove it, or mark '
                'its photo here'
            )
        image = read_upload(marked.photo.path, marked.photo.name, self.limits)
        make = make_negative if marked.negative else make_shot
        pair = (image, marking.png_to_mask(marked.mask))
        return replace(marked, shot=make(pair, size, marked.photo.name, resize))

    def check(self) -> None:
        """Predict each support from the others; see :attr:`self_check`.

        Raises:
            ValueError: No supports.
        """
        with self.step():
            support = self.supports.as_set(self.worker.image_size, self.worker.resize)
            found = self.worker.run(self._inferencer.check, support)
            if self._encoded is not self.supports:
                self._encoded = self.supports
                self.queries = tuple(replace(query, prediction=None) for query in self.queries)
            self._checked = self.supports, found

    @property
    def self_check(self) -> SelfCheck | None:
        """What :meth:`check` found of the supports as they are now."""
        if self._checked is None or self._checked[0] is not self.supports:
            return None
        return self._checked[1]

    @property
    def unlabelled(self) -> int:
        """How many images have no result of the supports as they are now."""
        return len(self.queries) - len(self.labelled())

    def label(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Label the images that have no result of the present supports.

        Args:
            progress: called with how many are done, and of how many.

        Raises:
            ValueError: No supports, or no images.
        """
        with self.step():
            support = self.supports.as_set(self.worker.image_size, self.worker.resize)
            if not self.queries:
                raise ValueError('there is no image to label yet; load some first')
            if self._encoded is not self.supports:
                self.worker.run(self._inferencer.set_support, support)
                self._encoded = self.supports
                self.queries = tuple(replace(query, prediction=None) for query in self.queries)
            for i, query in enumerate(self.queries):
                if progress is not None:
                    progress(i, len(self.queries))
                if query.prediction is None:
                    image = read_upload(query.path, query.name, self.limits)
                    self._inferencer.threshold = self.threshold
                    found = cast(Prediction, self.worker.run(self._inferencer, image))
                    labelled = query.labelled(found)
                    self.queries = (*self.queries[:i], labelled, *self.queries[i + 1 :])
            self._decide()  # the threshold may have moved meanwhile

    def labelled(self) -> tuple[Query, ...]:
        """Images with a result of the present supports."""
        if self._encoded is not self.supports:
            return ()
        return tuple(query for query in self.queries if query.prediction is not None)

    def set_threshold(self, threshold: float) -> None:
        """Decide all results anew, without encoding; it counts while images are labelled, too.

        Raises:
            ValueError: Not in [0, 1].
        """
        check_threshold(threshold, ('all',))
        self.threshold = float(threshold)
        with suppress(ValueError), self.step():  # else the step that runs decides at its end
            self._decide()

    def _decide(self) -> None:
        self.queries = tuple(query.with_threshold(self.threshold) for query in self.queries)
