"""A COCO file of a user's own folder, as annotation tools and home-made converters write it.

Benchmarks come in one form, which :func:`.instances.read_instances` insists on. Own files have
habits: ids that are missing or text, sizes that are missing, boxes alone, ``iscrowd: 1`` for any
object that was drawn as a mask. What can be read in one way only is read so; what cannot is left
out, or counts as unknown, and is in the account; what may be read in several ways is refused.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from mmfss.datasets.account import Account, Reason
from mmfss.words import listed, repeated

CROWDS = ('object', 'ignored')
"""What annotations of ``iscrowd: 1`` are: objects as any, or pixels that count as unknown."""
BOX = Reason(
    'box without an outline: its pixels are unknown (255)',
    'draw the outline, or let a method make it: a support folder of mmfss label takes boxes as '
    'prompts',
)
NOTHING = Reason('neither outline nor box: left out', 'draw the object, or delete the annotation')
PART = Reason('part of fewer than three points: left out', 'draw it again, or delete the part')
FLAT = Reason('outline as one flat list of numbers: read as one polygon', lost=False)
CROWD_OBJECT = Reason(
    'iscrowd 1: read as an object, as CVAT, datumaro and supervision write masks',
    '--crowd ignored, if these are crowds',
    lost=False,
)
CROWD_IGNORED = Reason(
    'iscrowd 1: its pixels are unknown (255)', 'leave out --crowd ignored, if these are objects'
)
NO_BOX = Reason('bbox that is not x, y, width, height: not used', lost=False)
SAME_NAME = Reason('category of the name of another: taken as one class', lost=False)
TWICE = Reason('image listed twice with the same annotations: taken once', lost=False)
_FORM = (
    'a file in COCO format has the lists "images" (id, file_name), "annotations" (image_id, '
    'category_id, segmentation) and "categories" (id, name)'
)


@dataclass(frozen=True)
class OwnCoco:
    """Content of the file.

    Args:
        file: The file.
        classes: Names of the classes 1..C: those of categories with annotations, by category id.
        labels: ``{category id: class id}`` of these.
        unused: Names of the other categories.
        images: ``{image id: record}`` with ``file_name``, and ``height`` and ``width`` > 0, or 0
            where the file does not say.
        annotations: ``{image id: rows}``. A row has ``id`` (int, all different), ``name`` (what
            messages call it), ``category_id``, ``segmentation`` (polygons or a run-length code),
            ``iscrowd`` (1: unknown), ``box`` (whether the outline is that of a box alone),
            ``bbox`` (x, y, width, height) or None, and ``area`` or None, as the file says.
        account: What was left out or read in a way that has to be said.
    """

    file: Path
    classes: tuple[str, ...]
    labels: dict[Any, int]
    unused: tuple[str, ...]
    images: dict[Any, dict]
    annotations: Mapping[Any, list[dict]]
    account: Account = field(default_factory=Account)


def read_own_coco(file: str | os.PathLike, crowd: str = 'object') -> OwnCoco:
    """Read the file.

    Args:
        file: JSON in COCO format.
        crowd: One of :data:`CROWDS`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is cut off or of another format; it has no annotations; an id, a flag or a
            number is of no known form; annotations are of images or categories that it has not;
            categories of one name differ; all annotations of a class are crowds that are ignored;
            an image is listed twice with different annotations.
    """
    file = Path(file)
    content = _load(file)
    used = {str(_id(entry, 'category_id')) for entry in content['annotations']}
    names = _categories(file, content['categories'], used)
    images = _images(file, content['images'])
    rows = _known(file, content['annotations'], images, names)
    if not rows:
        raise ValueError(f'{file} has no annotations; annotate some images and export it again')
    account = Account()
    used = {row['category_id'] for row in rows}
    classes = tuple(dict.fromkeys(names[c] for c in names if c in used))
    labels = {c: 1 + classes.index(names[c]) for c in names if c in used}
    for category in _later_of_a_name(labels, names):
        account.add(SAME_NAME, names[category], f'category {category}', file.name)
    unused = tuple(n for c, n in names.items() if c not in used and n not in classes)
    annotations: dict[Any, list[dict]] = defaultdict(list)
    for row in rows:
        photo = images[row['image_id']]['file_name']
        shaped = _shaped(row, names[row['category_id']], photo, crowd, account)
        if shaped is not None:
            annotations[row['image_id']].append(shaped)
    _check_crowds(file, account, annotations, names)
    _join_repeated(file, images, annotations, labels, account)
    return OwnCoco(file, classes, labels, unused, images, annotations, account)


def _load(file: Path) -> dict[str, list]:
    if not file.is_file():
        raise FileNotFoundError(f'annotations not found: {file}; export it again')
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{file} is cut off or no JSON ({error}); export it again') from error
    lists = ('images', 'annotations', 'categories')
    wrong = [
        key
        for key in lists
        if not isinstance(content, dict)
        or not isinstance(content.get(key), list)
        or not all(isinstance(entry, dict) for entry in content[key])
    ]
    if wrong:
        raise ValueError(
            f'{file} is no file of instances in COCO format: it has no list {listed(wrong)} of '
            f'objects; {_FORM}'
        )
    return content


def _categories(file: Path, entries: Sequence[dict], used: set[str]) -> dict[Any, str]:
    """``{category id: name}``, by id; those without a name are none, unless they are ``used``."""
    found: dict[Any, dict] = {}
    for entry in entries:
        category, name = _id(entry, 'id'), entry.get('name')
        nameless = name is None or not str(name).strip()
        if nameless and str(category) not in used:
            continue
        if category is None or nameless:
            raise ValueError(f'{file}: category {entry!r:.80} needs an id and a name; {_FORM}')
        if category in found and str(found[category]['name']) != str(name):
            raise ValueError(
                f'{file} has category ids more than once: {category} is '
                f'{found[category]["name"]} and {name}; give each an id of its own'
            )
        found[category] = entry
    ordered = sorted(found, key=lambda c: (isinstance(c, str), c))
    return {category: str(found[category]['name']) for category in ordered}


def _images(file: Path, entries: Sequence[dict]) -> dict[Any, dict]:
    nameless = [e.get('id') for e in entries if not str(e.get('file_name') or '').strip()]
    if nameless:
        raise ValueError(
            f'{file} has {len(nameless)} images without file_name: image ids {nameless[:5]}; '
            'export it again'
        )
    ids = [_id(entry, 'id') for entry in entries]
    if None in ids:
        lost = [e['file_name'] for e, image_id in zip(entries, ids) if image_id is None]
        raise ValueError(f'{file} has {len(lost)} images without id: {listed(lost, 5)}; {_FORM}')
    if twice := repeated(ids):
        raise ValueError(
            f'{file} has {len(twice)} image ids more than once: {twice[:5]}; each must occur once, '
            'or annotations have two images'
        )
    images = {}
    for image_id, entry in zip(ids, entries):
        sides = {side: _side(file, entry, side) for side in ('height', 'width')}
        if not all(sides.values()):
            sides = dict(height=0, width=0)
        images[image_id] = {**entry, 'file_name': str(entry['file_name']), **sides}
    return images


def _side(file: Path, entry: dict, key: str) -> int:
    """A side in pixels, 0 where it is not said."""
    value = entry.get(key)
    try:
        side = 0 if value is None or value == '' else float(value)
        if isfinite(side) and side >= 0 and side == int(side):
            return int(side)
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f'{file}: {key} of image {entry["file_name"]} must be a number of pixels, got {value!r:.40}'
    )


def _id(entry: dict, key: str) -> Any:
    """An id as int or text; None where there is none."""
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or value == '':
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _known(file: Path, entries: Sequence[dict], images: Mapping, names: Mapping) -> list[dict]:
    """The annotations with the ids of images and categories as these have them (some tools write
    text where the other is a number), and with a name and a number of their own."""
    ids = [_id(entry, 'id') for entry in entries]
    count = Counter(ids)
    plain = all(isinstance(i, int) and count[i] == 1 for i in ids)
    rows = []
    for number, (own, entry) in enumerate(zip(ids, entries), 1):
        said = f'annotation number {number}' if own is None else f'annotation {own}'
        if own is not None and count[own] > 1:
            said += f' (number {number})'
        rows.append({**entry, 'id': own if plain else number, 'name': said})
    for key, known, what in (
        ('image_id', images, 'images'),
        ('category_id', names, 'categories'),
    ):
        by_text = {str(i): i for i in known}
        lost = []
        for row in rows:
            found = _id(row, key)
            row[key] = found if found in known else by_text.get(str(found))
            if row[key] is None:
                lost.append(row['name'])
        if lost:
            raise ValueError(
                f'{file} has {len(lost)} annotations whose {key} is not among its {len(known)} '
                f'{what}: {listed(lost, 5)}; mend or delete them'
            )
    return rows


def _later_of_a_name(labels: Mapping, names: Mapping) -> list:
    """Used categories whose class is that of an earlier one."""
    first: dict[int, Any] = {}
    return [c for c, label in labels.items() if first.setdefault(label, c) != c]


# ------------------------------------------------------------------------------- annotations
def _shaped(
    row: dict, class_name: str, photo: str, crowd: str, account: Account
) -> dict[str, Any] | None:
    """The annotation in one form (see :class:`OwnCoco`); None where it has no place."""

    def note(reason: Reason) -> None:
        account.add(reason, class_name, row['name'], photo)

    try:
        is_crowd = _flag(row.get('iscrowd'))
    except ValueError as error:
        raise ValueError(f'{row["name"]} of {photo}: {error}') from error
    bbox, area = _box(row.get('bbox')), row.get('area')
    if row.get('bbox') and bbox is None:
        note(NO_BOX)
    shape, parts, flat = _outline(row.get('segmentation'))
    box = shape is None
    if flat and not box:
        note(FLAT)
    if parts and not box:
        note(PART)
    if box:
        if bbox is None or min(bbox[2:]) <= 0:
            note(NOTHING)
            return None
        x, y, width, height = bbox
        right, bottom = x + width, y + height
        shape = [[x, y, right, y, right, bottom, x, bottom]]
        note(BOX)
    elif is_crowd:
        note(CROWD_OBJECT if crowd == 'object' else CROWD_IGNORED)
    return dict(
        id=row['id'],
        name=row['name'],
        category_id=row['category_id'],
        segmentation=shape,
        iscrowd=int(box or (is_crowd and crowd == 'ignored')),
        box=box,
        bbox=bbox,
        area=float(area) if isinstance(area, (int, float)) and isfinite(area) else None,
    )


def _flag(value: Any) -> bool:
    """``iscrowd``: '0' is not true."""
    text = str(value).strip().lower()
    if value is None or text in ('0', '0.0', 'false', ''):
        return False
    if text in ('1', '1.0', 'true'):
        return True
    raise ValueError(f'iscrowd must be 0 or 1, got {value!r:.40}; export it again')


def _box(value: Any) -> tuple[float, float, float, float] | None:
    """x, y, width, height; None where there is none, or something else."""
    try:
        x, y, width, height = (float(number) for number in value)
    except (TypeError, ValueError):
        return None
    return (x, y, width, height) if all(map(isfinite, (x, y, width, height))) else None


def _outline(shape: Any) -> tuple[Any, int, bool]:
    """An outline as a list of polygons or a run-length code, None where there is none; parts of
    fewer than three points that were left out; whether it was one flat list of numbers."""
    if isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], dict):
        shape = shape[0]
    if isinstance(shape, dict) and shape:
        return shape, 0, False
    if not isinstance(shape, list):
        if shape:
            return [shape], 0, False  # malformed: said with its name when it is decoded
        return None, 0, False
    flat = bool(shape) and all(isinstance(number, (int, float)) for number in shape)
    points = len(shape) > 2 and all(isinstance(p, list) and len(p) == 2 for p in shape)
    polygons = [_polygon(part) for part in ([shape] if flat or points else shape)]
    whole = [part for part in polygons if not isinstance(part, list) or len(part) >= 6]
    return whole or None, len(polygons) - len(whole), flat


def _polygon(part: Any) -> Any:
    """x, y, x, y, ... also where it is a list of points."""
    if isinstance(part, list) and part and all(isinstance(p, (list, tuple)) for p in part):
        return [number for point in part for number in point]
    return part


def _check_crowds(
    file: Path, account: Account, annotations: Mapping[Any, list[dict]], names: Mapping
) -> None:
    """Refuse to ignore all that there is of a class."""
    ignored = Counter(row.class_name for row in account.rows.get(CROWD_IGNORED, ()))
    rows = (row for rows in annotations.values() for row in rows)
    there = {names[row['category_id']] for row in rows if not row['iscrowd']}
    lost = [f'{name} ({number})' for name, number in ignored.items() if name not in there]
    if lost:
        raise ValueError(
            f'{file}: all annotations of {listed(lost)} have iscrowd 1, and --crowd ignored leaves '
            'none of them; without it they are objects, as CVAT, datumaro and supervision write '
            'masks'
        )


def _join_repeated(
    file: Path,
    images: dict[Any, dict],
    annotations: dict[Any, list[dict]],
    labels: Mapping,
    account: Account,
) -> None:
    """An image that is listed twice, with the same annotations, counts once."""
    by_file: dict[str, list] = defaultdict(list)
    for image_id, record in images.items():
        by_file[record['file_name']].append(image_id)

    def content(image_id: Any) -> list[str]:
        rows = annotations.get(image_id, [])
        return sorted(f'{labels[row["category_id"]]} {row["segmentation"]}' for row in rows)

    differ = []
    for name, (first, *others) in by_file.items():
        for other in others:
            if annotations.get(other) and content(other) != content(first):
                if annotations.get(first):
                    differ.append(f'{name} (image ids {first} and {other})')
                    continue
                annotations[first] = annotations[other]
            account.add(TWICE, '', f'image {other}', name)
            annotations.pop(other, None)
            del images[other]
    if differ:
        raise ValueError(
            f'{file} has {len(differ)} file names of images more than once, with different '
            f'annotations: {listed(differ, 5)}; if they are of one image, give them one image_id, '
            'else the name of each with its folder'
        )
