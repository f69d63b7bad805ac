"""LVIS-92i: 920 classes of LVIS v1 in 10 folds.

Reads ROOT/{train,val}2017/*.jpg of COCO and lvis_v1_{train,val}.json in ROOT or ROOT/annotations;
writes class masks, lists and dataset.json to OUT. The images stay where they are. See
docs/datasets/lvis92i.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmfss.datasets.folds import Benchmark
from mmfss.datasets.preparation.class_masks import (
    Job,
    add_instance_arguments,
    base_classes,
    check_min_images,
    expect,
    find_annotations,
    fold_lines,
    group,
    images_per_class,
    strided_folds,
    write_split,
)
from mmfss.datasets.preparation.instances import Instances, need_pycocotools, read_instances
from mmfss.datasets.preparation.sources import begin, find_folder
from mmfss.datasets.prepared import write_description

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
    need_pycocotools()
    root = find_folder(args.root, _IMAGES)
    check_min_images(args)
    parts = {split: _read(root, split) for split in dict.fromkeys(['val', *args.splits])}
    labels = parts['val'].labels
    if any(part.categories != parts['val'].categories for part in parts.values()):
        raise ValueError('the categories of LVIS train and val differ; both must be v1')
    benchmark, qualifying = _benchmark(parts, args.min_images)
    entries, lines = {}, []
    for split in args.splits:
        begin(args.out, dict(benchmark='lvis-92i', annotations=parts[split].digest), f'-{split}')
        wanted = (
            qualifying if split == 'val' else {c for fold in benchmark.base or () for c in fold}
        )
        some = {c: label for c, label in labels.items() if label in wanted}
        jobs = _jobs(root, parts[split], some)
        entries[split], line = write_split(jobs, args.out, split, args.workers)
        lines.append(line)
    source = dict(root=str(root.resolve()), min_images=args.min_images, qualifying=len(qualifying))
    write_description(args.out, benchmark, 'class_masks', root, entries, source)
    head = expect(f'classes in {args.min_images} images of val', len(qualifying), PUBLISHED)
    lines += fold_lines(benchmark.novel, entries)
    return '\n'.join([f'LVIS-92i: {head}; {args.out}', *lines])


def _benchmark(parts: dict[str, Instances], min_images: int) -> tuple[Benchmark, set[int]]:
    """The folds, and the class ids with enough images of val; they need not divide by ten."""
    val = parts['val']
    labels, counts = val.labels, images_per_class(val)
    qualifying = [labels[c] for c, images in counts.items() if images >= min_images]
    if len(qualifying) < NUM_FOLDS:
        raise ValueError(
            f'{val.file} has {len(qualifying)} classes in {min_images} images, {NUM_FOLDS} folds '
            f'need at least {NUM_FOLDS}; {_REMEDY.format("val")}'
        )
    trained = qualifying
    if 'train' in parts:
        trained = [labels[c] for c, n in images_per_class(parts['train']).items() if n >= 2]
    novel = strided_folds(qualifying, NUM_FOLDS)
    base = base_classes(trained, novel)
    names = tuple(val.categories.values())
    return Benchmark('lvis-92i', names, NUM_FOLDS, novel, 1, base=base), set(qualifying)


def _read(root: Path, split: str) -> Instances:
    file = find_annotations((root / 'annotations', root), f'lvis_v1_{split}.json')
    return read_instances(file, _REMEDY.format(split))


def _jobs(root: Path, instances: Instances, labels: dict[int, int]) -> list[Job]:
    """Images with an annotation of a class that is wanted, in the order of the file."""
    jobs = []
    for image_id, image in instances.images.items():
        classes = group(instances.annotations.get(image_id, ()), labels)
        if classes:
            name, shape = image['file_name'], (image['height'], image['width'])
            jobs.append(Job(root / name, name, shape, classes))
    return jobs
