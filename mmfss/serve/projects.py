"""What people have marked in the projects of their labelling programs, on disk, and the predictions
from it.

::

    DATA/lock                                one service at a time
    DATA/features/                           of the encoders, shared by all projects
    DATA/projects/<project>/annotations/<key>.json    masks of one photo, by class
    DATA/projects/<project>/photos/<sha256>           that photo

A file is written beside, flushed and renamed before the service confirms it
(:func:`mmfss.files.atomic`): what was confirmed is there after a kill at any time.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from mmfss.apis.images import to_model_size
from mmfss.apis.prediction import Prediction
from mmfss.apis.support import Shot, SupportSet, check_classes, make_shot
from mmfss.files import atomic, remove_parts, write_text
from mmfss.webui.limits import Limits
from mmfss.webui.marking import mask_to_png, png_to_mask
from mmfss.webui.uploads import read_upload
from mmfss.webui.worker import ModelWorker
from mmfss.words import listed

VERSION = 1
_KEY = re.compile(r'[0-9A-Za-z_-]{1,100}')


@dataclass(frozen=True)
class Annotation:
    """What is marked in one photo.

    Attributes:
        name: of the photo, for messages.
        photo: name of the kept file, the SHA-256 of its bytes.
        masks: class -> PNG of its mask, of the photo's size, upright.
        time: nanoseconds since 1970 when it came; the latest are used first.
    """

    name: str
    photo: str
    masks: Mapping[str, bytes]
    time: int

    def to_json(self) -> str:
        """As it is kept."""
        masks = {name: base64.b64encode(png).decode() for name, png in self.masks.items()}
        content = dict(version=VERSION, name=self.name, photo=self.photo, time=self.time)
        return json.dumps({**content, 'masks': masks}, ensure_ascii=False)

    @classmethod
    def load(cls, path: Path) -> Annotation:
        """Read one that is kept.

        Raises:
            ValueError: It is damaged, or of another version.
        """
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            if content['version'] != VERSION:
                raise ValueError(f'version {content["version"]!r}, read is {VERSION}')
            masks = {name: base64.b64decode(png) for name, png in content['masks'].items()}
            return cls(str(content['name']), str(content['photo']), masks, int(content['time']))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{path} is damaged ({type(error).__name__}: {error}); restore it, or remove it '
                'and mark its photo again'
            ) from error


@dataclass(frozen=True)
class Predicted:
    """A prediction.

    Attributes:
        prediction: classes, labels, scores.
        version: see :meth:`Project.version`.
    """

    prediction: Prediction
    version: str


@dataclass
class Project:
    """The supports of one project.

    Args:
        folder: where they are kept; made with the first annotation.
        worker: the model, shared by all projects.
        limits: of photos; ``max_shots`` is how many supports a class has at most, the latest ones.
    """

    folder: Path
    worker: ModelWorker
    limits: Limits
    _kept: dict[str, Annotation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._inferencer = self.worker.new_inferencer()
        self._shots: dict[tuple[str, str], Shot | None] = {}  # None: cannot be used
        self._encoded: tuple[tuple[str, str, int], ...] | None = None
        self._classes: Collection[str] | None = None  # that were asked for last
        self._begun = False
        for path in sorted(self.folder.glob('annotations/*.json')):
            self._kept[path.stem] = Annotation.load(path)
        remove_parts(self.folder)

    # ------------------------------------------------------------------ what is marked

    @property
    def counts(self) -> dict[str, int]:
        """In how many photos each class is marked."""
        with self._lock:
            return self._counts(list(self._kept.values()))

    @staticmethod
    def _counts(annotations: list[Annotation]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for one in sorted(annotations, key=lambda one: one.time):
            for name in one.masks:
                counts[name] = counts.get(name, 0) + 1
        return counts

    def put(
        self, key: str, photo: bytes | Path, name: str, masks: Mapping[str, np.ndarray]
    ) -> list[str]:
        """Keep what is marked in a photo, in the place of what was kept under ``key``; it is on the
        disk when this returns.

        Args:
            key: of 1 to 100 letters, digits, '-' and '_'.
            photo: its file.
            name: what messages call it.
            masks: class -> bool (H, W) of the upright photo, some pixel of which is True.

        Returns:
            Why some masks cannot be used as supports, though they are kept: they vanish at the
            model's size, or mark all.

        Raises:
            ValueError: The photo cannot be read, a mask has another size, two classes of the
                project differ in letter case alone; what was kept before is then still there.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f'the key of an annotation must be letters and digits, got {key!r}')
        data = photo.read_bytes() if isinstance(photo, Path) else photo
        digest = hashlib.sha256(data).hexdigest()
        pngs = {kind: mask_to_png(mask) for kind, mask in masks.items()}
        with self._lock:
            # it grows in a project, whatever the clock does
            latest = max((one.time for one in self._kept.values()), default=0)
            made = Annotation(name, digest, pngs, max(time.time_ns(), latest + 1))
            others = {**self._kept, key: made}
            check_classes(list(self._counts(list(others.values()))))
            kept = self.folder / 'photos' / digest
            if not kept.is_file():
                with atomic(kept) as part:
                    part.write_bytes(data)
            try:
                pixels = read_upload(kept, name, self.limits)
                reasons, shots = list[str](), dict[tuple[str, str], Shot | None]()
                for kind, mask in masks.items():
                    if mask.shape != pixels.shape[:2]:
                        raise ValueError(_of_another_size(name, mask.shape, pixels.shape))
                    shots[key, kind] = self._shot(pixels, mask, name, reasons)
                write_text(self.folder / 'annotations' / f'{key}.json', made.to_json())
            except BaseException:
                self._forget_photo(digest)
                raise
            before = self._kept.get(key)
            self._kept[key] = made
            self._drop_shots(key)
            self._shots.update(shots)
            if before is not None:
                self._forget_photo(before.photo)
            self._begin()
            return reasons

    def remove(self, key: str) -> bool:
        """Forget an annotation; returns whether there was one."""
        with self._lock:
            before = self._kept.get(key)
            if before is None:
                return False
            (self.folder / 'annotations' / f'{key}.json').unlink(missing_ok=True)
            del self._kept[key]
            self._drop_shots(key)
            self._forget_photo(before.photo)
            return True

    @property
    def annotated(self) -> tuple[str, ...]:
        """The keys of all annotations that are kept."""
        with self._lock:
            return tuple(self._kept)

    def _drop_shots(self, key: str) -> None:
        for known in [one for one in self._shots if one[0] == key]:
            del self._shots[known]

    def _forget_photo(self, digest: str) -> None:
        """Remove a photo that no annotation is of."""
        if all(one.photo != digest for one in self._kept.values()):
            with suppress(OSError):
                (self.folder / 'photos' / digest).unlink(missing_ok=True)

    def _shot(
        self, pixels: np.ndarray, mask: np.ndarray, name: str, reasons: list[str]
    ) -> Shot | None:
        try:
            return make_shot((pixels, mask), self.worker.image_size, name, self.worker.resize)
        except ValueError as error:
            reasons.append(f'{error}')
            return None

    # ------------------------------------------------------------------ predictions

    def _chosen(self, classes: Collection[str] | None) -> dict[str, list[tuple[str, str]]]:
        """Class -> its supports as (key, class): the latest ones that can be used. Shots that are
        not there yet, after a start, are made."""
        most = min(self.limits.max_shots, self._inferencer.model.max_shots or self.limits.max_shots)
        chosen: dict[str, list[tuple[str, str]]] = {}
        order = sorted(self._kept, key=lambda key: self._kept[key].time)
        for kind in self._counts(list(self._kept.values())):
            if classes is not None and kind not in classes:
                continue
            for key in reversed(order):
                some = chosen.get(kind, [])
                if len(some) < most and kind in self._kept[key].masks:
                    if (key, kind) not in self._shots:
                        self._shots[key, kind] = self._reread(key, kind)
                    if self._shots[key, kind] is not None:
                        chosen[kind] = [(key, kind), *some]
        return chosen

    def _reread(self, key: str, kind: str) -> Shot | None:
        one, reasons = self._kept[key], list[str]()
        pixels = read_upload(self.folder / 'photos' / one.photo, one.name, self.limits)
        shot = self._shot(pixels, png_to_mask(one.masks[kind]), one.name, reasons)
        for reason in reasons:
            print_log(f'{self.folder.name}: not used, {reason}', 'current', logging.WARNING)
        return shot

    def predict(
        self, image: np.ndarray, name: str, classes: Collection[str] | None = None
    ) -> Predicted:
        """Mark the classes in a photo; waits for its turn at the model.

        Args:
            image: uint8 (H, W, 3) BGR.
            name: what messages call it.
            classes: that are looked for, if they are marked; None: all that are.

        Raises:
            ValueError: None of them is marked yet in a way that can be used.
        """
        return self.worker.run(self._predict, image, name, classes)

    def _predict(self, image: np.ndarray, name: str, classes: Collection[str] | None) -> Predicted:
        self._classes = classes
        version, there = self._encode()
        if not there:
            # likely the photo that is marked next: then it is encoded already
            side, resize = self.worker.image_size, self.worker.resize
            self.worker.begin(partial(self._inferencer.encode, to_model_size(image, side, resize)))
            marked, wanted = listed(self.counts) or 'nothing', listed(sorted(classes or ()))
            raise ValueError(
                'none of the classes'
                + (f' {wanted}' if wanted else '')
                + f' is marked in this project yet (marked: {marked}): mark an object in at least '
                'one image, and submit it'
            )
        return Predicted(self._inferencer.predict([image], [name])[0], version)

    def _encode(self) -> tuple[str, bool]:
        """In the model's thread: make the supports those that count now; their version, and whether
        there is any. Images that were encoded before, also to predict them, come from the cache."""
        with self._lock:
            version, chosen = self.version(), self._chosen(self._classes)
            used = [one for some in chosen.values() for one in some]
            state = tuple((key, kind, self._kept[key].time) for key, kind in used)
            shots = {kind: tuple(self._shots[one] for one in some) for kind, some in chosen.items()}
        if shots and state != self._encoded:
            size, resize = self.worker.image_size, self.worker.resize
            self._inferencer.set_support(SupportSet(shots, size, resize))  # type: ignore[arg-type]
            self._encoded = state
        return version, bool(shots)

    def _begin(self) -> None:
        """Have a new support encoded before somebody asks for a prediction."""

        def encode() -> None:
            self._begun = False
            with suppress(ValueError, OSError):  # who asks for a prediction is told
                self._encode()

        if not self._begun:
            self._begun = True
            self.worker.begin(encode)

    def version(self) -> str:
        """Of all that is kept: method, and a digest that changes with each annotation."""
        with self._lock:
            times = sorted((key, one.time) for key, one in self._kept.items())
        digest = hashlib.sha256(json.dumps(times).encode()).hexdigest()[:12]
        return f'{self.worker.name} {digest}'


