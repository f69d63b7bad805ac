"""Which classes each benchmark and fold holds out, and the functions that read it.

Class ids are label values, 1-based; 0 is background and 255 is ignored, neither is a class.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mmfss.datasets.classes import COCO_CLASSES, PASCAL_CLASSES, SHAPES_CLASSES, canonical

PHOTO_MIN_AREA = 2 * 32 * 32
"""A class qualifies in a photo from this many pixels on (PASCAL-5i and COCO-20i)."""
SHAPES_MIN_AREA = 128
"""The same for Shapes-5i: 2048 pixels at a side of 512, scaled to 128."""
NOVEL_IMAGES = ('left_out', 'kept')
"""What becomes of training images that show a held-out class: in no episode, or there with that
class as background, as HSNet, Matcher and SANSA have it."""
ROLES = ('base', 'novel', 'base_train', 'base_val')
"""What episodes are about; see :meth:`FoldSplit.ids`."""
ALL_CLASSES = 'all'
"""In the place of the number of a fold: every class is trained on and none is held out, for a model
to label with."""
DATASET_FILE = 'dataset.json'
"""Name of the file that describes a prepared dataset, its benchmark included."""

Folds = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Benchmark:
    """A class table cut into folds.

    Args:
        name: Its name.
        classes: Names of the classes 1..C, without background.
        num_folds: Number of folds F.
        novel: F tuples of class ids, disjoint: what each fold tests.
        min_area: Pixels from which on a class counts in an image (at the label's size).
        base: F tuples of class ids that may be trained on; None takes all that are not novel.
        validation: F tuples of base classes that can be kept out of training for validation;
            None takes every fifth base class of a fold, from its third on.

    Raises:
        ValueError: Folds that overlap, ids that are no class, names that occur twice.
    """

    name: str
    classes: tuple[str, ...]
    num_folds: int
    novel: Folds
    min_area: int
    base: Folds | None = None
    validation: Folds | None = None

    def __post_init__(self) -> None:
        ids = [class_id for fold in self.novel for class_id in fold]
        known = set(range(1, len(self.classes) + 1))
        if len(self.novel) != self.num_folds or len(set(ids)) != len(ids) or not set(ids) <= known:
            raise ValueError(
                f'benchmark {self.name!r}: its {self.num_folds} folds must hold class ids '
                f'1..{len(self.classes)}, each at most once, got {self.novel}'
            )
        for kind in (self.base, self.validation):
            if kind is not None and len(kind) != self.num_folds:
                raise ValueError(
                    f'benchmark {self.name!r}: base and validation need a tuple of class ids for '
                    f'each of its {self.num_folds} folds, got {len(kind)}'
                )
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f'benchmark {self.name!r}: class names must be unique')
        for split in map(self.split, range(self.num_folds)):
            base, validation = set(split.base), set(split.validation)
            if not base <= known - set(split.novel) or not validation <= base:
                raise ValueError(
                    f'benchmark {self.name!r} fold {split.fold}: base classes must be among '
                    f'1..{len(self.classes)} and not novel, validation classes must be base classes'
                )

    def split(self, fold: int | str) -> FoldSplit:
        """The classes of fold ``fold`` in 0..F - 1, or of :data:`ALL_CLASSES`.

        Raises:
            ValueError: another string.
        """
        every = range(1, len(self.classes) + 1)
        if isinstance(fold, str):
            if fold != ALL_CLASSES:
                raise ValueError(f'a fold is a number or {ALL_CLASSES!r}, got {fold!r}')
            base = tuple(every)
            return FoldSplit(self.name, ALL_CLASSES, self.classes, (), base, base[2::5])
        novel = tuple(sorted(self.novel[fold]))
        base = tuple(i for i in every if i not in novel)
        if self.base is not None:
            base = tuple(sorted(self.base[fold]))
        held_out = base[2::5] if self.validation is None else sorted(self.validation[fold])
        return FoldSplit(self.name, fold, self.classes, novel, base, tuple(held_out))

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping) -> Benchmark:
        """Inverse of :meth:`to_dict`; ValueError names what is missing or wrong."""
        try:
            novel, base, validation = (
                None if data[key] is None else tuple(tuple(map(int, fold)) for fold in data[key])
                for key in ('novel', 'base', 'validation')
            )
            return cls(
                name=str(data['name']),
                classes=tuple(map(str, data['classes'])),
                num_folds=int(data['num_folds']),
                novel=novel or (),
                min_area=int(data['min_area']),
                base=base,
                validation=validation,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                'a benchmark needs name, classes, num_folds, novel, min_area, base and '
                f'validation; missing or wrong: {error}'
            ) from error


@dataclass(frozen=True)
class FoldSplit:
    """The classes of one fold: ``novel`` are tested, ``base`` are trained on.

    Args:
        benchmark: Name of the benchmark.
        fold: Number of the fold, from 0, or :data:`ALL_CLASSES`.
        classes: Names of all classes 1..C.
        novel: Held-out class ids, ascending.
        base: Class ids to train on, ascending.
        validation: Those of ``base`` that can be held out too, to choose a checkpoint on.
    """

    benchmark: str
    fold: int | str
    classes: tuple[str, ...]
    novel: tuple[int, ...]
    base: tuple[int, ...]
    validation: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """What messages call it."""
        return split_title(self.benchmark, self.fold)

    @property
    def novel_names(self) -> tuple[str, ...]:
        """Names of the held-out classes."""
        return self.names('novel')

    @property
    def base_names(self) -> tuple[str, ...]:
        """Names of the base classes."""
        return self.names('base')

    def names(self, role: str) -> tuple[str, ...]:
        """Names of the classes of a role."""
        return tuple(self.name(class_id) for class_id in self.ids(role))

    def name(self, class_id: int) -> str:
        """Name of a class id in 1..C; ValueError for any other number."""
        if not 1 <= class_id <= len(self.classes):
            raise ValueError(
                f'class id must be in 1..{len(self.classes)} for {self.benchmark!r}, got {class_id}'
            )
        return self.classes[class_id - 1]

    def ids(self, role: str) -> tuple[int, ...]:
        """Class ids of a role; ValueError for any other name.

        'novel' and 'base' are the fold's; 'base_val' are the validation classes and
        'base_train' the base classes without them.
        """
        if role not in ROLES:
            raise ValueError(f'the split of a fold must be one of {list(ROLES)}, got {role!r}')
        if role == 'base_train':
            return tuple(i for i in self.base if i not in self.validation)
        return {'base': self.base, 'novel': self.novel, 'base_val': self.validation}[role]

    def held_out(self, role: str) -> tuple[int, ...]:
        """Class ids that training on a role must not see a pixel of: the novel ones, and for
        'base_train' the validation classes."""
        return (*self.novel, *self.validation) if role == 'base_train' else self.novel

    def to_dict(self) -> dict:
        """Plain numbers, strings and lists: what may go into a checkpoint's meta."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping) -> FoldSplit:
        """Inverse of :meth:`to_dict`; ValueError names the keys that are missing."""
        keys = ('benchmark', 'fold', 'classes', 'novel', 'base', 'validation')
        missing = sorted(set(keys) - set(data))
        if missing:
            raise ValueError(f'a fold split needs {", ".join(keys)}; missing: {missing}')
        rest = {key: tuple(data[key]) for key in keys[2:]}
        fold = data['fold'] if data['fold'] == ALL_CLASSES else int(data['fold'])
        return cls(benchmark=data['benchmark'], fold=fold, **rest)


def split_title(benchmark: str, fold: int | str) -> str:
    """What messages call a fold of a benchmark."""
    return f'all classes of {benchmark}' if fold == ALL_CLASSES else f'{benchmark} fold {fold}'


def contiguous_folds(num_classes: int, num_folds: int) -> Folds:
    """Fold i holds the i-th run of ``num_classes / num_folds`` ids: (1, 2, ...), (6, 7, ...)."""
    size = num_classes // num_folds
    return tuple(tuple(range(i * size + 1, (i + 1) * size + 1)) for i in range(num_folds))


def interleaved_folds(num_classes: int, num_folds: int) -> Folds:
    """Fold i holds every ``num_folds``-th id: (i + 1, i + 1 + num_folds, ...)."""
    return tuple(tuple(range(i + 1, num_classes + 1, num_folds)) for i in range(num_folds))


def coco_to_pascal_folds() -> Folds:
    """Fold i tests the PASCAL classes that COCO-20i's interleaved fold i holds out, so that a
    model trained on COCO-20i fold i has not seen them (domain shift of Boudiaf et al., CVPR
    2021, and Hajimiri et al., CVPR 2023)."""
    fold_of = {canonical(name): i % 4 for i, name in enumerate(COCO_CLASSES)}
    folds = [fold_of[canonical(name)] for name in PASCAL_CLASSES]
    return tuple(tuple(c for c, f in enumerate(folds, 1) if f == fold) for fold in range(4))


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark('pascal-5i', PASCAL_CLASSES, 4, contiguous_folds(20, 4), PHOTO_MIN_AREA),
        Benchmark('coco-20i', COCO_CLASSES, 4, interleaved_folds(80, 4), PHOTO_MIN_AREA),
        Benchmark('coco-20i-contiguous', COCO_CLASSES, 4, contiguous_folds(80, 4), PHOTO_MIN_AREA),
        Benchmark('coco-to-pascal', PASCAL_CLASSES, 4, coco_to_pascal_folds(), PHOTO_MIN_AREA),
        Benchmark('shapes-5i', SHAPES_CLASSES, 4, contiguous_folds(20, 4), SHAPES_MIN_AREA),
    )
}


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of this name, or of a prepared dataset.

    Args:
        name: A name in :data:`BENCHMARKS`, or a folder made by ``tools/prepare.py``.

    Raises:
        ValueError: No such name; the folder's description is damaged. FileNotFoundError: a
            folder without description.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    folder = Path(str(name))
    if not folder.is_dir():
        raise ValueError(
            f'benchmark must be one of {sorted(BENCHMARKS)} or the folder of a prepared dataset, '
            f'got {name!r}; the folder is set with DATA_ROOT=FOLDER in the environment'
        )
    return Benchmark.from_dict(read_description(folder)['benchmark'])


