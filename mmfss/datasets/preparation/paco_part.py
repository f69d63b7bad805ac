"""PACO-Part: 303 parts of objects in 4 folds, cut out object by object.

Reads ROOT/{train,val}2017/*.jpg of COCO and paco_lvis_v1_{train,val}.json in ROOT, ROOT/annotations
or ROOT/annotations/paco_lvis_v1; writes a picture per object, class masks, lists and dataset.json
to OUT. See docs/datasets/paco_part.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from mmfss.datasets.folds import Benchmark
from mmfss.datasets.preparation.class_masks import (
    Job,
    add_instance_arguments,
    base_classes,
    expect,
    find_root,
    group,
    make_annotated,
    strided_folds,
)
from mmfss.datasets.preparation.instances import Instances, find_annotations, read_instances
from mmfss.datasets.preparation.tiles import Box

NUM_FOLDS = 4
TRAINED, PUBLISHED = 448, 303
SPLITS = 'train', 'val', 'test'
_REMEDY = 'unpack paco_lvis_v1.zip of PACO in ROOT/annotations'
_IMAGES = 'ROOT must hold train2017 and val2017 of COCO (PACO has images of both)'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the download and the output are, which splits, whether to cut."""
    add_instance_arguments(parser, 'paco_part', SPLITS, 'train has 217117 objects')
    parser.add_argument(
        '--whole', action='store_true', help='whole images, not a picture per object'
    )


def prepare(args: argparse.Namespace) -> str:
    """Write the pictures and masks that are not there, and the lists; a summary in words.

    Raises:
        FileNotFoundError, ValueError: No annotations, damaged ones, parts of objects that are not
            there, images that are missing or of another size; pycocotools is not installed.
    """
    root = find_root(args, _IMAGES)
    folder = root / 'annotations'
    folders = folder, folder / 'paco_lvis_v1', root, root / 'paco_lvis_v1'
    parts = {
        split: read_instances(find_annotations(folders, f'paco_lvis_v1_{split}.json'), _REMEDY)
        for split in dict.fromkeys(['train', 'val', *args.splits])
    }
    if any(part.categories != parts['train'].categories for part in parts.values()):
        raise ValueError(f'the categories of the files of PACO differ; {_REMEDY}')
    labels = part_labels(parts['train'])
    benchmark = _benchmark(parts, labels, 'train' in args.splits, args.min_images)
    images = root if args.whole else args.out / 'images'
    jobs = {split: _jobs(root, parts[split], labels, args.whole) for split in args.splits}
    whole = dict(whole=args.whole)
    lines = make_annotated(args, root, images, benchmark, parts, jobs, whole, **whole)
    trained = sum(c in labels for c in parts['train'].image_counts)
    tested = sum(map(len, benchmark.novel))
    head = (
        f'PACO-Part: {expect("parts in train", trained, TRAINED)}, '
        f'{expect(f"of them in {args.min_images} images of val", tested, PUBLISHED)}; {args.out}'
    )
    return '\n'.join([head, *lines])


def part_labels(instances: Instances) -> dict[int, int]:
    """``{category id: label}`` of the parts, whose names are 'object:part'.

    Raises:
        ValueError: There are none.
    """
    parts = [c for c, name in instances.categories.items() if ':' in name]
    if not parts:
        raise ValueError(f'{instances.file} has no categories named object:part; {_REMEDY}')
    return {c: label for label, c in enumerate(parts, 1)}


def _benchmark(
    parts: dict[str, Instances], labels: dict[int, int], with_train: bool, min_images: int
) -> Benchmark:
    """Folds over the parts of train, without those that val has too few images of."""
    train, val = (parts[split].image_counts for split in ('train', 'val'))
    trained = [labels[c] for c in train if c in labels]
    tested = [labels[c] for c, n in val.items() if c in labels and n >= min_images]
    folds = strided_folds(trained, NUM_FOLDS)
    novel = tuple(tuple(c for c in fold if c in set(tested)) for fold in folds)
    if not all(novel):
        raise ValueError(
            f'{parts["val"].file} leaves a fold without parts in {min_images} images; {_REMEDY}'
        )
    known = [labels[c] for c, n in train.items() if c in labels and n >= 2]
    base = base_classes(known if with_train else tested, novel)
    names = tuple(name for c, name in parts['train'].categories.items() if c in labels)
    return Benchmark('paco-part', names, NUM_FOLDS, novel, 1, base=base)


def _jobs(root: Path, instances: Instances, labels: dict[int, int], whole: bool) -> Iterator[Job]:
    """Images or objects with an annotated part, in the order of the file.

    Raises:
        ValueError: A part belongs to no object of its image.
    """
    for image_id, image in instances.images.items():
        found = instances.annotations.get(image_id, [])
        name, shape = image['file_name'], (image['height'], image['width'])
        of_object: dict[int | None, list[dict]] = {}
        for row in found:
            if row['category_id'] in labels:
                key = 0 if whole else row.get('obj_ann_id')
                of_object.setdefault(key, []).append(row)
        objects = {row['id']: row for row in found if row['category_id'] not in labels}
        for key, rows in of_object.items():
            if whole:
                yield Job(root / name, name, shape, group(rows, labels))
                continue
            if key not in objects:
                raise ValueError(
                    f'{instances.file}: the object {key} of part annotation {rows[0]["id"]} is not '
                    f'among those of image {image_id}; {_REMEDY}'
                )
            box = clipped_box(objects[key]['bbox'], shape)
            stem = name.rsplit('.', 1)[0]
            yield Job(root / name, f'{stem}_{key}.png', shape, group(rows, labels), box)


def clipped_box(bbox: list[float], shape: tuple[int, int]) -> Box:
    """(top, bottom, left, right) of a box (x, y, width, height): both ends rounded down, inside
    the image, and at least a pixel."""
    x, y, width, height = bbox
    top, left = (min(max(int(v), 0), side - 1) for v, side in ((y, shape[0]), (x, shape[1])))
    bottom, right = min(int(y + height), shape[0]), min(int(x + width), shape[1])
    return top, max(bottom, top + 1), left, max(right, left + 1)
