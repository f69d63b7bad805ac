"""The door for Label Studio: its ML backend protocol.

========================  ==========================================================================
``GET /health``           whether the service is there
``POST /setup``           a project is connected: its labelling config and a token of its API
``POST /predict``         predictions for tasks; with a context, masks for boxes and points
``POST /webhook``         annotations that came, changed and went become and leave supports;
                          "Start training" fetches all of a project
========================  ==========================================================================

Each project of Label Studio is one of the service, ``label-studio-<id>-<when it was made>``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from mmengine.logging import print_log
from starlette.routing import Route

from mmfss.files import atomic
from mmfss.serve.answers import answered
from mmfss.serve.label_studio_form import LabelConfig, drawn_regions, marks_of, regions_of
from mmfss.serve.projects import Project, Projects
from mmfss.serve.sources import LabelStudioPhotos, Photo

SETUP = 'label_studio.json'
MAX_EXPORT_BYTES = 2**30
_KEPT = 'ANNOTATION_CREATED', 'ANNOTATIONS_CREATED', 'ANNOTATION_UPDATED'
_GONE = dict(ANNOTATIONS_DELETED=('annotations', 'a', 1), TASKS_DELETED=('tasks', 't', 0))
"""Action -> entry with what is gone; letter and place of its part in our keys, t<task>-a<id>."""


class LabelStudio:
    """The door.

    Args:
        projects: of the service.
        photos: where those of tasks are.
    """

    def __init__(self, projects: Projects, photos: LabelStudioPhotos) -> None:
        self.projects, self.photos = projects, photos

    def routes(self) -> list[Route]:
        """Of the protocol."""
        doors = dict(setup=self.setup, predict=self.predict, webhook=self.webhook)
        return [Route(f'/{n}', answered(work), methods=['POST']) for n, work in doors.items()]

    # ------------------------------------------------------------------ what is asked

    def setup(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """A project is connected or looked at."""
        key = _key_of(content.get('project'))
        LabelConfig.parse(content.get('schema'))
        host, token = content.get('hostname'), content.get('access_token')
        if host and urlsplit(str(host)).netloc != urlsplit(self.photos.url).netloc:
            print_log(
                f'Label Studio calls itself {host!r:.200}; uploads are fetched from '
                f'{self.photos.url} (--label-studio)',
                'current',
                logging.WARNING,
            )
        if isinstance(token, str) and token != self._token(key):
            with atomic(self.projects.folder(key) / SETUP, mode=0o600) as part:
                part.write_text(json.dumps(dict(access_token=token)), encoding='utf-8')
        return dict(model_version=self.projects.get(key).version())

    def predict(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Predictions for tasks, one each; a task that has none because of an error has that."""
        key = _key_of(content.get('project'))
        config = LabelConfig.parse(content.get('label_config'))
        tasks, params = content.get('tasks'), content.get('params') or {}
        if not isinstance(tasks, list) or not tasks or not isinstance(params, Mapping):
            raise ValueError('a request for predictions must have a list of tasks')
        context = params.get('context')
        results, errors = list[dict[str, Any]](), list[Exception]()
        for task in tasks:
            try:
                results.append(self._prediction(key, config, task, context))
            except (ValueError, OSError) as error:
                errors.append(error)
                results.append(dict(error=f'{error}'))
                print_log(f'{key}, task {_id(task)}: {error}', 'current', logging.WARNING)
        if len(errors) == len(tasks):
            raise errors[0]
        return dict(results=results)

    def webhook(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Something happened in a project."""
        action, about = content.get('action'), content.get('project')
        if action not in _KEPT and action not in ('START_TRAINING', *_GONE):
            return dict(ignored=f'{action}')
        key = _key_of(about)
        project = self.projects.get(key)
        if action in _GONE:
            entry, letter, part = _GONE[action]
            gone = {f'{letter}{_id(one)}' for one in _listed(content.get(entry))}
            return _removed(project, lambda known: known.split('-')[part] in gone)
        config = LabelConfig.parse(_entry(about, 'label_config'))
        if action == 'START_TRAINING':
            return self._fetched(key, project, config, _entry(about, 'id'))
        annotations, tasks = _listed(content.get('annotation')), _listed(content.get('task'))
        pairs = [*zip(tasks, annotations)]
        whole = all(isinstance(one, Mapping) for pair in pairs for one in pair)
        if len(annotations) != len(tasks) or not annotations or not whole:
            raise ValueError('a webhook must bring an annotation and its task')
        if any('without-id' in (_id(task), _id(annotation)) for task, annotation in pairs):
            raise ValueError('an annotation and its task must have a number each, their id')
        return self._kept(key, project, config, pairs)

    # ------------------------------------------------------------------ supports

    def _kept(
        self,
        key: str,
        project: Project,
        config: LabelConfig,
        pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
    ) -> dict[str, Any]:
        """Make supports of annotations; what goes wrong with one does not keep the others."""
        kept, notes, errors = list[str](), list[str](), list[Exception]()
        for task, annotation in pairs:
            name = f't{_id(task)}-a{_id(annotation)}'
            try:
                if self._keep(key, project, config, task, annotation, name, notes):
                    kept.append(name)
            except (ValueError, OSError) as error:
                errors.append(error)
                notes.append(f'annotation {_id(annotation)} is no support: {error}')
        for note in notes:
            print_log(f'{key}: {note}', 'current', logging.WARNING)
        if errors and not kept:
            raise errors[0]
        return dict(kept=kept, notes=notes, supports=project.counts)

    def _keep(
        self,
        key: str,
        project: Project,
        config: LabelConfig,
        task: Mapping[str, Any],
        annotation: Mapping[str, Any],
        name: str,
        notes: list[str],
    ) -> bool:
        regions = annotation.get('result')
        if annotation.get('was_cancelled') or regions == []:
            project.remove(name)  # skipped, or all is wiped out
            return False
        if not isinstance(regions, list):
            raise ValueError('an annotation must have a list of results')
        image, photo = self._photo(key, config, task)
        pixels = photo.pixels(self.projects.limits)
        height, width = pixels.shape[:2]
        marks = marks_of(regions, image, width, height)
        masks, found = marks.masks(partial(self.projects.worker.propose, pixels)), marks.notes
        unknown = [kind for kind in masks if kind not in config.controls]
        for kind in unknown:
            found.append(f'label {kind!r} is not in the labelling config: left out')
            del masks[kind]
        notes += [f'annotation {_id(annotation)} of {photo.name}: {one}' for one in found]
        if not masks:
            if found:
                raise ValueError('; '.join(found))
            project.remove(name)
            return False
        notes += project.put(name, photo.data, photo.name, masks)
        return True

    def _fetched(
        self, key: str, project: Project, config: LabelConfig, number: Any
    ) -> dict[str, Any]:
        """Take all annotations of a project from the API, in the place of those that are kept."""
        path = f'/api/projects/{int(number)}/export?exportType=JSON'
        tasks = json.loads(self.photos.own(path, self._token(key), MAX_EXPORT_BYTES))
        pairs = [(task, one) for task in tasks for one in task.get('annotations') or ()]
        there = {f't{_id(task)}-a{_id(one)}' for task, one in pairs}
        _removed(project, lambda known: known not in there)
        return self._kept(key, project, config, pairs)

    # ------------------------------------------------------------------ predictions

    def _prediction(self, key: str, config: LabelConfig, task: Any, context: Any) -> dict[str, Any]:
        _, photo = self._photo(key, config, task)
        pixels = photo.pixels(self.projects.limits)
        if context is not None:
            return self._interactive(config, context, pixels)
        classes = [name for name in config.controls if config.target(name) is not None]
        found = self.projects.get(key).predict(pixels, photo.name, classes)
        return dict(
            result=regions_of(found.prediction, config),
            score=round(found.prediction.certainty, 4),
            model_version=found.version,
        )

    def _interactive(self, config: LabelConfig, context: Any, pixels: np.ndarray) -> dict[str, Any]:
        """The mask of what somebody is just marking."""
        regions, image = _listed(_entry(context, 'result')), next(iter(config.images))
        height, width = pixels.shape[:2]
        marks = marks_of(regions, image, width, height)
        masks, notes = marks.masks(partial(self.projects.worker.propose, pixels)), marks.notes
        made: list[dict[str, Any]] = []
        for name, mask in masks.items():
            control = config.target(name)
            if control is None:
                notes.append(f'{name} has no brush, polygon or rectangle in the labelling config')
            else:
                made += drawn_regions(mask, name, control)
        if notes and not made:
            raise ValueError('; '.join(notes))
        return dict(result=made, score=1.0, model_version=self.projects.worker.name)

    # ------------------------------------------------------------------ photos

    def _photo(self, key: str, config: LabelConfig, task: Any) -> tuple[str, Photo]:
        """Name of the image tag, and the photo of a task."""
        data = _entry(task, 'data')
        for image, entry in config.images.items():
            if isinstance(data, Mapping) and entry in data:
                return image, self.photos.get(data[entry], self._token(key))
        raise ValueError(
            f'task {_id(task)} has none of the entries {", ".join(config.images.values())} that '
            'the labelling config shows'
        )

    def _token(self, key: str) -> str | None:
        """Of the API, as it came with the project."""
        try:
            text = (self.projects.folder(key) / SETUP).read_text(encoding='utf-8')
            return str(json.loads(text)['access_token'])
        except (OSError, ValueError, KeyError):
            return None


def _removed(project: Project, gone: Callable[[str], bool]) -> dict[str, Any]:
    removed = [known for known in project.annotated if gone(known) and project.remove(known)]
    return dict(removed=removed, supports=project.counts)


def _key_of(project: Any) -> str:
    """Of a project: ``5.1764372400`` in requests, id and time of creation in webhooks."""
    number: Any = None
    made: Any = None
    if isinstance(project, str):
        number, _, made = project.partition('.')
    elif isinstance(project, Mapping):
        number = project.get('id')
        text = f'{project.get("created_at")}'
        try:
            when = datetime.fromisoformat(text.replace('Z', '+00:00'))
        except ValueError as error:
            raise ValueError(f'created_at of the project is no time, but {text!r:.80}') from error
        when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
        made = int(when.timestamp())
    if not f'{number}'.isdecimal() or not f'{made}'.isdecimal():
        raise ValueError(f'the project must be ID.TIME, got {project!r:.80}')
    return f'label-studio-{number}-{made}'


def _id(one: Any) -> str:
    number = one.get('id') if isinstance(one, Mapping) else None
    return f'{number}' if isinstance(number, int) else 'without-id'


def _entry(some: Any, name: str) -> Any:
    return some.get(name) if isinstance(some, Mapping) else None


def _listed(some: Any) -> Sequence[Any]:
    if isinstance(some, list):
        return some
    return [] if some is None else [some]
