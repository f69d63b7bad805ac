"""What one visitor has done so far. No other visitor's data is reachable from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from mmfss.apis.check_result import SelfCheck
from mmfss.apis.prediction import Prediction, check_threshold
from mmfss.methods.base import check_takes_negatives
from mmfss.webui.folders import VisitorFolder
from mmfss.webui.keeping import Keeper
from mmfss.webui.limits import Limits
from mmfss.webui.marking_session import MarkingSession
from mmfss.webui.memory import bytes_of
from mmfss.webui.queries import Query
from mmfss.webui.supports import Supports
from mmfss.webui.uploads import Upload, read_upload, take
from mmfss.webui.worker import ModelWorker


class Session(MarkingSession):
    """Images, marks, supports and results of one visitor.

    Each public method does one step, under the session's lock; one that raises leaves all as it
    was. Files live in a folder of the session's own; where that stays, so does what was done, see
    :mod:`mmfss.webui.keeping`.

    Args:
        worker: the shared model.
        limits: how much the visitor may bring.
        folder: of the session's files.

    Attributes:
        labelled_with: the supports that results are of.
        opened: name of the result that is looked at.
        notes: what of an earlier page could not be taken up, to be told once.
    """

    def __init__(self, worker: ModelWorker, limits: Limits, folder: VisitorFolder) -> None:
        super().__init__(worker, limits, folder)
        self.keeper = Keeper(folder)
        self._encoded: Supports | None = None  # what the inferencer was given
        self.labelled_with: Supports | None = None
        self.queries: tuple[Query, ...] = ()
        self.opened: str | None = None
        self.threshold = worker.threshold
        self.notes: list[str] = []
        self._checked: tuple[Supports, SelfCheck] | None = None

    def nbytes(self) -> int:
        """Bytes of memory that the session holds; what is on disk does not count."""
        held = [self.photos, self.supports, self.proposal, self.queries, self._inferencer.states]
        others = (self._encoded, self.labelled_with)
        held += [one for one in others if one is not None and one is not self.supports]
        return bytes_of(held)

    def save(self) -> None:
        """Keep what was done so far; within a step."""
        self.keeper.save(self)

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
            self.queries, self.opened = (), None

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
            size, resize = worker.image_size, worker.resize
            supports = self.supports
            if (size, resize) != (self.worker.image_size, self.worker.resize):
                shots = supports.shots
                supports = Supports(tuple(s.remade(size, resize, self.limits) for s in shots))
            self.worker, self._inferencer = worker, inferencer
            self.supports, self._encoded, self.labelled_with = supports, None, None
            self.queries = tuple(query.without_result() for query in self.queries)
            self.threshold = worker.threshold
            self._choose(self.current)  # a mask that is proposed is of the model before

    def check(self) -> None:
        """Predict each support from the others; see :attr:`self_check`.

        Raises:
            ValueError: No supports.
        """
        with self.step():
            support = self.supports.as_set(self.worker.image_size, self.worker.resize)
            found = self.worker.run(self._inferencer.check, support)
            self._encoded = self.supports
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
            if self.labelled_with is not self.supports:
                self.queries = tuple(query.without_result() for query in self.queries)
                self.labelled_with = self.supports
            for i, query in enumerate(self.queries):
                if progress is not None:
                    progress(i, len(self.queries))
                if query.prediction is None:
                    image = read_upload(query.path, query.name, self.limits)
                    self._inferencer.threshold = self.threshold
                    found = cast(Prediction, self.worker.run(self._inferencer, image))
                    self.replace(query, query.labelled(found, self.folder.new('.npy')))
                    self.save()
            self._decide()  # the threshold may have moved meanwhile

    def replace(self, old: Query, new: Query) -> None:
        """Put an image with what became of it in the place of the same image; within a step."""
        self.queries = tuple(new if one is old else one for one in self.queries)

    @property
    def current_results(self) -> bool:
        """Whether results are of the supports as they are now."""
        return self.labelled_with is self.supports

    def labelled(self) -> tuple[Query, ...]:
        """Images with a result of the present supports, or labels that were looked through."""
        now = self.current_results
        return tuple(
            query
            for query in self.queries
            if query.kept is not None or (now and query.prediction is not None)
        )

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
