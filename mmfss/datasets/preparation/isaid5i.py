"""iSAID-5i: 15 classes of aerial images in 3 folds, in tiles of 256 pixels.

Reads ROOT/{train,val}/**/<name>.png with **/<name>_instance_color_RGB.png (iSAID), cuts tiles and
writes images, label maps, lists and dataset.json to OUT; or reads the tiles that the authors of
iSAID-5i cut (ROOT/{train,val}/images with semantic_png). See docs/datasets/isaid5i.md.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from mmfss.datasets.class_index import class_areas
from mmfss.datasets.folds import Benchmark, contiguous_folds
from mmfss.datasets.io import read_mask, save_png
from mmfss.datasets.preparation.jobs import Done, read_complete
from mmfss.datasets.preparation.recipe import Recipe, add_folders, make
from mmfss.datasets.preparation.sources import (
    Drawn,
    check_size,
    coded_mask,
    find_folder,
    image_size,
)
from mmfss.datasets.preparation.tiles import Boxes, class_counts, save_tiles, sliding_boxes
from mmfss.datasets.prepared import mask_path

COLOURS = {
    'background': (0, 0, 0),
    'ship': (0, 0, 63),
    'storage_tank': (0, 63, 63),
    'baseball_diamond': (0, 63, 0),
    'tennis_court': (0, 63, 127),
    'basketball_court': (0, 63, 191),
    'ground_track_field': (0, 63, 255),
    'bridge': (0, 127, 63),
    'large_vehicle': (0, 127, 127),
    'small_vehicle': (0, 0, 127),
    'helicopter': (0, 0, 191),
    'swimming_pool': (0, 0, 255),
    'roundabout': (0, 191, 127),
    'soccer_ball_field': (0, 127, 191),
    'plane': (0, 127, 255),
    'harbor': (0, 100, 155),
}
"""Red, green and blue of each class in ``*_instance_color_RGB.png``; the label is the position."""
CLASSES = tuple(COLOURS)[1:]
MIN_AREA = 32 * 32
SPLITS = 'train', 'val'
_MASK, _IDS = '_instance_color_RGB.png', '_instance_id_RGB.png'
_DOWNLOAD = (
    'it must hold train and val of iSAID, with the images of DOTA v1 and the masks '
    f'*{_MASK} anywhere below (unpack Semantic_masks)'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the download and the output are, and how to cut."""
    add_folders(parser, 'iSAID, or iSAID_patches of iSAID-5i', 'isaid5i')
    parser.add_argument('--size', type=int, default=256, help='side of a tile (default 256)')
    parser.add_argument('--stride', type=int, default=256, help='step between tiles (default 256)')
    parser.add_argument(
        '--min-area',
        type=int,
        default=MIN_AREA,
        help='keep tiles with a class of so many pixels; episodes count it from there on '
        f'(default {MIN_AREA})',
    )
    parser.add_argument('--splits', nargs='+', choices=SPLITS, default=list(SPLITS))


def prepare(args: argparse.Namespace) -> str:
    """Cut the tiles that are not there, write lists; a summary in words.

    Raises:
        FileNotFoundError, ValueError: Images without mask and the reverse, other sizes, colours
            outside the class table, options out of range.
    """
    if min(args.size, args.stride, args.min_area) < 1:
        raise ValueError('--size, --stride and --min-area must be at least 1 pixel')
    root = find_folder(args.root, _DOWNLOAD)
    cutting = dict(size=args.size, stride=args.stride, min_area=args.min_area)
    ready_made = (root / args.splits[0] / 'semantic_png').is_dir()
    options = dict(ready_made=True) if ready_made else dict(ready_made=False, **cutting)
    recipe = Recipe(
        title='iSAID-5i {}' if ready_made else 'iSAID {}',
        benchmark=Benchmark('isaid-5i', CLASSES, 3, contiguous_folds(15, 3), args.min_area),
        kind='label_maps',
        images=root if ready_made else args.out / 'images',
        jobs={split: _jobs(root, split, ready_made) for split in args.splits},
        job=partial(copy_mask, out=args.out)
        if ready_made
        else partial(cut_picture, out=args.out, **cutting),
        options=options,
        source=options,
    )
    lines = [f'iSAID-5i: {args.out}']
    for split, made in make(recipe, root, args).items():
        counts = class_counts(made.images.values(), CLASSES, args.min_area)
        lines += [
            f'  {split}: {len(made.images)} tiles ({made.tally})',
            f'    tiles with {args.min_area} pixels of {counts}',
        ]
    return '\n'.join(lines)


def cut_picture(job: Drawn, out: Path, size: int, stride: int, min_area: int) -> Done:
    """Write the tiles of a picture in which a class has ``min_area`` pixels."""
    codes = {colour: label for label, colour in enumerate(COLOURS.values())}

    def labels() -> np.ndarray:
        return coded_mask(job.mask, codes, image_size(job.image))

    def choose(labels: np.ndarray) -> Boxes:
        return {
            '_'.join(map(str, (job.name, *box))): box
            for box in sliding_boxes(labels.shape, size, stride)
            if max(class_areas(labels[box[0] : box[1], box[2] : box[3]]).values(), default=0)
            >= min_area
        }

    return save_tiles(out, job.name, (job.image, job.mask), labels, choose)


def copy_mask(job: Drawn, out: Path) -> Done:
    """Check a mask of label values and write it where prepared datasets have it."""
    shape = image_size(job.image)
    name = f'{job.name.replace("/", "/images/")}.png'
    target = mask_path(out, name)
    labels = read_complete(target, shape, job.mask)
    if labels is not None:
        return Done(kept=1, result={name: class_areas(labels)})
    labels = read_mask(job.mask)
    check_size(labels, job.mask, shape)
    areas = class_areas(labels)
    unknown = [value for value in areas if value > len(CLASSES)]
    if unknown:
        raise ValueError(
            f'mask {job.mask} has the values {unknown[:5]}; allowed are 0, 1..{len(CLASSES)}, 255'
        )
    save_png(target, labels)
    return Done(written=1, result={name: areas})


def _jobs(root: Path, split: str, ready_made: bool) -> list[Drawn]:
    """Images of a split with their masks. Of tiles that the authors cut, the masks hold label
    values already.

    Raises:
        FileNotFoundError: No images; some of either lack the other. ValueError: Names twice.
    """
    folder = find_folder(root / split / 'images' if ready_made else root / split, _DOWNLOAD)
    masks = root / split / 'semantic_png' if ready_made else folder
    images = [p for p in _find(folder, '.png') if ready_made or not p.name.endswith((_MASK, _IDS))]
    by_name = {p.name.removesuffix(_MASK): p for p in _find(masks, _MASK)}
    names = [p.stem for p in images]
    if len(set(names)) != len(names) or not names:
        what = f'images of one name: {names[:3]}' if names else 'no images (.png)'
        raise ValueError(f'{split} has {what}; {_DOWNLOAD}')
    no_mask, no_image = sorted(set(names) - set(by_name)), sorted(set(by_name) - set(names))
    if no_mask or no_image:
        raise FileNotFoundError(
            f'{len(no_mask)} of {len(names)} images of {split} have no mask: {no_mask[:5]}; '
            f'{len(no_image)} masks have no image: {no_image[:5]}; {_DOWNLOAD}'
        )
    return [Drawn(image, by_name[image.stem], f'{split}/{image.stem}') for image in images]


def _find(folder: Path, suffix: str) -> list[Path]:
    """Every file below a folder whose name ends so, by name."""
    return sorted(p for p in folder.rglob(f'*{suffix}') if p.is_file())
