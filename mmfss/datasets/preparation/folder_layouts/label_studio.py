"""Label Studio: tasks with regions, as exported (JSON, JSON-MIN), or predictions to import.

A region is of a brush, polygon, rectangle or ellipse, in percent of the photo as a browser shows
it. It has its labels in itself or, with a separate ``Labels`` tag, in a result of the same id.
Classes are in the order of a labelling configuration (XML) beside the file, if there is one.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfss.datasets.account import Reason
from mmfss.datasets.preparation.folder_layouts.shapes import (
    NO_AREA,
    UNKNOWN_SHAPE,
    Gathered,
    numbers,
)
from mmfss.datasets.preparation.folder_layouts.tree import IMAGES
from mmfss.datasets.preparation.own_coco import OwnCoco
from mmfss.regions import brush_mask, ellipse, rectangle
from mmfss.words import listed

UNANSWERED = Reason(
    'task without an annotation (nobody has done it, or it was skipped): left out', 'annotate it'
)
OTHERS = Reason(
    'task of several annotations: the ground truth counts, else the last one',
    'mark the right one as ground truth',
    lost=False,
)
PREDICTED = Reason(
    'regions are predictions that nobody has confirmed: read as they are',
    'look at them in Label Studio, and export what is submitted',
    lost=False,
)
TURNED = Reason(
    'region of a photo that was turned by hand in Label Studio: left out',
    'draw it with the photo not turned',
)
_NO_AREA = {'keypoint', 'keypointlabels', 'vector', 'vectorlabels'}
_OF_FILE = {'id', 'annotator', 'annotation_id', 'created_at', 'updated_at', 'lead_time'}
Results = list[dict[str, Any]]


def read_label_studio(files: Sequence[Path]) -> list[OwnCoco]:
    """What the regions of all files say.

    Raises:
        ValueError: A file is cut off or of another form, a task has no photo, or several.
    """
    return [_read(file) for file in files]


def _read(file: Path) -> OwnCoco:
    gathered = Gathered(file)
    gathered.order(_order(file.parent))
    try:
        content = json.loads(file.read_bytes())
        tasks = content if isinstance(content, list) else [content]
        whole = any('annotations' in task or 'predictions' in task for task in tasks)
        rows = [*(_tasks if whole else _rows)(tasks)]
        answered = any(one for _, one, _ in rows)
        for name, annotations, predictions in rows:
            if not annotations and (answered or not predictions):
                gathered.account.add(UNANSWERED, file=name)
                continue
            if len(annotations) > 1:
                gathered.account.add(OTHERS, file=name)
            if not annotations:
                gathered.account.add(PREDICTED, file=name)
            _photo(gathered, name, (annotations or predictions)[-1])
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f'{file} is cut off or no file of Label Studio ({error!r}); export it again as JSON'
        ) from error
    except ValueError as error:
        raise ValueError(f'{file}: {error}') from error
    return gathered.done()


def _order(folder: Path) -> list[str]:
    """The labels of a labelling configuration beside the file, in its order."""
    for file in sorted(folder.glob('*.xml')):
        try:
            root = ElementTree.parse(file).getroot()
        except ElementTree.ParseError:
            continue
        if root.tag == 'View':
            return [one.get('value', '') for one in root.iter('Label')]
    return []


def _tasks(tasks: Sequence[dict]) -> Iterator[tuple[str, list[Results], list[Results]]]:
    """Of JSON: the name of the photo, the results of its annotations, those of its predictions."""
    for number, task in enumerate(tasks, 1):
        done = [
            one for one in task.get('annotations') or [] if not one.get('was_cancelled')
        ]  # those of several people; the one that counts is the last
        done.sort(key=lambda one: (bool(one.get('ground_truth')), str(one.get('updated_at') or '')))
        predicted = [
            one['result'] for one in task.get('predictions') or [] if isinstance(one, dict)
        ]
        yield (
            _image(task['data'], f'task {task.get("id", f"number {number}")}'),
            [one['result'] for one in done],
            predicted,
        )


def _rows(rows: Sequence[dict]) -> Iterator[tuple[str, list[Results], list[Results]]]:
    """Of JSON-MIN, where each annotation is a row: data and control tags side by side."""
    found: dict[str, list[tuple[str, Results]]] = defaultdict(list)
    for number, row in enumerate(rows, 1):
        own = {key: value for key, value in row.items() if key not in _OF_FILE}
        controls = {
            key: value
            for key, value in own.items()
            if isinstance(value, list) and all(isinstance(one, dict) for one in value)
        }
        data = {key: value for key, value in own.items() if key not in controls}
        results: Results = []
        for value in controls.values():
            for one in value:
                sides = {key: one[key] for key in _SIDES if key in one}
                results.append(dict(id=one.get('id'), type='', value=one, **sides))
        name = _image(data, f'row {row.get("id", number)}')
        found[name].append((str(row.get('updated_at') or ''), results))
    for name, some in found.items():
        yield name, [results for _, results in sorted(some, key=lambda one: one[0])], []


_SIDES = ('original_width', 'original_height', 'image_rotation')


def _image(data: Mapping[str, Any], what: str) -> str:
    """The one entry that names a photo: 'image', or one with the ending of a photo."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    if 'image' in texts:
        return texts['image']
    named = [v for v in texts.values() if v.split('?d=')[-1].split('?')[0].lower().endswith(IMAGES)]
    if len(named) != 1:
        raise ValueError(
            f'{what} of Label Studio has {len(named) or "no"} photos in its data '
            f'({listed([*texts], 4)}); a task is of one, called "image"'
        )
    return named[0]


