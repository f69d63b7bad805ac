"""LVIS-92i: 920 classes of LVIS v1 in 10 folds.

Reads ROOT/{train,val}2017/*.jpg of COCO and lvis_v1_{train,val}.json in ROOT or ROOT/annotations;
writes class masks, lists and dataset.json to OUT. The images stay where they are. See
docs/datasets/lvis92i.md.
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

NUM_FOLDS = 10
PUBLISHED = 920
SPLITS = 'train', 'val'
_REMEDY = 'unpack lvis_v1_{}.json.zip of lvisdataset.org in ROOT/annotations'
_IMAGES = 'ROOT must hold train2017 and val2017 of COCO (LVIS val has images of both)'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the download and the output are, which splits."""
    add_instance_arguments(parser, 'lvis92i', SPLITS, 'lvis_v1_train.json has 1 GB')


def prepare(args: argparse.Namespace) -> str:
    """Write the masks that are not there, and the lists; a summary in words.

    Raises:
        FileNotFoundError, ValueError: No annotations, damaged ones, images that are missing or of
            another size; pycocotools is not installed; too few classes.
    """
    root = find_root(args, _IMAGES)
    parts = {
        split: read_instances(
            find_annotations((root / 'annotations', root), f'lvis_v1_{split}.json'),
            _REMEDY.format(split),
        )
        for split in dict.fromkeys(['val', *args.splits])
    }
    labels = parts['val'].labels
    if any(part.categories != parts['val'].categories for part in parts.values()):
        raise ValueError('the categories of LVIS train and val differ; both must be v1')
    benchmark, qualifying = _benchmark(parts, args.min_images)
    trained = {c for fold in benchmark.base or () for c in fold}
    wanted = {
        split: {c: label for c, label in labels.items() if label in classes}
        for split, classes in (('train', trained), ('val', qualifying))
    }
    jobs = {split: _jobs(root, parts[split], wanted[split]) for split in args.splits}
    number = len(qualifying)
    lines = make_annotated(args, root, root, benchmark, parts, jobs, {}, qualifying=number)
    head = expect(f'classes in {args.min_images} images of val', number, PUBLISHED)
    return '\n'.join([f'LVIS-92i: {head}; {args.out}', *lines])


def _benchmark(parts: dict[str, Instances], min_images: int) -> tuple[Benchmark, set[int]]:
    """The folds, and the class ids with enough images of val; they need not divide by ten."""
    val = parts['val']
    labels, counts = val.labels, val.image_counts
    qualifying = [labels[c] for c, images in counts.items() if images >= min_images]
    if len(qualifying) < NUM_FOLDS:
        raise ValueError(
            f'{val.file} has {len(qualifying)} classes in {min_images} images, {NUM_FOLDS} folds '
            f'need at least {NUM_FOLDS}; {_REMEDY.format("val")}'
        )
    trained = qualifying
    if 'train' in parts:
        trained = [labels[c] for c, n in parts['train'].image_counts.items() if n >= 2]
    novel = strided_folds(qualifying, NUM_FOLDS)
    base = base_classes(trained, novel)
    names = tuple(val.categories.values())
    return Benchmark('lvis-92i', names, NUM_FOLDS, novel, 1, base=base), set(qualifying)


def _jobs(root: Path, instances: Instances, labels: dict[int, int]) -> Iterator[Job]:
    """Images with an annotation of a class that is wanted, in the order of the file."""
    for image_id, image in instances.images.items():
        classes = group(instances.annotations.get(image_id, ()), labels)
        if classes:
            name, shape = image['file_name'], (image['height'], image['width'])
            yield Job(root / name, name, shape, classes)
