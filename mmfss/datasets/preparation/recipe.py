"""The recipe of the preparations: begin or go on, make what is missing, write lists, say what is
there.

The module of a dataset finds what was downloaded, makes the files of one item at a time (a job) and
words the summary. One that ends in the form of :mod:`mmfss.datasets.prepared` states all else as a
:class:`Recipe`, and :func:`make` follows it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmfss.datasets.folds import Benchmark
from mmfss.datasets.preparation.jobs import Done, Tally, run
from mmfss.datasets.prepared import Entry, write_description
from mmfss.files import remove_parts, write_text

OPTIONS_FILE = '.options{}.json'
Areas = Mapping[int, int]
"""``{class id: pixels}`` of an image."""


@dataclass(frozen=True)
class Recipe:
    """What a preparation makes.

    Args:
        title: What progress bars and messages call it; '{}' in it is the split.
        benchmark: Classes and folds.
        kind: Of masks: 'label_maps' or 'class_masks'.
        images: Folder of the images that the lists name.
        jobs: ``{split: its jobs}``.
        job: Makes the files of one of them. Its result is ``{image: areas}`` with the names that
            the list has; None in the place of areas leaves the image out.
        options: Plain values that decide what is written.
        options_of: Those of each split, where splits may be made one by one.
        source: What else dataset.json says of where all this is from.
        lists: ``{split: class ids}`` where splits are not those of the jobs, but images by class.
    """

    title: str
    benchmark: Benchmark
    kind: str
    images: Path
    jobs: Mapping[str, Sequence]
    job: Callable[[Any], Done]
    options: Mapping[str, Any]
    source: Mapping[str, Any]
    options_of: Mapping[str, Mapping[str, Any]] | None = None
    lists: Mapping[str, AbstractSet[int]] | None = None


@dataclass(frozen=True)
class Made:
    """What there is of a split.

    Args:
        images: ``{image: areas}``, in the order of its list.
        empty: Images left out, as there is nothing to learn or test on them.
        tally: Files made and kept.
    """

    images: dict[str, Areas]
    empty: list[str]
    tally: Tally


def add_folders(parser: argparse.ArgumentParser, root: str, out: str) -> None:
    """ROOT, which is ``root``, and OUT, by default data/``out``."""
    parser.add_argument('root', type=Path, help=root)
    parser.add_argument('out', nargs='?', type=Path, default=Path('data') / out)


def make(recipe: Recipe, root: Path, args: argparse.Namespace) -> dict[str, Made]:
    """Follow a recipe; ``{split: what there is of it}``.

    Args:
        recipe: What to make.
        root: The download, for the record.
        args: ``out`` is the folder to write to, ``workers`` the number of processes.

    Raises:
        ValueError: As :func:`begin` and :func:`.jobs.run`.
    """
    options = dict(benchmark=recipe.benchmark.name, **recipe.options)
    for split, more in (recipe.options_of or {'': {}}).items():
        begin(args.out, options | dict(more), split and f'-{split}')
    made = {}
    for split, jobs in recipe.jobs.items():
        tally = run(recipe.job, jobs, recipe.title.format(split), args.workers)
        found = {image: areas for result in tally.results for image, areas in result.items()}
        there = {image: areas for image, areas in found.items() if areas is not None}
        made[split] = Made(there, [image for image in found if image not in there], tally)
    empty = [image for one in made.values() for image in one.empty]
    if recipe.lists is not None:
        (every,) = made.values()
        made = {
            split: replace(every, images={i: a for i, a in every.images.items() if classes & {*a}})
            for split, classes in recipe.lists.items()
        }
    by_class = recipe.kind == 'class_masks'
    entries = {
        split: [Entry(i, tuple(sorted(a)) if by_class else ()) for i, a in one.images.items()]
        for split, one in made.items()
    }
    source = dict(root=os.path.realpath(root), without_foreground=empty, **recipe.source)
    write_description(args.out, recipe.benchmark, recipe.kind, recipe.images, entries, source)
    return made


def begin(out: str | os.PathLike, options: Mapping[str, Any], part: str = '') -> None:
    """Note what a preparation makes; refuse a folder that was begun otherwise.

    Complete files of an earlier run are kept unread, so they must have been made alike. What a
    killed run was just writing goes.

    Args:
        out: The output folder.
        options: Plain values that decide what is written.
        part: What they are about, where splits are made one by one.

    Raises:
        ValueError: The folder was begun with other options; both are named.
    """
    file, text = Path(out) / OPTIONS_FILE.format(part), json.dumps(dict(options), indent=1)
    remove_parts(out)
    if not file.is_file():
        write_text(file, text)
        return
    try:
        before = json.loads(file.read_text(encoding='utf-8'))
    except ValueError:
        before = {}
    now = json.loads(text)
    if before != now:
        keys = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        raise ValueError(
            f'{out} was begun with other options: '
            + '; '.join(f'{k} was {before.get(k)!r}, now {now.get(k)!r}' for k in keys)
            + '; choose another output folder, or delete this one'
        )


def fold_lines(
    benchmark: Benchmark, train: Sequence[Areas] | None, test: Sequence[Areas] | None
) -> list[str]:
    """A line per fold: images that it trains and tests on, and classes that it cannot test.

    Training images have a base class at the minimum area and no pixel of a novel one; test images
    have a novel class at the minimum area.

    Args:
        benchmark: Its folds and minimum area.
        train, test: Areas of each image of the split; None leaves it out.
    """

    enough = benchmark.min_area

    def shown(areas: Areas, classes: AbstractSet[int]) -> set[int]:
        return {c for c, pixels in areas.items() if pixels >= enough and c in classes}

    lines = []
    for split in map(benchmark.split, range(benchmark.num_folds)):
        base, novel = set(split.base), set(split.novel)
        counts = []
        if train is not None:
            fit = sum(bool(shown(a, base)) and novel.isdisjoint(a) for a in train)
            counts.append(f'{fit} training images')
        if test is not None:
            found = [shown(a, novel) for a in test]
            counts.append(f'{sum(map(bool, found))} test images')
            absent = novel.difference(*found)
            if absent:
                names = ', '.join(split.name(c) for c in sorted(absent))
                counts.append(f'no test image of {names}')
        lines.append(f'  fold {split.fold}: {", ".join(counts)}')
    return lines
