"""Files that say what the values or colours of masks mean, as the labelling tools write them.

::

    classes.txt, class_names.txt, labels.txt   a name a line from value 1 on; a first line
                 __ignore__ (LabelMe) counts for nothing, a next one background is value 0;
                 or "value: name" on every line
    labelmap.txt   name:red,green,blue:...     CVAT, Datumaro
    _classes.csv   value, name                 Roboflow, semantic masks
    class_dict.csv name,red,green,blue
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from mmfss.datasets.preparation.folder_layouts.source import Colour, Meaning
from mmfss.datasets.preparation.folder_layouts.tree import Tree
from mmfss.datasets.preparation.sources import read_names
from mmfss.words import listed, repeated

LISTS = ('classes.txt', 'class_names.txt', 'labels.txt')
COLOURS = ('labelmap.txt', 'class_dict.csv')
NUMBERS = ('_classes.csv',)
NAME_FILES = (*LISTS, *COLOURS, *NUMBERS)
IGNORED = 255
UNNAMED = 'object'
"""The class of masks of two values where nothing says its name."""
_IGNORED_NAMES = {'ignore', 'ignored', 'void'}
_NUMBERED = re.compile(r'(\d{1,3})\s*[:=,;\t]\s*(\S.*)')  # a line of "value: name"
Named = tuple[tuple[str, ...], Meaning]
"""Classes 1..C and what the values mean."""


def is_background(name: str) -> bool:
    """LabelMe writes ``_background_``."""
    return name.strip('_ ').casefold() == 'background'


def find_names(tree: Tree) -> Named | None:
    """What the file of names says, None where there is none.

    Raises:
        ValueError: It is wrong, or there are several (of splits, too) that say different things.
    """
    found = {item.path: read_meaning(item.path) for item in tree.named(*NAME_FILES)}
    lists = [path for path in found if path.name.casefold() in LISTS]
    with_codes = [path for path in found if path not in lists]
    if lists and with_codes and not tree.under('masks', suffixes=('.png',)):
        lists = []
    counted = with_codes or lists
    different = {
        (names, str(meaning.labels), str(meaning.colours)): path
        for path, (names, meaning) in ((p, found[p]) for p in counted)
    }
    if len(different) > 1:
        raise ValueError(
            f'{len(different)} files say different things of the classes: '
            f'{listed(sorted(different.values()))}; leave the right one, or make them equal'
        )
    return found[counted[0]] if counted else None


def read_meaning(file: Path) -> Named:
    """Read one of :data:`NAME_FILES`.

    Raises:
        FileNotFoundError, ValueError: It is missing, empty, of another form, or has a name, value
            or colour twice.
    """
    name = file.name.casefold()
    lines = read_names(file) if name in LISTS else []
    numbered = [found for line in lines if (found := _NUMBERED.fullmatch(line.strip()))]
    if name in LISTS and len(numbered) < len(lines):
        names = lines
        names = names[1:] if _is_ignored(names[0]) and names[0].startswith('__') else names
        classes = tuple(names[1:] if names and is_background(names[0]) else names)
        if any(map(is_background, classes)):
            raise ValueError(
                f'{file} names background as a class; it is value 0 and not listed, or first'
            )
        labels = {i: i for i in range(len(classes) + 1)}
        return classes, Meaning(f'the lines of {file.name}', {**labels, IGNORED: IGNORED})
    if numbered:
        rows: list = [(found[2].strip(), int(found[1])) for found in numbered]
    else:
        rows = _colour_rows(file) if name in COLOURS else _number_rows(file)
    twice = [*repeated(n for n, _ in rows), *repeated(f'{code}' for _, code in rows)]
    if twice or not rows:
        what = f'has {listed(twice, 5)} more than once' if twice else 'names no class'
        raise ValueError(f'{file} {what}; each name and each code must be there once')
    classes = tuple(n for n, code in rows if not is_background(n) and not _is_ignored(n))
    label = {name: i for i, name in enumerate(classes, 1)}
    codes = {code: IGNORED if _is_ignored(n) else label.get(n, 0) for n, code in rows}
    if name in COLOURS:
        colours = {code: c for code, c in codes.items() if isinstance(code, tuple)}
        return classes, Meaning(f'the colours of {file.name}', {}, {(0, 0, 0): 0} | colours)
    numbers = {code: c for code, c in codes.items() if isinstance(code, int)}
    return classes, Meaning(f'the values of {file.name}', {0: 0, IGNORED: IGNORED} | numbers)


def _is_ignored(name: str) -> bool:
    return name.strip('_ ').casefold() in _IGNORED_NAMES


def _colour_rows(file: Path) -> list[tuple[str, Colour]]:
    rows = []
    for line in read_names(file):
        found = re.fullmatch(r'([^#:][^:]*):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?::.*)?', line)
        if file.suffix.lower() == '.csv':
            found = re.fullmatch(r'(.+?),\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*', line)
        if found:
            red, green, blue = (int(text) for text in found.groups()[1:])
            if max(red, green, blue) > 255:
                raise ValueError(f'{file}: the colour of {line!r} is above 255')
            rows.append((found[1].strip(), (red, green, blue)))
        elif not line.startswith('#') and not line.casefold().startswith('name,'):
            raise ValueError(
                f'{file}: {line!r} is not of the form "name:red,green,blue::" (or '
                '"name,red,green,blue" in a CSV); export it again'
            )
    return rows


def _number_rows(file: Path) -> list[tuple[str, int]]:
    with open(file, encoding='utf-8-sig', newline='') as text:
        lines = [[cell.strip() for cell in row] for row in csv.reader(text) if any(row)]
    try:
        rows = [(name, int(value)) for value, name in lines[1:]]
        if not all(0 <= value < 256 for _, value in rows):
            raise ValueError('a value is outside 0..255')
    except ValueError as error:
        raise ValueError(
            f'{file} must have a line "Pixel Value, Class" and then a value in 0..255 and a name '
            f'on each line ({error}); export it again as "Semantic Segmentation Masks"'
        ) from error
    return rows
