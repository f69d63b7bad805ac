"""Your own folder of images and masks, as an episodic dataset.

Reads one of three layouts: a folder per class with masks of two values (SRC/<class>/x.jpg and
x.png), SRC/images with SRC/masks of class values and SRC/classes.txt, or SRC/images with
SRC/annotations.json in COCO format. Writes masks, lists and dataset.json to OUT; images stay
where they are. Everything is checked before anything is written. See docs/datasets/folder.md.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mmfss.datasets.folds import BENCHMARKS, DATASET_FILE, Benchmark
from mmfss.datasets.grey_values import GreyValues
from mmfss.datasets.preparation.folder_layouts import LAYOUTS, Source, find_source
from mmfss.datasets.preparation.folder_masks import IGNORED, Found, Rules, inspect, write
from mmfss.datasets.preparation.jobs import run
from mmfss.datasets.preparation.recipe import OPTIONS_FILE, Areas, begin, fold_lines
from mmfss.datasets.prepared import MAX_LABELS, Entry, mask_path, write_description
from mmfss.files import PART_SUFFIX
from mmfss.words import listed

MIN_AREA = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders, form of the masks, folds and splits."""
    parser.add_argument('src', type=Path, help='your folder')
    parser.add_argument('out', type=Path, help='folder to write to, not below SRC')
    parser.add_argument('--layout', choices=['auto', *LAYOUTS], default='auto')
    parser.add_argument('--name', help="the benchmark's name (default: name of OUT)")
    parser.add_argument(
        '--folds',
        type=int,
        default=1,
        metavar='N',
        help='1 (default): all classes are novel, to test a trained model; more: fold i tests the '
        'i-th run of classes and trains on the others',
    )
    parser.add_argument(
        '--test-fraction',
        type=float,
        default=0.0,
        metavar='F',
        help="also write the splits 'train' and 'test', with this part of the images of each "
        "class in 'test' (default: 'all' alone)",
    )
    parser.add_argument('--seed', type=int, default=0, help='of that split (default 0)')
    parser.add_argument(
        '--min-area',
        type=int,
        default=MIN_AREA,
        metavar='N',
        help=f'pixels from which on a class counts in an image (default {MIN_AREA})',
    )
    parser.add_argument(
        '--object-value',
        type=int,
        choices=[1, IGNORED],
        help='value of the object in masks of two values; 255 is ignored if it is 1 (default: 1 '
        'if any mask has it, else 255)',
    )
    parser.add_argument(
        '--bit-depth',
        type=int,
        metavar='N',
        help='values of photos of more than 8 bits are 0..2^N - 1 (default: what the file states, '
        '16 bits mostly); kept in dataset.json, for training and test',
    )
    parser.add_argument(
        '--percentiles',
        type=float,
        nargs=2,
        metavar=('LOW', 'HIGH'),
        help='or black and white are these percentiles of each photo, e.g. 1 99',
    )
    parser.add_argument(
        '--value-range',
        type=float,
        nargs=2,
        metavar=('LOW', 'HIGH'),
        help='or these values, in all photos; floats and 32-bit integers need one of the three',
    )
    parser.add_argument('--images', type=Path, metavar='DIR', help='COCO: not SRC/images')
    parser.add_argument('--annotations', type=Path, metavar='FILE', help='not SRC/annotations.json')


