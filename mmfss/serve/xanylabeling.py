"""The door for X-AnyLabeling: the two requests of its remote server.

==========================  ========================================================================
``GET /v1/models``          a model for each folder that is served
``POST /v1/predict``        polygons or rectangles for an image, which comes as base64
==========================  ========================================================================

Supports are what a person has drawn in the folder: shapes without a score in the JSON files beside
the images, and all shapes of images that are ticked as checked. The files are looked at with each
request; nothing is written to the folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from starlette.routing import Route

from mmfss.apis.prediction import Prediction
from mmfss.files import walk
from mmfss.regions import ellipse, joined, labelme_mask, outlines_of
from mmfss.serve.answers import answered
from mmfss.serve.marks import TOLERANCE, Marks, objects_in
from mmfss.serve.projects import Project, Projects
from mmfss.serve.sources import Photo, from_data_uri, inside

_TASKS = dict(polygon='Polygons', rectangle='Rectangles')
_WIDGETS = 'button_run', 'input_conf', 'edit_conf', 'toggle_preserve_existing_annotations'


@dataclass(frozen=True)
class Folder:
    """A folder with images and JSON files, under the name of its model."""

    name: str
    path: Path


@dataclass(frozen=True)
class _Labelled:
    """A JSON file as it was read: its image and the digest of that, and the classes that are drawn
    there. The stamps are of the two files.

    ``late``: it could not be used, for a reason that may go away while the file stays as it is: an
    image that is not there yet.
    """

    stamp: tuple[int, int]
    image: str
    drawn: frozenset[str]
    key: str | None
    photo: Path | None = None
    photo_stamp: tuple[int, int] = (0, 0)
    late: bool = False

    def replaced(self) -> bool:
        """Whether there is another image under the name of the one that was read."""
        return self.photo is not None and _stamp_of(self.photo) != self.photo_stamp


_NOTHING = _Labelled((0, 0), '', frozenset(), None)


class _NotTheirs(ValueError):
    """A file of another program, or one that is just being written."""


def refused(text: str) -> dict[str, Any]:
    """An error as X-AnyLabeling's servers have it."""
    return dict(success=False, error=dict(code='REFUSED', message=text))