def _photo(gathered: Gathered, name: str, results: Results) -> None:
    sized = [one for one in results if one.get('original_width') and one.get('original_height')]
    sides = {(int(one['original_height']), int(one['original_width'])) for one in sized}
    if len(sides) > 1:
        raise ValueError(f'the regions of {name} are of several sizes of it')
    size = sides.pop() if sides else (0, 0)
    image = gathered.image(name, *size)
    # a Labels tag and a tag without labels of its own make two results of one region
    by_region: dict[Any, Results] = defaultdict(list)
    for number, one in enumerate(results):
        if one.get('type') != 'relation':
            by_region[one.get('id') or f'number {number}'].append(one)
    for number, parts in enumerate(by_region.values(), 1):
        value: dict[str, Any] = {}
        for part in parts:
            value.update(part.get('value') or {})
        if not any(part.get('original_width') for part in parts):
            continue  # of the whole photo: choices, texts, ratings
        labels = [
            str(label)
            for key, some in value.items()
            if key.endswith('labels') and isinstance(some, list)
            for label in some
        ]
        turned = any(part.get('image_rotation') for part in parts)
        for label in labels or ['']:
            _add(gathered, image, size, value, label, turned, f'region {number} of {name}')


def _add(
    gathered: Gathered,
    image: int,
    size: tuple[int, int],
    value: Mapping[str, Any],
    label: str,
    turned: bool,
    what: str,
) -> None:
    height, width = size
    if turned:
        return gathered.leave_out(image, label, what, TURNED)
    if value.get('format') == 'rle' or 'rle' in value:
        try:
            return gathered.add(image, label, what, brush_mask(value['rle'], *size))
        except ValueError as error:
            raise ValueError(f'{what}: {error}') from error

    def of(*keys: str) -> list[float]:
        """In pixels."""
        found = numbers([value[key] for key in keys], what)
        along = [height if key in ('y', 'height', 'radiusY') else width for key in keys]
        return [number * side / 100 for number, side in zip(found, along)]

    degrees = numbers([value.get('rotation') or 0], what)[0]
    if 'points' in value and not {*value} & _NO_AREA:
        points = [numbers(point[:2], what) for point in value['points']]
        if len(points) < 3:
            return gathered.leave_out(image, label, what, NO_AREA)
        outline = [v for x, y in points for v in (x * width / 100, y * height / 100)]
        return gathered.add(image, label, what, outline)
    if {'x', 'y', 'radiusX', 'radiusY'} <= {*value}:
        x, y, rx, ry = of('x', 'y', 'radiusX', 'radiusY')
        return gathered.add(image, label, what, ellipse((x, y), (rx, ry), degrees))
    if {'x', 'y', 'width', 'height'} <= {*value}:
        x, y, w, h = of('x', 'y', 'width', 'height')
        outline = rectangle((x, y), (x + w, y + h), degrees, about=(x, y))
        return gathered.add(image, label, what, outline, framed=True)
    flat = bool({*value} & _NO_AREA) or {'x', 'y'} <= {*value}
    return gathered.leave_out(image, label, what, NO_AREA if flat else UNKNOWN_SHAPE)
