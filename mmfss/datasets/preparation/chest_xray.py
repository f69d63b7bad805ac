"""Chest X-ray: the lungs in radiographs of Shenzhen and Montgomery, one class to test.

Reads ROOT/CXR_png/<id>.png with ROOT/masks/<id>_mask.png or <id>.png, shrinks both and writes
images, label maps, the list and dataset.json to OUT. See docs/datasets/cross_domain.md.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mmfss.datasets.class_index import class_areas
from mmfss.datasets.folds import Benchmark
from mmfss.datasets.io import read_image, save_png
from mmfss.datasets.preparation.jobs import Done, read_complete
from mmfss.datasets.preparation.recipe import Recipe, add_folders, make
from mmfss.datasets.preparation.sources import (
    THRESHOLD,
    Drawn,
    binary_mask,
    find_folder,
    image_size,
)
from mmfss.datasets.prepared import mask_path
from mmfss.words import repeated

SUBSETS = {'shenzhen': 'CHNCXR_', 'montgomery': 'MCUCXR_'}
SIDE = 1024
_DOWNLOAD = (
    'unpack "Chest Xray Masks and Labels": its folder "Lung Segmentation" has CXR_png and masks'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the download and the output are, which radiographs, how large."""
    add_folders(parser, 'holds CXR_png and masks', 'chest_xray')
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
    options = dict(side=args.side, threshold=THRESHOLD)
    recipe = Recipe(
        title='Chest X-ray',
        benchmark=Benchmark('chest-xray', ('lung',), 1, ((1,),), 1),
        kind='label_maps',
        images=args.out / 'images',
        jobs={'test': jobs},
        job=partial(shrink, out=args.out, side=args.side),
        options=options,
        source=dict(subsets=sorted(args.subsets), **options),
    )
    made = make(recipe, args.root, args)['test']
    starts = {subset: SUBSETS[subset] for subset in args.subsets}
    counts = (
        f'{sum(name.startswith(start) for name in made.images)} images of {subset}'
        for subset, start in starts.items()
    )
    named = {job.image.name for job in jobs}
    others = (p.name for p in images.glob('*.png') if p.name not in named)
    rest = sum(name.startswith(tuple(starts.values())) for name in others)
    lines = [f'Chest X-ray: {made.tally}; {args.out}', f'  {", ".join(counts)}']
    if rest:
        lines.append(f'  {rest} images left out, as they have no mask')
    if made.empty:
        names = [name.removesuffix('.png') for name in made.empty[:5]]
        lines.append(f'  {len(made.empty)} images left out, as their mask is empty: {names}')
    return '\n'.join(lines)


def shrink(job: Drawn, out: Path, side: int) -> Done:
    """Write image and mask with the longer side ``side`` at most, unless the mask is empty."""
    height, width = image_size(job.image)
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    name = f'{job.name}.png'
    image, mask = out / 'images' / name, mask_path(out, name)
    labels = read_complete(mask, size[::-1], job.mask, job.image)
    if labels is not None:
        with suppress(FileNotFoundError, ValueError):
            if read_image(image).shape[1::-1] == size:
                return Done(kept=1, result={name: class_areas(labels)})
    large = binary_mask(job.mask, (height, width)) * np.uint8(255)
    small = np.asarray(Image.fromarray(large).resize(size, Image.Resampling.BOX))
    labels = (small >= THRESHOLD).astype(np.uint8)  # what covers half of a pixel
    if not labels.any():
        return Done(result={name: None})
    rgb = Image.fromarray(np.ascontiguousarray(read_image(job.image)[..., ::-1]))
    save_png(image, np.asarray(rgb.resize(size, Image.Resampling.BOX)))
    save_png(mask, labels)
    return Done(written=1, result={name: class_areas(labels)})


def _jobs(images: Path, masks: Path, subsets: list[str]) -> list[Drawn]:
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
            jobs.append(Drawn(images / f'{name}.png', file, name))
    if twice := repeated(job.name for job in jobs):
        raise ValueError(f'{masks} has two masks of one image: {twice[:5]}; remove one of them')
    return jobs