def _of_another_size(name: str, mask: tuple[int, ...], photo: tuple[int, ...]) -> str:
    return (
        f'what is marked in {name} is of {mask[1]} x {mask[0]} pixels, the photo has {photo[1]} x '
        f'{photo[0]}; it was changed since: mark it again'
    )


class Projects:
    """All projects of a service.

    Args:
        root: the folder DATA.
        worker, limits: see :class:`Project`.
    """

    def __init__(self, root: Path, worker: ModelWorker, limits: Limits) -> None:
        self.root, self.worker, self.limits = root, worker, limits
        self._made: dict[str, Project] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Project:
        """A project by its key; a new one is empty.

        Raises:
            ValueError: Another key than of letters, digits, '-' and '_', or what is kept of it is
                damaged.
        """
        folder = self.folder(key)
        with self._lock:
            if key not in self._made:
                self._made[key] = Project(folder, self.worker, self.limits)
            return self._made[key]

    def folder(self, key: str) -> Path:
        """Of a project.

        Raises:
            ValueError: Another key than of letters, digits, '-' and '_'.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f'the key of a project must be letters and digits, got {key!r:.120}')
        return self.root / 'projects' / key

    def summary(self) -> dict[str, Any]:
        """Project -> class -> in how many photos it is marked."""
        folders = sorted((self.root / 'projects').glob('*'))
        return {one.name: self.get(one.name).counts for one in folders if one.is_dir()}