def read_description(folder: str | os.PathLike) -> dict:
    """Content of the ``dataset.json`` of a prepared dataset.

    Raises:
        FileNotFoundError: The preparation was not finished. ValueError: the file is damaged.
    """
    file = Path(folder) / DATASET_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f'{file} not found: {folder} is no prepared dataset, or its preparation was '
            'interrupted; run tools/prepare.py (again), it goes on where it stopped'
        )
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        content['benchmark']['name']
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{file} is damaged ({error!r}); run tools/prepare.py again') from error
    return content


def get_split(benchmark: str, fold: int | str) -> FoldSplit:
    """The classes of one fold.

    Args:
        benchmark: As for :func:`get_benchmark`.
        fold: 0 .. num_folds - 1, as an int or as digits (an environment variable is a string), or
            :data:`ALL_CLASSES`.

    Raises:
        ValueError: For an unknown benchmark or a fold out of range.
    """
    bench = get_benchmark(benchmark)
    if fold == ALL_CLASSES:
        return bench.split(ALL_CLASSES)
    number = int(fold) if isinstance(fold, str) and fold.strip().isdecimal() else fold
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < bench.num_folds:
        raise ValueError(
            f'fold of {benchmark!r} must be an integer in '
            f'0..{bench.num_folds - 1}, got {fold!r}; set it with FOLD=0 (FOLD={ALL_CLASSES}: '
            'train on all classes, for labelling)'
        )
    return bench.split(number)
