"""Your own folder of images and masks, as an episodic dataset.

Reads a folder per class with masks of two values (SRC/<class>/x.jpg and x.png), SRC/images with
SRC/masks of class values and SRC/classes.txt, SRC/images with SRC/annotations.json in COCO format,
and what LabelMe, VIA, CVAT, Roboflow and mmseg lay out. Folders called train, val, test and the
like are parts, which become the splits. Writes masks, lists and dataset.json to OUT; images stay
where they are. Everything is checked before anything is written. See docs/datasets/folder.md.
"""

from __future__ import annotations

import argparse
import os
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mmfss.datasets.account import FILE, Account, Reason
from mmfss.datasets.folds import BENCHMARKS, DATASET_FILE, Benchmark
from mmfss.datasets.grey_values import GreyValues
from mmfss.datasets.preparation.annotated import Terms, settle
from mmfss.datasets.preparation.folder_layouts import LAYOUTS, VALUES, Source, find_source
from mmfss.datasets.preparation.folder_masks import Rules, inspect, write
from mmfss.datasets.preparation.folder_summary import counts_of, lost_values, summary
from mmfss.datasets.preparation.frames import EXIF
from mmfss.datasets.preparation.jobs import run
from mmfss.datasets.preparation.mask_files import IGNORED, MaskContent, check_palettes, object_value
from mmfss.datasets.preparation.misfits import UNITS
from mmfss.datasets.preparation.own_coco import CROWDS
from mmfss.datasets.preparation.recipe import OPTIONS_FILE, Areas, begin
from mmfss.datasets.prepared import MAX_LABELS, Entry, mask_path, write_description
from mmfss.files import PART_SUFFIX