class XAnyLabeling:
    """The door.

    Args:
        projects: of the service; a folder is the project ``xanylabeling-<digest of its path>``.
        folders: that are served.
    """

    def __init__(self, projects: Projects, folders: Sequence[Folder]) -> None:
        self.projects = projects
        self.folders = {folder.name: folder for folder in folders}
        self._known: dict[str, dict[Path, _Labelled]] = {name: {} for name in self.folders}
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """Of the two requests."""
        models, predict = (answered(work, refused) for work in (self.models, self.predict))
        return [Route('/v1/models', models), Route('/v1/predict', predict, methods=['POST'])]

    def models(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """What the program lets one choose from."""
        widgets: dict[str, dict] = {name: {} for name in _WIDGETS}
        tasks = [dict(id=i, name=n, active_widgets=widgets) for i, n in _TASKS.items()]
        found = {}
        for name, folder in self.folders.items():
            counts = self._synchronised(folder).counts
            found[name] = dict(
                display_name=f'mmfss {self.projects.worker.name}: {name}',
                classes=list(counts),
                widgets=[dict(name=one) for one in _WIDGETS],
                available_tasks=tasks,
                batch_processing_mode='default',
            )
        return dict(success=True, data=found)

    def predict(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Shapes for an image."""
        name, params = content.get('model'), content.get('params') or {}
        if not isinstance(name, str) or name not in self.folders:
            known = ', '.join(self.folders) or 'none (start the service with --folder NAME=DIR)'
            raise ValueError(f'there is no model {name!r:.80}; there are {known}')
        if not isinstance(params, Mapping):
            raise ValueError(f'params must be a JSON object, got {params!r:.80}')
        least, only = params.get('conf_threshold') or 0.0, params.get('filter_classes') or None
        names = only is None or (isinstance(only, list) and all(isinstance(o, str) for o in only))
        if not isinstance(least, (int, float)) or not names:
            raise ValueError('conf_threshold must be a number, and filter_classes a list of names')
        photo = from_data_uri(content.get('image'), self.projects.limits)
        pixels = photo.pixels(self.projects.limits)
        project = self._synchronised(self.folders[name])
        assert isinstance(photo.data, bytes)
        digest = hashlib.sha256(photo.data).hexdigest()
        drawn = {
            kind for one in self._known[name].values() if one.image == digest for kind in one.drawn
        }
        asked = [kind for kind in project.counts if only is None or kind in only]
        wanted = [kind for kind in asked if kind not in drawn]
        answer: dict[str, Any] = dict(shapes=[], description='')
        if drawn:
            answer['replace'] = False  # what a person has drawn there stays
        if wanted or not drawn:
            found = project.predict(pixels, photo.name, wanted or only).prediction
            rectangles = params.get('current_task') == 'rectangle'
            answer['shapes'] = shapes_of(found, rectangles, least)
        return dict(success=True, data=answer)

    # ------------------------------------------------------------------ the folder

    def _synchronised(self, folder: Folder) -> Project:
        """The project of a folder, with what its files say now."""
        digest = hashlib.sha256(str(folder.path.resolve()).encode()).hexdigest()[:16]
        project = self.projects.get(f'xanylabeling-{digest}')
        with self._lock:
            before, now = self._known[folder.name], {}
            for path, is_folder in walk(folder.path):
                if is_folder or path.suffix.lower() != '.json':
                    continue
                known = before.get(path, _NOTHING)
                new = True
                try:
                    stamp = _stamp_of(path)
                    new = known.stamp != stamp or known.replaced()
                    if new or known.late:
                        known = replace(known, stamp=stamp)  # if it cannot be read: as before
                        known = self._read(folder, project, path, stamp)
                except (ValueError, OSError) as error:
                    known = replace(known, late=not isinstance(error, _NotTheirs))
                    if new:
                        print_log(f'{path} is not used: {error}', 'current', logging.WARNING)
                now[path] = known
            keys = {one.key for one in now.values()}
            for key in project.annotated:
                if key not in keys:
                    project.remove(key)
            self._known[folder.name] = now
        return project

    def _read(
        self, folder: Folder, project: Project, path: Path, stamp: tuple[int, int]
    ) -> _Labelled:
        data = path.read_bytes()
        try:
            content = json.loads(data)
            shapes = [
                shape
                for shape in content['shapes']
                if content.get('checked') is True or shape.get('score') is None
            ]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _NotTheirs(
                f'no file of X-AnyLabeling, or cut off ({type(error).__name__}: {error})'
            ) from error
        named = f'{content.get("imagePath") or ""}'.replace('\\', '/').rpartition('/')[2]
        beside = path.parent.relative_to(folder.path) / named
        photo = Photo(inside(folder.path, beside.as_posix()), named)
        assert isinstance(photo.data, Path)
        of_photo = photo.data, _stamp_of(photo.data)
        digest = hashlib.sha256(photo.data.read_bytes()).hexdigest()
        if not shapes:
            return _Labelled(stamp, digest, frozenset(), None, *of_photo)
        place = hashlib.sha256(f'{path.relative_to(folder.path)}'.encode()).hexdigest()[:24]
        state = hashlib.sha256(data + digest.encode()).hexdigest()[:24]
        key, drawn = f'{place}-{state}', frozenset(filter(None, map(_label_of, shapes)))
        if key not in project.annotated:
            pixels = photo.pixels(self.projects.limits)
            marks = marks_of(shapes, *pixels.shape[:2])
            masks = marks.masks(partial(self.projects.worker.propose, pixels))
            if masks:
                marks.notes += project.put(key, photo.data, named, masks)
            for note in marks.notes:
                print_log(f'{path}: {note}', 'current', logging.WARNING)
        return _Labelled(stamp, digest, drawn, key, *of_photo)


def _stamp_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def marks_of(shapes: Sequence[Mapping[str, Any]], height: int, width: int) -> Marks:
    """What shapes mark in a photo."""
    marks = Marks(height, width)
    for shape in shapes:
        kind, label = shape.get('shape_type') or 'polygon', _label_of(shape)
        if not label:
            marks.notes.append(f'a {kind} has no label: choose one for it')
            continue
        try:
            points = np.array([p[:2] for p in shape['points']], np.float64).reshape(-1, 2)
            if kind == 'polygon':
                marks.outline(label, points)
            elif kind == 'circle':
                radius = math.dist(*points[:2].tolist())
                marks.outline(label, ellipse(tuple(points[0]), (radius, radius)))
            elif kind == 'mask':
                marks.draw(label, labelme_mask(shape, height, width))
            elif kind in ('rectangle', 'rotation'):
                marks.box(label, points)
            elif kind == 'point':
                marks.point(label, points[0])
            else:
                raise ValueError('it has no area')
        except (ValueError, KeyError, TypeError, IndexError, ArithmeticError) as error:
            marks.notes.append(f'a {kind} of {label} is left out: {error}')
    return marks


def _label_of(shape: Mapping[str, Any]) -> str:
    label = shape.get('label')
    return label.strip() if isinstance(label, str) else ''


def shapes_of(
    prediction: Prediction, rectangles: bool = False, least: float = 0.0
) -> list[dict[str, Any]]:
    """A prediction as shapes, one for each object, in pixels.

    Args:
        prediction: of the image.
        rectangles: in the place of polygons.
        least: score of an object; those below are left out.
    """
    shapes: list[dict[str, Any]] = []
    for one in objects_in(prediction):
        if one.score < least:
            continue
        about = dict(label=one.name, score=one.score)
        if rectangles:
            x, y, wide, high = one.box
            points = [[x, y], [x + wide, y], [x + wide, y + high], [x, y + high]]
            shapes.append(dict(**about, shape_type='rectangle', points=points))
            continue
        for outline in outlines_of(one.mask, TOLERANCE):
            ring = joined(outline).tolist()
            # the program's own polygons end where they begin
            shapes.append(dict(**about, shape_type='polygon', points=[*ring, ring[0]]))
    return shapes
