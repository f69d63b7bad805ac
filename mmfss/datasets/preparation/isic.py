"""ISIC 2018 task 1: skin lesions of 3 classes, all of them to test.

Reads ROOT/ISIC2018_Task1-2_Training_Input/<id>.jpg, ROOT/ISIC2018_Task1_Training_GroundTruth/
<id>_segmentation.png and a table of classes; writes label maps, the list and dataset.json to OUT.
The images stay where they are. See docs/datasets/cross_domain.md.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from functools import partial
from pathlib import Path

from mmfss.datasets.folds import Benchmark
from mmfss.datasets.preparation.recipe import Recipe, add_folders, make
from mmfss.datasets.preparation.sources import THRESHOLD, Drawn, find_folder, write_binary
from mmfss.words import repeated

CLASSES = 'nevus', 'seborrheic_keratosis', 'melanoma'
INPUT, TRUTH = 'ISIC2018_Task1-2_Training_Input', 'ISIC2018_Task1_Training_GroundTruth'
_DOWNLOAD = f'unpack {INPUT}.zip and {TRUTH}.zip of the ISIC 2018 challenge in one folder'
_TABLE = (
    'give --classes class_id.csv (columns ID, Class; github.com/slei109/PATNet has it in '
    f'data/isic), or sort the images into {INPUT}/1, 2, 3 for {", ".join(CLASSES)}'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the download, the classes and the output are."""
    add_folders(parser, f'holds {INPUT} and {TRUTH}', 'isic')
    parser.add_argument(
        '--classes',
        type=Path,
        metavar='CSV',
        help=f'table of the columns ID and Class (default: the folders {INPUT}/1, 2, 3)',
    )


def prepare(args: argparse.Namespace) -> str:
    """Write label maps and the list; a summary in words.

    Raises:
        FileNotFoundError, ValueError: No download or classes, images of the table or masks that
            are missing, damaged or of another size.
    """
    images = find_folder(args.root / INPUT, _DOWNLOAD)
    masks = find_folder(args.root / TRUTH, _DOWNLOAD)
    if args.classes is not None:
        classes = read_table(args.classes, images)
    else:
        folders = {label: images / str(label) for label in (1, 2, 3)}
        classes = {
            f'{label}/{photo.name}': label
            for label, folder in folders.items()
            for photo in sorted(folder.glob('*.jpg'))
        }
        if not classes:
            raise FileNotFoundError(f'no classes of the images in {images}; {_TABLE}')
    jobs = [
        Drawn(images / image, masks / f'{Path(image).stem}_segmentation.png', image, label)
        for image, label in classes.items()
    ]
    recipe = Recipe(
        title='ISIC',
        benchmark=Benchmark('isic', CLASSES, 1, ((1, 2, 3),), 1),
        kind='label_maps',
        images=images,
        jobs={'test': jobs},
        job=partial(write_binary, out=args.out, kind='label_maps'),
        options=dict(classes=classes, threshold=THRESHOLD),
        source=dict(threshold=THRESHOLD),
    )
    made = make(recipe, args.root, args)['test']
    counts = Counter(classes[image] for image in made.images)
    unlisted = sum(1 for _ in images.glob('*.jpg')) - len(classes) if args.classes else 0
    lines = [
        f'ISIC: masks {made.tally}; {args.out}',
        '  ' + ', '.join(f'{counts[c]} {name}' for c, name in enumerate(CLASSES, 1)),
    ]
    if unlisted:
        lines.append(f'  {unlisted} images left out, as {args.classes} has no class for them')
    if made.empty:
        lines.append(
            f'  {len(made.empty)} images left out, as their mask is empty: {made.empty[:5]}'
        )
    return '\n'.join(lines)


def read_table(file: Path, images: Path) -> dict[str, int]:
    """``{image: label}`` from a table, by id.

    Raises:
        FileNotFoundError: No table; images of it are missing. ValueError: It has other columns or
            classes, or an id twice.
    """
    if not file.is_file():
        raise FileNotFoundError(f'table of classes not found: {file}; {_TABLE}')
    with file.open(encoding='utf-8-sig', newline='') as lines:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
    if not rows or rows[0] != ['ID', 'Class'] or any(len(row) != 2 for row in rows):
        raise ValueError(
            f'{file} must have the columns ID, Class, got {rows[0] if rows else "an empty file"}; '
            f'{_TABLE}'
        )
    rows = sorted(rows[1:])
    unknown = sorted({name for _, name in rows} - set(CLASSES))
    twice = repeated(key for key, _ in rows)
    if unknown or twice:
        what = f'the classes {unknown[:5]}' if unknown else f'ids twice: {twice[:5]}'
        raise ValueError(f'{file} has {what}; classes are {list(CLASSES)}, an id occurs once')
    absent = [key for key, _ in rows if not (images / f'{key}.jpg').is_file()]
    if absent:
        raise FileNotFoundError(
            f'{len(absent)} of {len(rows)} images of {file} are not in {images}: '
            f'{absent[:5]}; {_DOWNLOAD}'
        )
    return {f'{key}.jpg': CLASSES.index(name) + 1 for key, name in rows}