def prepare(args: argparse.Namespace) -> str:
    """Check all, then write; a summary in words.

    Raises:
        FileNotFoundError: A folder or file is missing.
        ValueError: An option is out of range, OUT holds something else, images and masks do not
            fit; of those, all are named.
    """
    _check_options(args)
    source = find_source(args.src, args.layout, args.images, args.annotations)
    benchmark = _benchmark(args, source)
    grey_values = GreyValues(args.bit_depth, args.percentiles, args.value_range).record()
    rules = Rules(
        source.images, args.out, len(source.classes), source.labels, grey_values=grey_values
    )
    checked = run(partial(inspect, rules=rules), source.samples, 'checking', args.workers).results
    overlap = any(found.overlap for found in checked)
    rules = replace(
        rules,
        object_value=_object_value(args.object_value, source, checked),
        kind='class_masks' if overlap or len(source.classes) > MAX_LABELS else 'label_maps',
    )
    begin(args.out, dict(command='folder'))
    (args.out / DATASET_FILE).unlink(missing_ok=True)  # what is written now is not what it says
    tally = run(partial(write, rules=rules), source.samples, 'writing', args.workers)
    areas = {sample.image: found for sample, found in zip(source.samples, tally.results)}
    if not any(number > 1 for number in _counts(areas.values(), benchmark).values()):
        hint = ' In masks of class values 255 is ignored' if source.layout == 'values' else ''
        raise ValueError(
            f'no class has two images with at least {benchmark.min_area} pixels of it, and an '
            f'episode needs two; add images, or lower --min-area.{hint}'
        )
    splits = _splits(areas, args.test_fraction, args.seed)
    by_class = rules.kind == 'class_masks'
    entries = {
        split: [Entry(image, tuple(sorted(areas[image])) if by_class else ()) for image in images]
        for split, images in splits.items()
    }
    _remove_others(args.out, entries, by_class)
    made_from = dict(
        folder=str(args.src.resolve()),
        layout=source.layout,
        test_fraction=args.test_fraction,
        seed=args.seed,
    )
    if grey_values is not None:
        made_from['grey_values'] = grey_values
    write_description(args.out, benchmark, rules.kind, source.images, entries, made_from)
    head = (
        f'{benchmark.name}: {len(areas)} images (layout {source.layout}), '
        f'{rules.kind.replace("_", " ")} in {args.out}: {tally}'
    )
    empty = sum(found.empty for found in checked)
    lost = [text for found in checked for text in found.lost]
    also = f' (and so are {len(lost) - 1} images more)' if len(lost) > 1 else ''
    notes = [f'  warning: {text}{also}' for text in lost[:1]]
    return '\n'.join([head, *_summary(source, benchmark, areas, splits, empty), *notes])


def _check_options(args: argparse.Namespace) -> None:
    if not 0 <= args.test_fraction < 1:
        raise ValueError(f'--test-fraction must be from 0 to below 1, got {args.test_fraction}')
    if args.min_area < 1:
        raise ValueError(f'--min-area must be at least 1 pixel, got {args.min_area}')
    out, src = args.out.resolve(), args.src.resolve()
    if out == src or src in out.parents:
        raise ValueError(f'OUT must not be SRC or below it, got {args.out}; choose another folder')
    begun = (out / OPTIONS_FILE.format('')).is_file() or not out.is_dir()
    if not begun and any(not file.name.endswith(PART_SUFFIX) for file in out.iterdir()):
        raise ValueError(
            f'{args.out} is not empty and was not made by this command; nothing was written: '
            'choose a new folder'
        )


def _benchmark(args: argparse.Namespace, source: Source) -> Benchmark:
    name = args.out.resolve().name if args.name is None else args.name
    if name in BENCHMARKS or not name.strip():
        raise ValueError(f'--name must be a name of your own, got {name!r}')
    number = len(source.classes)
    if not 1 <= args.folds <= number:
        raise ValueError(f'--folds must be in 1..{number}, the number of classes, got {args.folds}')
    runs = np.array_split(np.arange(1, number + 1), args.folds)
    novel = tuple(tuple(int(i) for i in part) for part in runs)
    return Benchmark(name, source.classes, args.folds, novel, args.min_area)


