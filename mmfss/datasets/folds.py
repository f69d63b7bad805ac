"""Which classes each benchmark and fold holds out: data, and the two functions that read it.

Class ids are label values, 1-based; 0 is background and 255 is ignored, neither is a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmfss.datasets.shapes import SHAPES_CLASSES, SHAPES_MIN_AREA

PASCAL_CLASSES = (
    'aeroplane',
    'bicycle',
    'bird',
    'boat',
    'bottle',
    'bus',
    'car',
    'cat',
    'chair',
    'cow',
    'diningtable',
    'dog',
    'horse',
    'motorbike',
    'person',
    'pottedplant',
    'sheep',
    'sofa',
    'train',
    'tvmonitor',
)
COCO_CLASSES = (
    'person',
    'bicycle',
    'car',
    'motorcycle',
    'airplane',
    'bus',
    'train',
    'truck',
    'boat',
    'traffic light',
    'fire hydrant',
    'stop sign',
    'parking meter',
    'bench',
    'bird',
    'cat',
    'dog',
    'horse',
    'sheep',
    'cow',
    'elephant',
    'bear',
    'zebra',
    'giraffe',
    'backpack',
    'umbrella',
    'handbag',
    'tie',
    'suitcase',
    'frisbee',
    'skis',
    'snowboard',
    'sports ball',
    'kite',
    'baseball bat',
    'baseball glove',
    'skateboard',
    'surfboard',
    'tennis racket',
    'bottle',
    'wine glass',
    'cup',
    'fork',
    'knife',
    'spoon',
    'bowl',
    'banana',
    'apple',
    'sandwich',
    'orange',
    'broccoli',
    'carrot',
    'hot dog',
    'pizza',
    'donut',
    'cake',
    'chair',
    'couch',
    'potted plant',
    'bed',
    'dining table',
    'toilet',
    'tv',
    'laptop',
    'mouse',
    'remote',
    'keyboard',
    'cell phone',
    'microwave',
    'oven',
    'toaster',
    'sink',
    'refrigerator',
    'book',
    'clock',
    'vase',
    'scissors',
    'teddy bear',
    'hair drier',
    'toothbrush',
)
PHOTO_MIN_AREA = 2 * 32 * 32
"""A class qualifies in a photo from this many pixels on (PASCAL-5i and COCO-20i)."""


@dataclass(frozen=True)
class Benchmark:
    """A class table cut into folds.

    Args:
        name: Name in :data:`BENCHMARKS`.
        classes: Names of the classes 1..C, without background.
        num_folds: Number of folds F.
        novel: F tuples of class ids; disjoint, and together all classes.
        min_area: Pixels from which on a class counts in an image (at the label's size).

    Raises:
        ValueError: When the folds do not cut the class table into disjoint parts.
    """

    name: str
    classes: tuple[str, ...]
    num_folds: int
    novel: tuple[tuple[int, ...], ...]
    min_area: int

    def __post_init__(self) -> None:
        ids = sorted(class_id for fold in self.novel for class_id in fold)
        if len(self.novel) != self.num_folds or ids != list(range(1, len(self.classes) + 1)):
            raise ValueError(
                f'benchmark {self.name!r}: its {self.num_folds} folds must hold each of the '
                f'class ids 1..{len(self.classes)} exactly once, got {self.novel}'
            )
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f'benchmark {self.name!r}: class names must be unique')


@dataclass(frozen=True)
class FoldSplit:
    """The classes of one fold: ``novel`` are tested, ``base`` are trained on.

    Args:
        benchmark: Name of the benchmark.
        fold: Number of the fold, from 0.
        classes: Names of all classes 1..C.
        novel: Held-out class ids, ascending.
        base: The other class ids, ascending.
    """

    benchmark: str
    fold: int
    classes: tuple[str, ...]
    novel: tuple[int, ...]
    base: tuple[int, ...]

    @property
    def novel_names(self) -> tuple[str, ...]:
        """Names of the held-out classes."""
        return tuple(self.name(class_id) for class_id in self.novel)

    @property
    def base_names(self) -> tuple[str, ...]:
        """Names of the training classes."""
        return tuple(self.name(class_id) for class_id in self.base)

    def name(self, class_id: int) -> str:
        """Name of a class id in 1..C; ValueError for any other number."""
        if not 1 <= class_id <= len(self.classes):
            raise ValueError(
                f'class id must be in 1..{len(self.classes)} for {self.benchmark!r}, got {class_id}'
            )
        return self.classes[class_id - 1]

    def ids(self, role: str) -> tuple[int, ...]:
        """Class ids of a role, ``'base'`` or ``'novel'``; ValueError for any other name."""
        if role not in ('base', 'novel'):
            raise ValueError(f"the split of a fold must be 'base' or 'novel', got {role!r}")
        return self.base if role == 'base' else self.novel

    def to_dict(self) -> dict:
        """Plain numbers, strings and lists: what may go into a checkpoint's meta."""
        return dict(
            benchmark=self.benchmark,
            fold=self.fold,
            classes=list(self.classes),
            novel=list(self.novel),
            base=list(self.base),
        )

    @classmethod
    def from_dict(cls, data: Mapping) -> FoldSplit:
        """Inverse of :meth:`to_dict`; ValueError names the keys that are missing."""
        missing = {'benchmark', 'fold', 'classes', 'novel', 'base'} - set(data)
        if missing:
            raise ValueError(
                f'a fold split needs benchmark, fold, classes, novel and base; '
                f'missing: {sorted(missing)}'
            )
        return cls(
            benchmark=data['benchmark'],
            fold=int(data['fold']),
            classes=tuple(data['classes']),
            novel=tuple(data['novel']),
            base=tuple(data['base']),
        )


def contiguous_folds(num_classes: int, num_folds: int) -> tuple[tuple[int, ...], ...]:
    """Fold i holds the i-th run of ``num_classes / num_folds`` ids: (1, 2, ...), (6, 7, ...)."""
    size = num_classes // num_folds
    return tuple(tuple(range(i * size + 1, (i + 1) * size + 1)) for i in range(num_folds))


def interleaved_folds(num_classes: int, num_folds: int) -> tuple[tuple[int, ...], ...]:
    """Fold i holds every ``num_folds``-th id: (i + 1, i + 1 + num_folds, ...)."""
    return tuple(tuple(range(i + 1, num_classes + 1, num_folds)) for i in range(num_folds))


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark('pascal-5i', PASCAL_CLASSES, 4, contiguous_folds(20, 4), PHOTO_MIN_AREA),
        Benchmark('coco-20i', COCO_CLASSES, 4, interleaved_folds(80, 4), PHOTO_MIN_AREA),
        Benchmark('coco-20i-contiguous', COCO_CLASSES, 4, contiguous_folds(80, 4), PHOTO_MIN_AREA),
        Benchmark('shapes-5i', SHAPES_CLASSES, 4, contiguous_folds(20, 4), SHAPES_MIN_AREA),
    )
}


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of this name; ValueError lists the known names."""
    if name not in BENCHMARKS:
        raise ValueError(f'benchmark must be one of {sorted(BENCHMARKS)}, got {name!r}')
    return BENCHMARKS[name]


def get_split(benchmark: str, fold: int | str) -> FoldSplit:
    """The classes of one fold.

    Args:
        benchmark: A name in :data:`BENCHMARKS`.
        fold: 0 .. num_folds - 1, as an int or as digits (an environment variable is a string).

    Raises:
        ValueError: For an unknown benchmark or a fold out of range.
    """
    bench = get_benchmark(benchmark)
    number = int(fold) if isinstance(fold, str) and fold.strip().isdecimal() else fold
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < bench.num_folds:
        raise ValueError(
            f'fold of {benchmark!r} must be an integer in '
            f'0..{bench.num_folds - 1}, got {fold!r}; set it with FOLD=0'
        )
    novel = tuple(sorted(bench.novel[number]))
    base = tuple(i for i in range(1, len(bench.classes) + 1) if i not in novel)
    return FoldSplit(bench.name, number, bench.classes, novel, base)
