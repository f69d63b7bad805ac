"""Chest X-ray: the lungs in radiographs of Shenzhen and Montgomery, one class to test.

Reads ROOT/CXR_png/<id>.png with ROOT/masks/<id>_mask.png or <id>.png, shrinks both and writes
images, label maps, the list and dataset.json to OUT. See docs/datasets/cross_domain.md.
"""

from __future__ import annotations

import argparse
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mmfss.datasets.folds import Benchmark
from mmfss.datasets.io import read_image
from mmfss.datasets.preparation.jobs import Done, is_complete, run, save_png
from mmfss.datasets.preparation.sources import (
    THRESHOLD,
    begin,
    binary_mask,
    find_folder,
    image_size,
)
from mmfss.datasets.prepared import Entry, mask_path, write_description

SUBSETS = {'shenzhen': 'CHNCXR_', 'montgomery': 'MCUCXR_'}
SIDE = 1024
_DOWNLOAD = (
    'unpack "Chest Xray Masks and Labels": its folder "Lung Segmentation" has CXR_png and masks'
)


@dataclass(frozen=True)
class Job:
    """A radiograph, its mask, and the name of both in the output."""

    image: Path
    mask: Path
    name: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the download and the output are, which radiographs, how large."""
    parser.add_argument('root', type=Path, help='holds CXR_png and masks')
    parser.add_argument('out', nargs='?', type=Path, default=Path('data/chest_xray'))
    parser.add_argument(
        '--subsets',
        nargs='+',
        choices=list(SUBSETS),
        default=['shenzhen'],
        help='hospitals (default: shenzhen, the 566 images that papers count)',
    )
    parser.add_argument(
        '--side', type=int, default=SIDE, help=f'longer side in pixels (default {SIDE})'
    )


def prepare(args: argparse.Namespace) -> str:
    """Shrink images and masks that are not there, write the list; a summary in words.

    Raises:
        FileNotFoundError, ValueError: No download, masks without image, damaged or of another
            size, a side below 1.
    """
    if args.side < 1:
        raise ValueError(f'--side must be at least 1 pixel, got {args.side}')
    images, masks = (find_folder(args.root / name, _DOWNLOAD) for name in ('CXR_png', 'masks'))
    jobs = _jobs(images, masks, args.subsets)
    options = dict(subsets=sorted(args.subsets), side=args.side, threshold=THRESHOLD)
    begin(args.out, dict(benchmark='chest-xray', side=args.side, threshold=THRESHOLD))
    tally = run(partial(shrink, out=args.out, side=args.side), jobs, 'Chest X-ray', args.workers)
    there = [job.name for job, filled in zip(jobs, tally.results) if filled]
    empty = [job.name for job, filled in zip(jobs, tally.results) if not filled]
    benchmark = Benchmark('chest-xray', ('lung',), 1, ((1,),), 1)
    splits = {'test': [Entry(f'{name}.png') for name in there]}
    source = dict(root=str(args.root.resolve()), without_foreground=empty, **options)
    write_description(args.out, benchmark, 'label_maps', args.out / 'images', splits, source)
    counts = Counter(
        subset for name in there for subset, start in SUBSETS.items() if name.startswith(start)
    )
    named = {job.image.name for job in jobs}
    starts = tuple(SUBSETS[subset] for subset in args.subsets)
    rest = [p for p in images.glob('*.png') if p.name.startswith(starts) and p.name not in named]
    lines = [
        f'Chest X-ray: {tally}; {args.out}',
        '  ' + ', '.join(f'{counts[subset]} images of {subset}' for subset in args.subsets),
    ]
    if rest:
        lines.append(f'  {len(rest)} images left out, as they have no mask')
    if empty:
        lines.append(f'  {len(empty)} images left out, as their mask is empty: {empty[:5]}')
    return '\n'.join(lines)


def shrink(job: Job, out: Path, side: int) -> Done:
    """Write image and mask with the longer side ``side`` at most; whether the mask has lungs."""
    height, width = image_size(job.image)
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image, mask = out / 'images' / f'{job.name}.png', mask_path(out, f'{job.name}.png')
    with suppress(FileNotFoundError, ValueError):
        there = is_complete(mask, size[::-1], job.mask, job.image)
        if there and read_image(image).shape[1::-1] == size:
            return Done(kept=1, result=True)
    large = binary_mask(job.mask, (height, width)) * np.uint8(255)
    small = np.asarray(Image.fromarray(large).resize(size, Image.Resampling.BOX))
    labels = (small >= THRESHOLD).astype(np.uint8)  # what covers half of a pixel
    if not labels.any():
        return Done(result=False)
    rgb = Image.fromarray(np.ascontiguousarray(read_image(job.image)[..., ::-1]))
    save_png(image, np.asarray(rgb.resize(size, Image.Resampling.BOX)))
    save_png(mask, labels)
    return Done(written=1, result=True)


def _jobs(images: Path, masks: Path, subsets: list[str]) -> list[Job]:
    """The masks of the subsets with their images, by name.

    Raises:
        FileNotFoundError: No masks of a subset. ValueError: Two masks of one image.
    """
    jobs = []
    for subset in subsets:
        files = sorted(masks.glob(f'{SUBSETS[subset]}*.png'))
        if not files:
            raise FileNotFoundError(f'no masks {SUBSETS[subset]}*.png in {masks}; {_DOWNLOAD}')
        for file in files:
            name = file.stem.removesuffix('_mask')
            jobs.append(Job(images / f'{name}.png', file, name))
    twice = [name for name, count in Counter(job.name for job in jobs).items() if count > 1]
    if twice:
        raise ValueError(f'{masks} has two masks of one image: {twice[:5]}; remove one of them')
    return jobs