def _object_value(asked: int | None, source: Source, checked: list[Found]) -> int | None:
    """The value of the object in masks of two values; None for other masks."""
    if source.layout != 'classes':
        return None
    pairs = [(s.mask, found.values) for s, found in zip(source.samples, checked)]
    ones = [mask for mask, values in pairs if 1 in values]
    others = [mask for mask, values in pairs if 1 not in values]
    value = asked or (1 if ones else IGNORED)
    wrong = others if value == 1 else ones
    if wrong:
        raise ValueError(
            f'the object is {value} in some masks, but {len(wrong)} masks '
            f'{"have no 1" if value == 1 else "have a 1"}: {listed(wrong)}; in all masks the '
            'object is 255, or in all it is 1 and 255 is ignored: change these masks (or '
            '--object-value)'
        )
    return value


def _counts(areas: Iterable[Areas], benchmark: Benchmark) -> Counter[int]:
    """Images in which a class qualifies."""
    return Counter(c for a in areas for c, pixels in a.items() if pixels >= benchmark.min_area)


def _splits(areas: Mapping[str, Areas], fraction: float, seed: int) -> dict[str, list[str]]:
    """'all' images, and 'train' and 'test': the fraction of the images of each class, by the rarest
    class of an image."""
    if not fraction:
        return {'all': list(areas)}
    number_of = Counter(c for found in areas.values() for c in found)
    groups = defaultdict(list)
    for image, found in areas.items():
        groups[min(found, key=lambda c: (number_of[c], c), default=0)].append(image)
    test: set[str] = set()
    for class_id in sorted(groups):
        group = groups[class_id]
        order = random.Random(f'{seed} {class_id}').sample(group, len(group))
        test.update(order[: round(fraction * len(order))])
    splits = {
        'all': list(areas),
        'train': [image for image in areas if image not in test],
        'test': [image for image in areas if image in test],
    }
    if not splits['train'] or not splits['test']:
        raise ValueError(
            f'--test-fraction {fraction} leaves {len(splits["train"])} images to train and '
            f'{len(splits["test"])} to test of {len(areas)}; choose another, or add images'
        )
    return splits


def _remove_others(out: Path, splits: Mapping[str, list[Entry]], by_class: bool) -> None:
    """Remove masks and lists of an earlier run that are not part of this one."""
    keep = {out / 'splits' / f'{name}.txt' for name in splits}
    for entry in splits['all']:
        classes = entry.classes if by_class else (None,)
        keep |= {mask_path(out, entry.image, c) for c in classes}
    for folder in (out / 'masks', out / 'splits'):
        for path in sorted(folder.rglob('*'), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            elif not path.is_dir() and path not in keep:
                path.unlink()


def _summary(
    source: Source,
    benchmark: Benchmark,
    areas: Mapping[str, Areas],
    splits: Mapping[str, list[str]],
    empty: int,
) -> list[str]:
    """Images of splits, classes and folds, and what is to be known of them."""
    parts = {name: [areas[image] for image in images] for name, images in splits.items()}
    tested = 'test' if 'test' in parts else 'all'
    counts, tests = _counts(parts['all'], benchmark), _counts(parts[tested], benchmark)
    per_class = [f'{name} {counts[c]}' for c, name in enumerate(source.classes, 1)]
    few = [name for c, name in enumerate(source.classes, 1) if tests[c] < 2]
    without = sum(not found for found in areas.values())
    remarks = [
        (
            few,
            f'warning: {len(few)} classes have no two images in {tested!r}, so no episode there: '
            f"{listed(few)}; add images, or leave them out with scarce_classes='drop'",
        ),
        (without, f'{without} images show no class'),
        (empty, f'{empty} annotations cover no pixel'),
        *((remark, remark) for remark in source.remarks),
        (
            source.negatives,
            f"{len(source.negatives)} images in folders 'not' left out: an episode knows none; "
            'mmfss label takes them as what is not the class',
        ),
    ]
    return [
        f'  splits: {", ".join(f"{name} {len(part)}" for name, part in parts.items())}',
        f'  images of each class (from {benchmark.min_area} pixels on): {listed(per_class)}',
        *fold_lines(
            benchmark,
            parts.get('train', parts['all']) if benchmark.num_folds > 1 else None,
            parts[tested],
        ),
        *(f'  {text}' for there, text in remarks if there),
    ]
