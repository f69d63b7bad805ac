"""Class masks from annotations in COCO's format, of whole images or of objects cut out of them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from mmfss.datasets.folds import Folds
from mmfss.datasets.io import read_image
from mmfss.datasets.preparation.instances import Instances, decode
from mmfss.datasets.preparation.jobs import Done, is_complete, is_older, run, save_png
from mmfss.datasets.preparation.sources import BLACK_WHITE, image_size
from mmfss.datasets.prepared import Entry, mask_path

Box = tuple[int, int, int, int]


def add_instance_arguments(
    parser: argparse.ArgumentParser, out: str, splits: Sequence[str], cost: str
) -> None:
    """Where the download and the output are, which of ``splits`` (``cost``: of the large one),
    and which classes."""
    parser.add_argument('root', type=Path, help='holds train2017, val2017 and annotations')
    parser.add_argument('out', nargs='?', type=Path, default=Path('data') / out)
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


def check_min_images(args: argparse.Namespace) -> None:
    """ValueError where ``--min-images`` leaves classes that no episode can be of."""
    if args.min_images < 2:
        raise ValueError(f'--min-images must be at least 2, an episode, got {args.min_images}')


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
    masks = {
        class_id: partial(_union, parts, job.shape) for class_id, parts in job.annotations.items()
    }
    return save_class_masks(job.image, job.name, masks, job.box, out)


def _union(parts: Sequence[dict], shape: tuple[int, int]) -> np.ndarray:
    first, *rest = (decode(annotation, *shape) for annotation in parts)
    for mask in rest:
        first |= mask
    return first


def save_class_masks(
    image: Path,
    name: str,
    masks: Mapping[int, Callable[[], np.ndarray]],
    box: Box | None,
    out: Path,
    source: Path | None = None,
) -> Done:
    """Write the masks that are not complete, of the classes that cover a pixel.

    Args:
        image: The image.
        name: What the list calls it: with suffix, relative to the image folder.
        masks: ``{class id: paints its mask, bool (height, width) of the image}``.
        box: (top, bottom, left, right) to cut out and write to OUT/images; None leaves the image
            where it is.
        out: Folder of the prepared dataset.
        source: File of the masks; masks that are older are made again.

    Returns:
        With the line of the list as its result, None if no class covers a pixel.
    """
    height, width = image_size(image)
    top, bottom, left, right = box or (0, height, 0, width)
    shape = bottom - top, right - left
    written, classes = 0, []
    for class_id, paint in sorted(masks.items()):
        path = mask_path(out, name, class_id)
        if not is_complete(path, shape, *([] if source is None else [source])):
            mask = paint()[top:bottom, left:right]
            if not mask.any():
                continue
            save_png(path, np.ascontiguousarray(mask).view(np.uint8), BLACK_WHITE)
            written += 1
        classes.append(class_id)
    if not classes:
        return Done()
    count = len(classes)
    if box is not None:
        count += 1
        written += _cut(image, out / 'images' / name, box)
    return Done(written, count - written, Entry(name, tuple(classes)))


def _cut(image: Path, target: Path, box: Box) -> bool:
    """Write a part of an image unless it is complete; whether it was written."""
    top, bottom, left, right = box
    with suppress(FileNotFoundError, ValueError):
        there = read_image(target).shape[:2] == (bottom - top, right - left)
        if there and not is_older(target, image):
            return False
    save_png(target, np.ascontiguousarray(read_image(image)[top:bottom, left:right, ::-1]))
    return True


def write_split(
    jobs: Sequence[Job], out: Path, split: str, workers: int | None
) -> tuple[list[Entry], str]:
    """Write the masks of a split; its list, and a summary in words."""
    tally = run(partial(write_class_masks, out=out), jobs, split, workers)
    entries = [entry for entry in tally.results if entry is not None]
    empty = len(jobs) - len(entries)
    left_out = f', {empty} left out, as no class covers a pixel' if empty else ''
    return entries, f'  {split}: {len(entries)} images{left_out}; files {tally}'


def images_per_class(instances: Instances) -> dict[int, int]:
    """``{category id: images with an annotation of it}``, ascending, those without left out."""
    counts = Counter(
        category
        for rows in instances.annotations.values()
        for category in {row['category_id'] for row in rows}
    )
    return dict(sorted(counts.items()))


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


def fold_lines(novel: Folds, entries: Mapping[str, Sequence[Entry]]) -> list[str]:
    """In words: classes of each fold, and images with one of them per split."""
    lines = []
    for f, fold in enumerate(novel):
        ids = set(fold)
        counts = ', '.join(
            f'{sum(not ids.isdisjoint(entry.classes) for entry in rows)} images of {split}'
            for split, rows in entries.items()
        )
        lines.append(f'  fold {f}: {len(fold)} novel classes, {counts}')
    return lines


def expect(what: str, got: int, published: int) -> str:
    """``'920 classes'``, with the published number where it differs."""
    differs = '' if got == published else f' (WARNING: the published benchmark has {published})'
    return f'{got} {what}{differs}'


def find_annotations(folders: Collection[Path], name: str) -> Path:
    """The first of the folders' files of this name that exists, else the first."""
    paths = [folder / name for folder in folders]
    return next((path for path in paths if path.is_file()), paths[0])
