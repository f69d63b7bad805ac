"""YOLO-seg: a text for each photo, a line for each outline: the class, then x and y in parts of the
sides; four numbers are a box: centre, width, height. Classes count from 0.

One number more is a confidence, which says nothing here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mmfss.datasets.preparation.folder_layouts.shapes import Gathered, numbers
from mmfss.datasets.preparation.folder_layouts.tree import (
    IMAGES,
    Tree,
)
from mmfss.datasets.preparation.frames import read_frame
from mmfss.datasets.preparation.own_coco import OwnCoco
from mmfss.datasets.preparation.sources import read_names
from mmfss.regions import rectangle
from mmfss.words import listed

LISTS = ('classes.txt', 'obj.names')
_LINE = re.compile(r'\d+(\s+[-+.\deE]+){4,}\s*')


def is_yolo(file: Path) -> bool:
    """Whether the first line of a text is of this form."""
    with open(file, encoding='utf-8-sig', errors='replace') as text:
        first = next((line for line in text if line.strip()), '')
    return bool(_LINE.fullmatch(first.strip()))


def read_yolo(tree: Tree, files: Sequence[Path], images: Path | None = None) -> list[OwnCoco]:
    """What the outlines of all texts say.

    Args:
        tree: The folder.
        files: The texts.
        images: Where the photos are, if not in the folder.

    Raises:
        FileNotFoundError: Nothing names the classes, or the photo of a text is not there.
        ValueError: A text is of another form, a class has no name.
    """
    names, of = _names(tree)
    gathered = Gathered(tree.root)
    gathered.order(names)
    inside = tree if images is None else Tree(images)
    photos: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for item in inside.items:
        if item.suffix in IMAGES:
            key = _key(item.path.relative_to(inside.root))
            photos[key].append(item.path)
            photos[key[-1:]].append(item.path)
    wanted = {*files}
    texts = sorted((i for i in tree.items if i.path in wanted), key=lambda item: item.path)
    found: dict[Path, Path] = {}
    for item in texts:  # a photo of that place and name, or the only one of that name
        key = _key(item.path.relative_to(tree.root))
        some = {*photos[key]} or {*photos[key[-1:]]}
        if len(some) == 1:
            found[item.path] = some.pop()
    alone = [item.path for item in texts if item.path not in found]
    if alone:
        there = [item.path for item in inside.items if item.suffix in IMAGES]
        raise FileNotFoundError(
            f'{len(alone)} texts of YOLO have no photo of their name: {listed(alone, 5)}; photos '
            f'there are {listed(there, 3) if there else "none"}; put them into '
            'images beside labels, or say with --images DIR where they are'
        )
    for item in texts:
        file, photo = item.path, found[item.path]
        root = tree.root if images is None else images
        name = photo.relative_to(root).as_posix()
        height, width = read_frame(photo).upright
        image = gathered.image(name, height, width, file, item.split)
        try:
            lines = file.read_text(encoding='utf-8-sig').splitlines()
            for number, line in enumerate(lines, 1):
                if line.strip():
                    what = f'line {number} of {file.name}'
                    _add(gathered, image, line.split(), (height, width), names, what)
        except UnicodeDecodeError as error:
            raise ValueError(f'{file} is no text of YOLO ({error}); export it again') from error
        except ValueError as error:
            raise ValueError(f'{file}: {error} (the classes are those of {of})') from error
    return [gathered.done()]


def _key(path: Path) -> tuple[str, ...]:
    """What a photo and its text have in common: images/train/x.jpg and labels/train/x.txt."""
    return tuple(p for p in path.with_suffix('').parts if p.casefold() not in ('images', 'labels'))


def _add(
    gathered: Gathered,
    image: int,
    words: list[str],
    size: tuple[int, int],
    names: Sequence[str],
    what: str,
) -> None:
    height, width = size
    if not words[0].isdigit() or int(words[0]) >= len(names):
        raise ValueError(f'{what}: class {words[0]!r} is none of 0..{len(names) - 1}')
    label, values = names[int(words[0])], numbers(words[1:], what)
    values = values[: len(values) - len(values) % 2]
    if len(values) < 4:
        raise ValueError(f'{what}: {len(words) - 1} numbers are neither an outline nor a box')
    along = [v * (height if i % 2 else width) for i, v in enumerate(values)]
    if len(values) > 4:
        return gathered.add(image, label, what, along)
    x, y, w, h = along
    corners = rectangle((x - w / 2, y - h / 2), (x + w / 2, y + h / 2))
    return gathered.add(image, label, what, corners, framed=True)


def _names(tree: Tree) -> tuple[list[str], Path]:
    """Names of the classes 0, 1, ..., and the file that has them."""
    found: dict[Path, list[str]] = {}
    for item in tree.items:
        if item.folders == () and item.suffix in ('.yaml', '.yml'):
            names = _of_yaml(item.path)
            if names:
                found[item.path] = names
    for item in () if found else tree.named(*LISTS):
        found[item.path] = read_names(item.path)
    if not found:
        raise FileNotFoundError(
            f'{tree.root} has outlines of YOLO and nothing that names their classes; put data.yaml '
            'with "names", or classes.txt with a name a line from class 0 on, beside them'
        )
    if len({tuple(names) for names in found.values()}) > 1:
        raise ValueError(
            f'{len(found)} files say different things of the classes: {listed([*found])}; leave '
            'the right one'
        )
    file = next(iter(found))
    return found[file], file


def _of_yaml(file: Path) -> list[str]:
    """``names``, a list or ``{number: name}``; [] where there are none."""
    try:
        content: Any = yaml.safe_load(file.read_text(encoding='utf-8-sig'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{file} is no YAML ({error}); export it again') from error
    names = content.get('names') if isinstance(content, dict) else None
    if isinstance(names, dict):
        if sorted(names) != [*range(len(names))]:
            raise ValueError(f'{file}: names must be of the classes 0, 1, ..., got {[*names][:5]}')
        names = [names[number] for number in range(len(names))]
    return [str(name) for name in names] if isinstance(names, list) else []
