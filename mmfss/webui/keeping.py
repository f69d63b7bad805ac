"""A session on disk: what was done so far is written after each step, whole or not at all, and
taken up again after a reload of the page or another start.

``session.json`` in the visitor's folder names all other files there: photos and their previews,
supports (``.npz``), logits (``.npy``), labels that were looked through (``.png``). A file never
changes once it is named, so that the record of a killed page is of whole files; what it does not
name is removed. Paths in it are names of files of the folder, and nothing in it is code.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary
from zipfile import BadZipFile

import numpy as np

from mmfss.apis.prediction import Prediction
from mmfss.apis.support import Shot
from mmfss.files import atomic, write_text
from mmfss.webui.folders import SESSION, VisitorFolder
from mmfss.webui.limits import Limits
from mmfss.webui.queries import Kept, Query
from mmfss.webui.supports import MarkedShot, Photo, Supports
from mmfss.webui.uploads import read_upload
from mmfss.webui.worker import ModelWorker

if TYPE_CHECKING:
    from mmfss.webui.session import Session

T = TypeVar('T')
VERSION = 1
_LISTS = (
    'model',
    'threshold',
    'current',
    'opened',
    'current_results',
    'photos',
    'shots',
    'queries',
)
BROKEN = (
    OSError, ValueError, KeyError, TypeError, IndexError, EOFError, AttributeError, BadZipFile,
    zlib.error,
)  # fmt: skip
"""What reading a damaged record or file of it raises."""


class Keeper:
    """Writes what a session has into its folder, if that stays, and removes the files that are no
    longer of it.

    Args:
        folder: of the session.
    """

    def __init__(self, folder: VisitorFolder) -> None:
        self._folder, self._last = folder, ''
        self._files: WeakKeyDictionary[MarkedShot, Path] = WeakKeyDictionary()

    def save(self, session: Session) -> None:
        """Keep a session.

        Raises:
            OSError: It cannot be written.
        """
        if not self._folder.path.exists() and not (session.photos or session.queries):
            return  # nothing was done yet
        if self._folder.stays:
            for shot in session.supports.shots:
                if shot not in self._files:
                    self._files[shot] = self._folder.new('.npz')
                    _write_shot(self._files[shot], shot)
            text = json.dumps(self._record(session), ensure_ascii=False)
            if text != self._last:
                write_text(self._folder.path / SESSION, text)
                self._last = text
        named = {photo.path.name for photo in session.photos}
        named |= {s.photo.path.name for s in session.supports.shots if s.photo is not None}
        named |= {self._files[s].name for s in session.supports.shots if s in self._files}
        named |= {name for query in session.queries for name in query.files}
        self._folder.remove_others(named)

    def remember(self, shot: MarkedShot, file: Path) -> None:
        """A support whose file is there already."""
        self._files[shot] = file

    def _record(self, session: Session) -> dict[str, Any]:
        return dict(
            version=VERSION,
            model=_model(session.worker),
            threshold=session.threshold,
            current=session.current,
            opened=session.opened,
            current_results=session.current_results,
            photos=[_photo(photo) for photo in session.photos],
            shots=[
                dict(
                    file=self._files[shot].name,
                    class_name=shot.class_name,
                    negative=shot.negative,
                    photo=None if shot.photo is None else _photo(shot.photo),
                )
                for shot in session.supports.shots
            ],
            queries=[_query(query) for query in session.queries],
        )


def read_record(folder: Path) -> dict[str, Any]:
    """What :class:`Keeper` wrote into a folder.

    Raises:
        FileNotFoundError: Nothing.
        ValueError: It cannot be read.
    """
    try:
        known = json.loads((folder / SESSION).read_text(encoding='utf-8'))
        if known['version'] != VERSION or not set(_LISTS) <= set(known):
            raise ValueError(f'version {known["version"]} of sessions is not known')
        return dict(known)
    except FileNotFoundError:
        raise
    except BROKEN as error:
        raise ValueError(f'what was done before cannot be read ({error})') from error


def take_up(session: Session, known: dict[str, Any]) -> None:
    """Take up a record of :func:`read_record` in a new session of the same folder. What cannot be
    is left out, and said in ``session.notes``."""
    folder, limits, worker = session.folder.path, session.limits, session.worker
    reader = _Reader(folder, limits, session.notes)
    same = known['model'] == _model(worker)
    size = worker.image_size, worker.resize
    resized = (known['model']['image_size'], known['model']['resize']) != size

    def each(key: str, read: Callable[[dict[str, Any]], T]) -> tuple[T, ...]:
        found = []
        for item in known[key]:
            with reader.noting(item.get('name') or f'a marked {item.get("class_name")}'):
                found.append(read(item))
        return tuple(found)

    def shot(item: dict[str, Any]) -> MarkedShot:
        file = _inside(folder, item['file'])
        found = _read_shot(file, item, reader)
        if resized:
            return found.remade(*size, limits)
        session.keeper.remember(found, file)
        return found

    if same:
        session.threshold = float(known['threshold'])
    session.photos = each('photos', reader.photo)
    session.supports = Supports(each('shots', shot))
    session.queries = each('queries', lambda item: reader.query(item, same))
    if not same or len(session.supports) < len(known['shots']):
        session.queries = tuple(query.without_result() for query in session.queries)
    elif known['current_results']:
        session.labelled_with = session.supports
    if session.photos:
        session.current = min(int(known['current'] or 0), len(session.photos) - 1)
    names = [query.name for query in session.queries]
    session.opened = known['opened'] if known['opened'] in names else None


class _Reader:
    """Reads entries of the record, and notes what cannot be read; photos are shared by those who
    name the same file."""

    def __init__(self, folder: Path, limits: Limits, notes: list[str]) -> None:
        self.folder, self.limits, self.notes = folder, limits, notes
        self.photos: dict[Path, Photo] = {}

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """What goes wrong within is left out, and noted under a name."""
        try:
            yield
        except BROKEN as error:
            reason = str(error).replace(f'{self.folder}{os.sep}', '')
            self.notes.append(f'{name} could not be taken up again: {reason}')

    def photo(self, item: dict[str, Any]) -> Photo:
        path = _inside(self.folder, item['file'])
        if path not in self.photos:
            self.photos[path] = Photo.of(
                item['name'], path, read_upload(path, item['name'], self.limits)
            )
        return self.photos[path]

    def query(self, item: dict[str, Any], same_model: bool) -> Query:
        name, (height, width) = str(item['name']), item['shape']
        query = Query(name, _inside(self.folder, item['file']), (height, width))
        size = query.preview().shape[:2]
        if item['kept'] is not None:
            with self.noting(f'what was said of {name}'):
                path = _inside(self.folder, item['kept']['file'])
                kept = Kept.read(item['kept']['classes'], path, (size[0], size[1]))
                query = query.with_kept(kept, item['verdict'])
        result = item['result']
        if result is None or not same_model:
            return query
        with self.noting(f'the result of {name}'):
            scores, thresholds = (
                np.array(result[key], np.float32) for key in ('scores', 'thresholds')
            )
            nothing, classes = np.zeros((0, 0, 0), np.float32), tuple(result['classes'])
            made = Prediction(classes, scores, thresholds, np.zeros(size, np.uint8), name, nothing)
            query = query.with_logits(made, _inside(self.folder, result['file']))
            if query.kept is None:
                query = query.with_verdict(item['verdict'])
        return query


def _inside(folder: Path, name: str) -> Path:
    if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
        raise ValueError('its file is gone')
    return folder / name


def _model(worker: ModelWorker) -> dict[str, Any]:
    return dict(asdict(worker.choice), image_size=worker.image_size, resize=worker.resize)


def _photo(photo: Photo) -> dict[str, Any]:
    return dict(name=photo.name, file=photo.path.name)


def _query(query: Query) -> dict[str, Any]:
    made, kept, result = query.prediction, query.kept, None
    if made is not None and query.logits is not None:
        result = dict(
            file=query.logits.name,
            classes=made.classes,
            scores=made.scores.tolist(),
            thresholds=made.thresholds.tolist(),
        )
    return dict(
        name=query.name,
        file=query.path.name,
        shape=query.shape,
        verdict=query.verdict,
        kept=None if kept is None else dict(file=kept.path.name, classes=kept.classes),
        result=result,
    )


def _write_shot(path: Path, marked: MarkedShot) -> None:
    arrays: dict[str, Any] = dict(
        image=marked.shot.image, mask=marked.shot.mask, shape=np.array(marked.shot.shape)
    )
    if marked.photo is None or marked.mask is None:
        arrays |= dict(thumb=marked.thumb, thumb_mask=marked.thumb_mask)
    else:
        arrays |= dict(
            photo_mask=np.frombuffer(marked.mask, np.uint8), thumb_mask=marked.thumb_mask
        )
    source = np.frombuffer(marked.shot.source.encode('utf-8', 'replace'), np.uint8)
    with atomic(path) as part, open(part, 'wb') as file:
        np.savez_compressed(file, source=source, **arrays)


def _read_shot(path: Path, item: dict[str, Any], reader: _Reader) -> MarkedShot:
    with np.load(path, allow_pickle=False) as found:
        height, width = found['shape'].tolist()
        source = found['source'].tobytes().decode('utf-8')
        shot = Shot(found['image'], found['mask'], (height, width), source)
        photo = None if item['photo'] is None else reader.photo(item['photo'])
        return MarkedShot(
            item['class_name'],
            shot,
            found['thumb'] if photo is None else photo.thumb,
            found['thumb_mask'],
            photo,
            bool(item['negative']),
            None if photo is None else found['photo_mask'].tobytes(),
        )
