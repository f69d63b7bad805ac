"""A visitor's images to label: what was found in them, and what the visitor thinks of it.

They are kept small, as there may be many: what needs room is on disk, the image, its preview, the
logits, the labels that were looked through. The labels that the page shows are those of the
preview; :meth:`Query.whole` decides them at the image's own size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from mmfss.apis.prediction import Prediction
from mmfss.datasets.classes import label_palette
from mmfss.datasets.io import read_mask, save_png
from mmfss.files import atomic
from mmfss.webui.marking import preview

RESULT_SIDE = 768
Verdict = Literal['', 'accepted', 'corrected', 'rejected']
_PREVIEW = '.preview'
_ABSENT = -30.0  # logit of a class that is nowhere


@dataclass(frozen=True, eq=False)
class Kept:
    """Labels that a person has accepted or corrected: neither a threshold nor another support
    changes them.

    Attributes:
        classes: names of the labels 1..N.
        path: palette PNG at the image's own size.
        small: uint8 (h, w), the same at the preview's.
    """

    classes: tuple[str, ...]
    path: Path
    small: np.ndarray = field(repr=False)

    @classmethod
    def read(cls, classes: Sequence[str], path: Path, shape: tuple[int, int]) -> Kept:
        """From its file, for a preview of ``shape``."""
        labels = read_mask(path)
        small = cv2.resize(labels, shape[::-1], interpolation=cv2.INTER_NEAREST)
        return cls(tuple(classes), path, small)

    def numbered(self, classes: Sequence[str], labels: np.ndarray) -> np.ndarray:
        """Labels uint8 (h, w) of the own classes, in the numbers of ``classes``, which has them."""
        table = [0, *(classes.index(name) + 1 for name in self.classes)]
        return np.array(table, np.uint8)[labels]


@dataclass(frozen=True, eq=False)
class Query:
    """An image to label.

    Attributes:
        name: what the visitor calls it.
        path: of the server's copy.
        shape: (height, width).
        prediction: at the preview's size, with its logits on disk; None until it is labelled.
        logits: their file.
        certainty: of the prediction.
        verdict: of the visitor; '' before there is one.
        kept: the labels, where they were accepted or corrected.
    """

    name: str
    path: Path
    shape: tuple[int, int]
    prediction: Prediction | None = None
    logits: Path | None = None
    certainty: float = 0.0
    verdict: Verdict = ''
    kept: Kept | None = None

    @classmethod
    def keep(cls, name: str, path: Path, image: np.ndarray) -> Query:
        """Write the preview of an image, uint8 (H, W, 3) BGR, that is at ``path``."""
        query = cls(name, path, image.shape[:2])
        done, data = cv2.imencode('.png', preview(image, RESULT_SIDE))
        if not done:
            raise ValueError(f'the preview of {name} cannot be written')
        with atomic(query._preview_file, flush=False) as part:
            part.write_bytes(data.tobytes())
        return query

    @property
    def _preview_file(self) -> Path:
        return self.path.with_name(self.path.name + _PREVIEW)

    @property
    def files(self) -> set[str]:
        """Names of its files."""
        kept = None if self.kept is None else self.kept.path
        paths = (self.path, self._preview_file, self.logits, kept)
        return {path.name for path in paths if path is not None}

    def preview(self) -> np.ndarray:
        """The image with its long side at most ``RESULT_SIDE``: uint8 (h, w, 3) BGR."""
        data = np.frombuffer(self._preview_file.read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f'the preview of {self.name} is damaged; remove the image')
        return image

    def labelled(self, prediction: Prediction, file: Path) -> Query:
        """With a result for the whole image, whose logits go to a new file. A verdict on labels
        that were kept stays, one on a result that is gone does not."""
        with atomic(file, flush=False) as part, open(part, 'wb') as opened:
            np.save(opened, prediction.logits)
        new = replace(self, verdict=self.verdict if self.kept else '')
        return new.with_logits(prediction, file)

    def with_logits(self, found: Prediction, file: Path) -> Query:
        """With a result whose logits are in a file.

        Raises:
            OSError, ValueError: It cannot be read, or has other logits.
        """
        logits = np.load(file, mmap_mode='c', allow_pickle=False)
        if logits.ndim != 3 or len(logits) != len(found.classes):
            raise ValueError(f'the result of {self.name} is damaged')
        size = self.preview().shape[:2]
        made = Prediction.make(
            found.classes, found.scores, found.thresholds, logits, size, self.name
        )
        return replace(self, prediction=made, logits=file, certainty=made.certainty)

    def without_result(self) -> Query:
        """Before it was labelled; what a visitor accepted or corrected stays."""
        verdict: Verdict = self.verdict if self.kept else ''
        return replace(self, prediction=None, logits=None, certainty=0.0, verdict=verdict)

    def with_threshold(self, threshold: float) -> Query:
        """Decided anew, where there is a result."""
        if self.prediction is None:
            return self
        made = self.prediction.with_threshold(threshold)
        return replace(self, prediction=made, certainty=made.certainty)

    def whole(self) -> Prediction:
        """The result at the image's own size; its labels are those that were kept, if any were.

        Raises:
            ValueError: The image is not labelled.
        """
        found = self.shown_at(self.shape)
        if found is None:
            raise ValueError(f'{self.name} is not labelled yet')
        return found

    def _with_kept_classes(self) -> Prediction | None:
        """The prediction, with those classes of the kept labels that it does not know; they have
        no score. None before there is anything."""
        made, known = self.prediction, () if self.kept is None else self.kept.classes
        new = tuple(name for name in known if made is None or name not in made.classes)
        if not new:
            return made
        nothing = np.zeros(len(new), np.float32)
        if made is None:
            small = np.zeros(self.preview().shape[:2], np.uint8)
            return Prediction(new, nothing, nothing, small, self.name, nothing[:, None, None])
        logits = np.full((len(new), *made.logits.shape[1:]), _ABSENT, np.float32)
        return replace(
            made,
            classes=made.classes + new,
            scores=np.concatenate([made.scores, nothing]),
            thresholds=np.concatenate([made.thresholds, nothing]),
            logits=np.concatenate([made.logits, logits]),
        )

    # ------------------------------------------------------------------ what the visitor says

    def with_labels(
        self, classes: Sequence[str], labels: np.ndarray, file: Path, verdict: Verdict
    ) -> Query:
        """With labels uint8 (H, W) that are to stay, written to a new file."""
        save_png(file, labels, label_palette(len(classes)))
        shape = self.preview().shape
        return self.with_kept(Kept.read(classes, file, (shape[0], shape[1])), verdict)

    def with_kept(self, kept: Kept, verdict: Verdict) -> Query:
        """With labels that are to stay."""
        return replace(self, verdict=verdict, kept=kept)

    def with_verdict(self, verdict: Verdict) -> Query:
        """With a verdict alone, without labels that are to stay."""
        return replace(self, verdict=verdict, kept=None)

    # ------------------------------------------------------------------ how it looks

    @property
    def has_labels(self) -> bool:
        """Whether there is something to be seen: a result, or labels that were kept."""
        return self.prediction is not None or bool(self.kept and self.kept.classes)

    @property
    def shown(self) -> Prediction | None:
        """What is to be seen at the preview's size; None before there is something."""
        made = self._with_kept_classes()
        if made is None or self.kept is None:
            return made
        return replace(made, labels=self.kept.numbered(made.classes, self.kept.small))

    def shown_at(self, size: tuple[int, int]) -> Prediction | None:
        """What is to be seen at another size (height, width)."""
        made = self._with_kept_classes()
        if made is None:
            return None
        if self.kept is not None:
            labels = read_mask(self.kept.path)
            labels = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST)
            return replace(made, labels=self.kept.numbered(made.classes, labels))
        return Prediction.make(
            made.classes, made.scores, made.thresholds, made.logits, size, self.name
        )

    def drawn(self, side: int = RESULT_SIDE) -> np.ndarray:
        """The preview with its classes, or as it is before it is labelled: uint8 (h, w, 3) BGR, its
        long side at most ``side``."""
        image, shown = self.preview(), self.shown
        small = preview(image, side)
        if shown is None:
            return small
        if small.shape != image.shape:
            size = (small.shape[1], small.shape[0])
            labels = cv2.resize(shown.labels, size, interpolation=cv2.INTER_NEAREST)
            shown = replace(shown, labels=labels)
        return shown.draw(small)
