"""Class masks of benchmarks with hundreds of classes: of whole images, or of objects cut out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmfss.datasets.folds import Benchmark, Folds
from mmfss.datasets.io import read_image, save_png
from mmfss.datasets.preparation.instances import Instances, decode, need_pycocotools
from mmfss.datasets.preparation.jobs import Done, is_older, read_complete
from mmfss.datasets.preparation.recipe import Made, Recipe, add_folders, make
from mmfss.datasets.preparation.sources import BLACK_WHITE, find_folder, image_size
from mmfss.datasets.preparation.tiles import Box
from mmfss.datasets.prepared import mask_path


def add_instance_arguments(
    parser: argparse.ArgumentParser, out: str, splits: Sequence[str], cost: str
) -> None:
    """Where the download and the output are, which of ``splits`` (``cost``: of the large one),
    and which classes."""
    add_folders(parser, 'holds train2017, val2017 and annotations', out)
    parser.add_argument(
        '--splits',
        nargs='+',
        choices=splits,
        default=['val'],
        help=f'val is all that tests read; {cost} (default: val)',
    )
    parser.add_argument(
        '--min-images',
        type=int,
        default=2,
        metavar='N',
        help='classes in so many images of val: K + 1 (default 2)',
    )


def find_root(args: argparse.Namespace, remedy: str) -> Path:
    """ROOT; ValueError, too, where ``--min-images`` leaves classes that no episode can be of."""
    need_pycocotools()
    root = find_folder(args.root, remedy)
    if args.min_images < 2:
        raise ValueError(f'--min-images must be at least 2, an episode, got {args.min_images}')
    return root


@dataclass(frozen=True)
class Job:
    """An image, or an object in it.

    Args:
        image: The image.
        name: What the list calls it: with suffix, relative to the image folder.
        shape: (height, width) of the image, as its annotations say.
        annotations: ``{class id: annotations}``, each with ``segmentation``.
        box: (top, bottom, left, right) to cut out and write to OUT/images; None leaves the image
            where it is.
    """

    image: Path
    name: str
    shape: tuple[int, int]
    annotations: Mapping[int, Sequence[dict]] = field(repr=False)
    box: Box | None = None


def write_class_masks(job: Job, out: Path) -> Done:
    """Write the masks of a job that are not complete; see :func:`save_class_masks`.

    Raises:
        FileNotFoundError, ValueError: The image is missing or of another size than its annotations
            say; an annotation is malformed.
    """
    found = image_size(job.image)
    if found != tuple(job.shape):
        raise ValueError(
            f'image {job.image} is {found[1]} x {found[0]} pixels (width x height), its '
            f'annotations are of {job.shape[1]} x {job.shape[0]}; download it again'
        )

    def union(rows: Sequence[dict]) -> np.ndarray:
        mask = decode(rows[0], *job.shape)
        for row in rows[1:]:
            mask |= decode(row, *job.shape)
        return mask

    masks = {class_id: partial(union, rows) for class_id, rows in job.annotations.items()}
    return save_class_masks(job.image, job.name, masks, job.box, out)


def save_class_masks(
    image: Path,
    name: str,
    masks: Mapping[int, Callable[[], np.ndarray]],
    box: Box | None,
    out: Path,
    *sources: Path,
) -> Done:
    """Write the masks that are not complete, of the classes that cover a pixel.

    Args:
        image: The image.
        name: What the list calls it: with suffix, relative to the image folder.
        masks: ``{class id: paints its mask, bool (height, width) of the image}``.
        box: (top, bottom, left, right) to cut out and write to OUT/images; None leaves the image
            where it is.
        out: Folder of the prepared dataset.
        sources: Files of the masks; masks that are older are made again.

    Returns:
        With ``{name: {class id: pixels}}`` as its result, ``{name: None}`` if none covers a pixel.
    """
    height, width = image_size(image)
    top, bottom, left, right = box or (0, height, 0, width)
    shape = bottom - top, right - left
    written, areas = 0, {}
    for class_id, paint in sorted(masks.items()):
        path = mask_path(out, name, class_id)
        mask = read_complete(path, shape, *sources)
        if mask is None:
            mask = np.ascontiguousarray(paint()[top:bottom, left:right]).view(np.uint8)
            if not mask.any():
                continue
            save_png(path, mask, BLACK_WHITE)
            written += 1
        areas[class_id] = int(np.count_nonzero(mask))
    if not areas:
        return Done(result={name: None})
    count = len(areas)
    if box is not None:
        target = out / 'images' / name
        count += 1
        there = False
        with suppress(FileNotFoundError, ValueError):
            there = read_image(target).shape[:2] == shape and not is_older(target, image)
        if not there:
            save_png(target, np.ascontiguousarray(read_image(image)[top:bottom, left:right, ::-1]))
            written += 1
    return Done(written, count - written, {name: areas})


def strided_folds(ids: Sequence[int], num_folds: int) -> Folds:
    """Fold f holds ids f, f + F, f + 2F, ... of the sequence; all are of one size, so that the
    last ``len(ids) % F`` are in none."""
    size = len(ids) // num_folds
    return tuple(tuple(ids[f + num_folds * i] for i in range(size)) for f in range(num_folds))


def base_classes(ids: Iterable[int], novel: Folds) -> Folds:
    """Of each fold the ids that it does not hold out."""
    return tuple(tuple(i for i in ids if i not in set(fold)) for fold in novel)


def group(rows: Iterable[dict], labels: Mapping[int, int]) -> dict[int, list[dict]]:
    """``{label: annotations}`` of those whose category has a label; only what a mask needs."""
    groups: dict[int, list[dict]] = {}
    for row in rows:
        label = labels.get(row['category_id'])
        if label is not None:
            slim = {key: row[key] for key in ('id', 'segmentation')}
            groups.setdefault(label, []).append(slim)
    return groups


def make_annotated(
    args: argparse.Namespace,
    root: Path,
    images: Path,
    benchmark: Benchmark,
    parts: Mapping[str, Instances],
    jobs: Mapping[str, Iterable[Job]],
    options: Mapping[str, Any],
    **source: Any,
) -> list[str]:
    """Make the masks of splits that were annotated in COCO's format, each from a file of its own.

    Args:
        args: ``out``, ``workers``, ``min_images``.
        root: The download.
        images: Folder of the images that the lists name.
        benchmark: Classes and folds.
        parts: ``{split: its annotations}``.
        jobs: ``{split: its jobs}``.
        options: What else decides what is written.
        source: What else dataset.json says of where all this is from.

    Returns:
        The summary: a line per split and fold.
    """
    recipe = Recipe(
        title='{}',
        benchmark=benchmark,
        kind='class_masks',
        images=images,
        jobs={split: list(some) for split, some in jobs.items()},
        job=partial(write_class_masks, out=args.out),
        options={},
        options_of={split: dict(annotations=parts[split].digest, **options) for split in jobs},
        source=dict(min_images=args.min_images, **source),
    )
    made, lines = make(recipe, root, args), []
    for split, one in made.items():
        left_out = f', {len(one.empty)} left out, as no class covers a pixel' if one.empty else ''
        lines.append(f'  {split}: {len(one.images)} images{left_out}; files {one.tally}')
    return lines + novel_lines(benchmark, made)


def novel_lines(benchmark: Benchmark, made: Mapping[str, Made]) -> list[str]:
    """A line per fold: its novel classes, and how many images of each split show one of them."""
    lines = []
    for fold, classes in enumerate(map(set, benchmark.novel)):
        counts = {
            split: sum(not classes.isdisjoint(areas) for areas in one.images.values())
            for split, one in made.items()
        }
        said = ', '.join(f'{number} images of {split}' for split, number in counts.items())
        lines.append(f'  fold {fold}: {len(classes)} novel classes, {said}')
    return lines


def expect(what: str, got: int, published: int) -> str:
    """``'920 classes'``, with the published number where it differs."""
    differs = '' if got == published else f' (WARNING: the published benchmark has {published})'
    return f'{got} {what}{differs}'
