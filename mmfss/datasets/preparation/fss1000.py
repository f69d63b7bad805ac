"""FSS-1000: 1000 classes of 10 images, 240 of them to test.

Reads ROOT/<class>/<n>.jpg with ROOT/<class>/<n>.png and the lists of classes; writes class masks,
lists and dataset.json to OUT. The images stay where they are. See docs/datasets/fss1000.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmfss.datasets.folds import Benchmark
from mmfss.datasets.preparation.recipe import Recipe, add_folders, make
from mmfss.datasets.preparation.sources import (
    THRESHOLD,
    Drawn,
    find_folder,
    read_names,
    write_binary,
)
from mmfss.words import repeated

PER_CLASS = 10
PUBLISHED = 520, 240, 240
_DOWNLOAD = 'unpack fewshot_data of FSS-1000; it holds a folder per class'
_LISTS = (
    'give --splits: a folder with train.txt (or trn.txt), val.txt and test.txt, or '
    'fss_test_set.txt of github.com/HKUSTCV/FSS-1000'
)


@dataclass(frozen=True)
class Classes:
    """Names of the classes, each sorted and disjoint; ``val`` is empty where no list has them."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """All names, sorted: class id i is the i-th."""
        return tuple(sorted((*self.train, *self.val, *self.test)))

    def benchmark(self) -> Benchmark:
        """One fold: the test classes are novel, the others base, ``val`` for validation."""
        ids = {name: i for i, name in enumerate(self.all, 1)}
        novel, val = (tuple(ids[name] for name in names) for names in (self.test, self.val))
        base = tuple(i for i in ids.values() if i not in novel)
        return Benchmark(
            'fss-1000', self.all, 1, (novel,), 1, base=(base,), validation=(val,) if val else None
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the download, the lists and the output are."""
    add_folders(parser, 'folder with a folder per class', 'fss1000')
    parser.add_argument(
        '--splits',
        type=Path,
        metavar='PATH',
        help='folder with train.txt, val.txt, test.txt, or the list of test classes '
        '(default: ROOT/splits or ROOT/../splits)',
    )


def prepare(args: argparse.Namespace) -> str:
    """Write masks and lists; a summary in words.

    Raises:
        FileNotFoundError, ValueError: No download or lists there, lists that overlap or name
            classes without folder, masks that are missing, damaged or of another size.
    """
    root = find_folder(args.root, _DOWNLOAD)
    classes, unlisted = read_classes(root, args.splits)
    benchmark = classes.benchmark()
    images = {}
    for name in benchmark.classes:
        files = [p.name for p in (root / name).iterdir() if p.suffix.lower() in ('.jpg', '.jpeg')]
        if not files:
            raise FileNotFoundError(
                f'class {name!r} has no .jpg images in {root / name}; {_DOWNLOAD}'
            )
        in_order = sorted(files, key=lambda file: (len(file), file))  # of their numbers
        images[name] = [f'{name}/{file}' for file in in_order]
    jobs = [
        Drawn(root / image, (root / image).with_suffix('.png'), image, class_id)
        for class_id, name in enumerate(benchmark.classes, 1)
        for image in images[name]
    ]
    split = benchmark.split(0)
    recipe = Recipe(
        title='FSS-1000',
        benchmark=benchmark,
        kind='class_masks',
        images=root,
        jobs={'all': jobs},
        job=partial(write_binary, out=args.out, kind='class_masks'),
        options=dict(classes=list(benchmark.classes), threshold=THRESHOLD),
        source=dict(threshold=THRESHOLD),
        lists=dict(train={*split.base}, val={*split.validation}, test={*split.novel}),
    )
    made = make(recipe, root, args)
    counts = len(classes.train), len(classes.val), len(classes.test)
    odd = [f'{name} ({len(files)})' for name, files in images.items() if len(files) != PER_CLASS]
    remarks = [  # what differs from the release: nothing is left out silently
        (odd, f'classes without exactly {PER_CLASS} images'),
        (made['test'].empty, 'images left out, as their mask has no foreground'),
        (unlisted, 'folders left out, as no list names them'),
    ]
    return '\n'.join(
        [
            f'FSS-1000: masks {made["test"].tally}; {args.out}',
            f'  {counts[0]} training, {counts[1]} validation, {counts[2]} test classes'
            + ('' if counts == PUBLISHED else f' (published: {PUBLISHED})'),
            *(f'  {name}: {len(one.images)} images' for name, one in made.items()),
            *(f'  {len(what)} {text}: {", ".join(what[:5])}' for what, text in remarks if what),
        ]
    )


def read_classes(root: Path, splits: Path | None) -> tuple[Classes, list[str]]:
    """The classes of the lists, and the folders that no list names.

    Raises:
        FileNotFoundError, ValueError: As for :func:`prepare`.
    """
    if splits is None:
        there = [folder for folder in (root / 'splits', root.parent / 'splits') if folder.is_dir()]
        if not there:
            raise FileNotFoundError(f'no lists of classes in {root / "splits"}; {_LISTS}')
        splits = there[0]
    if not splits.exists():
        raise FileNotFoundError(f'{splits} not found; {_LISTS}')
    folders = {p.name for p in root.iterdir() if p.is_dir() and p.name != 'splits'}
    if splits.is_dir():
        train_file = splits / ('trn.txt' if (splits / 'trn.txt').is_file() else 'train.txt')
        files = {'train': train_file, 'val': splits / 'val.txt', 'test': splits / 'test.txt'}
        lists = {key: read_names(file) for key, file in files.items()}
    else:
        test = read_names(splits)
        lists = {'train': sorted(folders - set(test)), 'val': [], 'test': test}
    names = [name for part in lists.values() for name in part]
    if twice := sorted(repeated(names)):
        raise ValueError(f'the lists in {splits} overlap: {twice[:5]}; a class is in one of them')
    absent = sorted(set(names) - folders)
    if absent:
        raise FileNotFoundError(
            f'{len(absent)} of {len(names)} classes of {splits} have no folder in {root}: '
            f'{absent[:5]}; {_DOWNLOAD}'
        )
    parts = {key: tuple(sorted(part)) for key, part in lists.items()}
    return Classes(**parts), sorted(folders - set(names))