MIN_AREA = 256
SMALL = Reason('fewer pixels of a class in an image than --min-area: not counted', 'lower it')
LOST_VALUES = Reason(
    'photo that loses grey values or bands',
    '--bit-depth, --value-range or --percentiles, if they matter',
    lost=False,
)
SCARCE = Reason(
    'class with fewer than two images: no episode is of it',
    "add images; or leave it out with scarce_classes='drop'",
)
ALL_IGNORED = Reason(
    'mask with no value but 255, which is ignored in masks of class values: left out',
    'draw the objects with the value of their class',
)


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
        choices=[0, 1, IGNORED],
        help='value of the object in masks of two values; 255 is ignored if it is 1 (default: 1 '
        'if any mask has it, else 255); 0: black is the object',
    )
    parser.add_argument(
        '--exif',
        choices=EXIF,
        help='which pixels of photos that EXIF turns are annotated: those that a viewer shows '
        '(default, where sizes do not say other) or those that are stored',
    )
    parser.add_argument(
        '--crowd',
        choices=CROWDS,
        default=CROWDS[0],
        help='COCO: annotations of iscrowd 1 are objects (default) or ignored',
    )
    parser.add_argument(
        '--units', choices=UNITS, help='COCO: what coordinates are counted in (default: pixels)'
    )
    parser.add_argument(
        '--images', type=Path, metavar='DIR', help='where the images are, if not below SRC'
    )
    parser.add_argument(
        '--annotations',
        type=Path,
        metavar='FILE',
        help='of COCO, VIA or CVAT, if not found in SRC',
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


def prepare(args: argparse.Namespace) -> str:
    """Check all, then write; a summary in words.

    Raises:
        FileNotFoundError: A folder or file is missing.
        ValueError: An option is out of range, OUT holds something else, images and masks do not
            fit; of those, all are named.
    """
    _check_options(args)
    grey_values = GreyValues(args.bit_depth, args.percentiles, args.value_range).record()
    source = find_source(args.src, args.layout, args.images, args.annotations, crowd=args.crowd)
    benchmark, account = _benchmark(args, source), source.account
    terms = Terms(source.classes, source.labels, args.exif, args.units)
    rules = Rules(
        source.images,
        args.out,
        terms,
        args.object_value,
        meaning=source.meaning,
        blank=source.blank,
        grey_values=grey_values,
    )
    checked = run(partial(inspect, rules=rules), source.samples, 'checking', args.workers).results
    samples: Sequence = source.samples
    masks: list[MaskContent] = []
    if source.labels:  # annotations
        samples = settle(source.samples, checked, terms, account)
    else:
        for found in checked:
            account.merge(found.account)
            masks += found.masks
        check_palettes(masks, account)
    for sample, one in zip(source.samples, checked):
        for text in one.lost:
            account.add(LOST_VALUES, '', text.removesuffix('; said once'), sample.image)
    overlap = any(one.overlap for one in checked)
    rules = replace(
        rules,
        object_value=object_value(args.object_value, masks, source.classes) if masks else None,
        kind='class_masks' if overlap or len(source.classes) > MAX_LABELS else 'label_maps',
    )
    begin(args.out, dict(command='folder'))
    (args.out / DATASET_FILE).unlink(missing_ok=True)  # what is written now is not what it says
    tally = run(partial(write, rules=rules), samples, 'writing', args.workers)
    areas = {sample.image: found for sample, found in zip(samples, tally.results)}
    _note_areas(account, source, areas, masks, rules, benchmark.min_area)
    counts = counts_of(areas.values(), benchmark)
    if not any(number > 1 for number in counts.values()):
        account.write(args.out)
        because = account.because()
        raise ValueError(
            f'no class has two images with at least {benchmark.min_area} pixels of it, and an '
            f'episode needs two; add images{f". Not counted: {because}" if because else ""}'
        )
    for class_id, name in enumerate(source.classes, 1):
        if counts[class_id] < 2:
            account.add(SCARCE, name, f'{counts[class_id]} images of {name}')
    account.write(args.out)
    splits = _splits(areas, args.test_fraction, args.seed, source.splits)
    by_class = rules.kind == 'class_masks'
    entries = {
        split: [Entry(image, tuple(sorted(areas[image])) if by_class else ()) for image in images]
        for split, images in splits.items()
    }
    _remove_others(args.out, entries, by_class)
    made_from = dict(
        folder=os.path.realpath(args.src),
        layout=source.layout,
        test_fraction=args.test_fraction,
        seed=args.seed,
    )
    if grey_values is not None:
        made_from['grey_values'] = grey_values
    images = source.images
    write_description(args.out, benchmark, rules.kind, images, entries, made_from, upright=True)
    head = (
        f'{benchmark.name}: {len(areas)} images (layout {source.layout}), '
        f'{rules.kind.replace("_", " ")} in {args.out}: {tally}'
    )
    lines = [head, *summary(source, benchmark, areas, splits)]
    if account:
        table = (f'    {line}' for line in account.table())
        lines += [f'  left out, or read otherwise (each in {args.out / FILE}):', *table]
    return '\n'.join(lines + lost_values(checked))


def _note_areas(
    account: Account,
    source: Source,
    areas: Mapping[str, Areas],
    masks: Sequence[MaskContent],
    rules: Rules,
    min_area: int,
) -> None:
    """Note what is there and does not count: too small, or ignored."""
    for image, found in areas.items():
        for class_id, pixels in found.items():
            if pixels < min_area:
                account.add(SMALL, source.classes[class_id - 1], f'{pixels} pixels', image)
    for mask in masks:
        values = {*mask.values}
        by_value = mask.class_id == VALUES and rules.object_value is None
        if by_value and IGNORED in values and values <= {0, IGNORED}:
            account.add(ALL_IGNORED, file=mask.file)


def _check_options(args: argparse.Namespace) -> None:
    if not 0 <= args.test_fraction < 1:
        raise ValueError(f'--test-fraction must be from 0 to below 1, got {args.test_fraction}')
    if args.min_area < 1:
        raise ValueError(f'--min-area must be at least 1 pixel, got {args.min_area}')
    # Path.resolve raises RuntimeError for a link that leads to itself
    out, src = Path(os.path.realpath(args.out)), Path(os.path.realpath(args.src))
    if out == src or src in out.parents:
        raise ValueError(f'OUT must not be SRC or below it, got {args.out}; choose another folder')
    begun = (out / OPTIONS_FILE.format('')).is_file() or not out.is_dir()
    if not begun and any(not file.name.endswith(PART_SUFFIX) for file in out.iterdir()):
        raise ValueError(
            f'{args.out} is not empty and was not made by this command; nothing was written: '
            'choose a new folder'
        )


def _benchmark(args: argparse.Namespace, source: Source) -> Benchmark:
    name = os.path.basename(os.path.realpath(args.out)) if args.name is None else args.name
    if name in BENCHMARKS or not name.strip():
        raise ValueError(f'--name must be a name of your own, got {name!r}')
    number = len(source.classes)
    if not 1 <= args.folds <= number:
        raise ValueError(f'--folds must be in 1..{number}, the number of classes, got {args.folds}')
    runs = np.array_split(np.arange(1, number + 1), args.folds)
    novel = tuple(tuple(int(i) for i in part) for part in runs)
    return Benchmark(name, source.classes, args.folds, novel, args.min_area)


def _splits(
    areas: Mapping[str, Areas], fraction: float, seed: int, own: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """'all' images, and the parts that the folder has; or 'train' and 'test': the fraction of the
    images of each class, by the rarest class of an image."""
    if len(own) > 1 and fraction:
        raise ValueError(
            f'the folder has the parts {", ".join(own)}, which become the splits; leave out '
            '--test-fraction'
        )
    if len(own) > 1:
        return {'all': list(areas), **own}
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
