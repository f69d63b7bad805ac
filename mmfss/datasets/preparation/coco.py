"""COCO-20i: label maps painted from the instances of COCO 2014 (or 2017).

Reads DATA_ROOT/annotations/instances_{train,val}YEAR.json and, for every image in them that is in
DATA_ROOT/{train,val}YEAR, writes DATA_ROOT/annotations/{train,val}YEAR/<image name>.png: 8-bit
grey, 0 background, 1..80 the classes in the order of their category ids, 255 crowds. Smaller
instances lie on larger ones, and all of them on crowds. See docs/datasets/coco.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmfss.datasets.class_index import class_areas
from mmfss.datasets.classes import COCO_CLASSES
from mmfss.datasets.folds import BENCHMARKS
from mmfss.datasets.io import save_png
from mmfss.datasets.preparation.instances import (
    Instances,
    encode,
    need_pycocotools,
    paint,
    read_instances,
)
from mmfss.datasets.preparation.jobs import Done, read_complete, run
from mmfss.datasets.preparation.recipe import Areas, fold_lines
from mmfss.datasets.preparation.sources import image_size
from mmfss.files import remove_parts, write_text

_REMEDY = 'unpack annotations_trainval{}.zip of COCO in DATA_ROOT again'
_PAINTING = 1  # of the rules in paint(): masks painted by others are painted again


@dataclass(frozen=True)
class Job:
    """An image, where its mask goes, (height, width) as its annotations say, and these."""

    image: Path
    mask: Path
    shape: tuple[int, int]
    annotations: list[dict]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folder, year and splits."""
    parser.add_argument(
        'data_root', type=Path, help='holds trainYEAR, valYEAR and annotations; written in place'
    )
    parser.add_argument('--year', choices=['2014', '2017'], default='2014')
    parser.add_argument('--splits', nargs='+', choices=['train', 'val'], default=['train', 'val'])
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace masks in annotations/<split> that this command did not paint',
    )


def prepare(args: argparse.Namespace) -> str:
    """Paint the masks that are not there; a summary in words.

    Raises:
        FileNotFoundError: No annotations, or none of their images.
        ValueError: Annotations that are damaged or not COCO's, images of another size than they
            say, masks that are already there from elsewhere; pycocotools is not installed.
    """
    need_pycocotools()
    lines: list[str] = []
    areas: dict[str, list[Areas]] = {}
    for part in dict.fromkeys(args.splits):
        split = f'{part}{args.year}'
        folder, masks = args.data_root / split, args.data_root / 'annotations' / split
        instances = read_annotations(masks.with_name(f'instances_{split}.json'), args.year)
        jobs = find_jobs(folder, masks, instances)
        _begin(masks, instances, args.overwrite)
        tally = run(partial(make, labels=instances.labels), jobs, split, args.workers)
        areas[part] = [pixels for pixels, _ in tally.results]
        listed, number = instances.file.name, len(instances.images)
        absent = number - len(jobs)
        empty = sum(count for _, count in tally.results)
        known = {job.image.name for job in jobs}
        others = sorted(p.name for p in folder.glob('*.jpg') if p.name not in known)
        remarks = [
            (absent, f'of the {number} images in {listed} are not in {folder} and have no mask'),
            (empty, 'annotations cover no pixel'),
            (
                len(others),
                f'images in {folder} are not in {listed} and have no mask: '
                f'{", ".join(others[:3])}; take them away: training takes every image there',
            ),
        ]
        lines.append(f'{split}: {len(jobs)} masks in {masks}: {tally}')
        lines += [f'  {count} {text}' for count, text in remarks if count]
    benchmark = BENCHMARKS['coco-20i']
    return '\n'.join([*lines, *fold_lines(benchmark, areas.get('train'), areas.get('val'))])


def read_annotations(file: Path, year: str) -> Instances:
    """The annotations, if they are of COCO's 80 categories; ValueError if not."""
    remedy = _REMEDY.format(year)
    other = {'2014': '2017', '2017': '2014'}[year]
    if not file.is_file() and file.with_name(file.name.replace(year, other)).is_file():
        remedy = f'the annotations of {other} are there: add --year {other}'
    instances = read_instances(file, remedy)
    names = tuple(instances.categories.values())
    if names != COCO_CLASSES:
        raise ValueError(
            f'{file} must have the 80 categories of COCO, person to toothbrush, got '
            f'{len(names)}: {", ".join(names[:3])}, ...; {remedy}'
        )
    return instances


def find_jobs(folder: Path, masks: Path, instances: Instances) -> list[Job]:
    """The images that are there, in the order of the file; FileNotFoundError if none is."""
    jobs = [
        Job(
            folder / image['file_name'],
            masks / f'{Path(image["file_name"]).stem}.png',
            (image['height'], image['width']),
            instances.annotations.get(image_id, []),
        )
        for image_id, image in instances.images.items()
    ]
    there = [job for job in jobs if job.image.is_file()]
    if not there:
        raise FileNotFoundError(
            f'none of the {len(jobs)} images of {folder.name} is in {folder} (the first is '
            f'{jobs[0].image.name if jobs else None}); unpack {folder.name}.zip there'
        )
    return there


def _begin(folder: Path, instances: Instances, overwrite: bool) -> None:
    """Masks painted from other annotations go, so that none is taken for one of these."""
    record = folder.with_name(f'masks_{folder.name}.json')
    made_from = dict(annotations=instances.digest, painting=_PAINTING)
    if record.is_file():
        try:
            before = json.loads(record.read_text(encoding='utf-8'))
        except ValueError:
            before = None
        if before == made_from:
            remove_parts(folder)
            return
        if folder.is_dir():
            shutil.rmtree(folder)
    elif folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise ValueError(
                f'{folder} has files that this command did not paint; move them away, or replace '
                'them with --overwrite (or train on them as they are)'
            )
        shutil.rmtree(folder)
    write_text(record, json.dumps(made_from, indent=1) + '\n')


def make(job: Job, labels: dict[int, int]) -> Done:
    """Paint one mask unless it is complete.

    Returns:
        With ``({label: pixels}, empty annotations)`` as its result.

    Raises:
        FileNotFoundError, ValueError: The image is missing, broken or of another size than its
            annotations say; an annotation is wrong.
    """
    found = image_size(job.image)
    if found != job.shape:
        raise ValueError(
            f'image {job.image} is {found[1]} x {found[0]} pixels (width x height), its '
            f'annotations are for {job.shape[1]} x {job.shape[0]}; download the image again'
        )
    mask = read_complete(job.mask, job.shape)
    if mask is not None:
        empty = sum(encode(annotation, *job.shape) is None for annotation in job.annotations)
        return Done(kept=1, result=(class_areas(mask), empty))
    mask, empty = paint(job.annotations, labels, *job.shape)
    save_png(job.mask, mask)
    return Done(written=1, result=(class_areas(mask), empty))
