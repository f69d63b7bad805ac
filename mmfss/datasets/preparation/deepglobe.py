"""DeepGlobe land cover: 6 classes of satellite images in tiles, all of them to test.

Reads ROOT/train/<id>_sat.jpg with <id>_mask.png (or both in ROOT), cuts each in 6 x 6 tiles and
writes images, label maps, the list and dataset.json to OUT. See docs/datasets/cross_domain.md.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from mmfss.datasets.folds import Benchmark
from mmfss.datasets.preparation.jobs import Done
from mmfss.datasets.preparation.recipe import Recipe, add_folders, make
from mmfss.datasets.preparation.sources import coded_mask, find_folder, image_size
from mmfss.datasets.preparation.tiles import Boxes, class_counts, grid_boxes, save_tiles

COLOURS = {
    'agriculture': (255, 255, 0),
    'urban': (0, 255, 255),
    'rangeland': (255, 0, 255),
    'forest': (0, 255, 0),
    'water': (0, 0, 255),
    'barren': (255, 255, 255),
}
"""Red, green and blue of each class, in the order of PATNet's folders 1..6."""
CLASSES = tuple(COLOURS)
UNKNOWN = (0, 0, 0)
GRID = 6
MIN_SHARE = 0.048
_DOWNLOAD = 'unpack the land cover track of DeepGlobe: train/<id>_sat.jpg and train/<id>_mask.png'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the download and the output are, what unknown pixels become."""
    add_folders(parser, 'holds train, or the images themselves', 'deepglobe')
    parser.add_argument(
        '--unknown',
        choices=['ignored', 'background'],
        default='ignored',
        help='what unknown pixels are; PATNet counts them as background (default: ignored)',
    )


def prepare(args: argparse.Namespace) -> str:
    """Cut the tiles that are not there, write the list; a summary in words.

    Raises:
        FileNotFoundError, ValueError: Images without mask and the reverse, other sizes, colours
            outside the class table.
    """
    root = find_folder(args.root, _DOWNLOAD)
    root = root / 'train' if (root / 'train').is_dir() else root
    ids = _ids(root)
    options = dict(unknown=args.unknown, grid=GRID, min_share=MIN_SHARE)
    unknown = 255 if args.unknown == 'ignored' else 0
    recipe = Recipe(
        title='DeepGlobe',
        benchmark=Benchmark('deepglobe', CLASSES, 1, (tuple(range(1, len(CLASSES) + 1)),), 1),
        kind='label_maps',
        images=args.out / 'images',
        jobs={'test': ids},
        job=partial(cut_picture, root=root, out=args.out, unknown=unknown),
        options=options,
        source=dict(pictures=len(ids), **options),
    )
    made = make(recipe, root, args)['test']
    return (
        f'DeepGlobe: {len(made.images)} of {GRID * GRID * len(ids)} tiles of {len(ids)} images '
        f'({made.tally}); {args.out}\n'
        f'  tiles with {class_counts(made.images.values(), CLASSES, 1)}'
    )


def cut_picture(picture: str, root: Path, out: Path, unknown: int) -> Done:
    """Write the tiles of more than one class in which none has :data:`MIN_SHARE` or less."""
    image, mask = root / f'{picture}_sat.jpg', root / f'{picture}_mask.png'
    codes = {colour: label for label, colour in enumerate(COLOURS.values(), 1)} | {UNKNOWN: unknown}

    def labels() -> np.ndarray:
        return coded_mask(mask, codes, image_size(image), round_to=255)

    def choose(labels: np.ndarray) -> Boxes:
        tiles = {}
        for i, box in enumerate(grid_boxes(labels.shape, GRID)):
            part = labels[box[0] : box[1], box[2] : box[3]]
            counts = np.unique(part, return_counts=True)[1]
            if len(counts) > 1 and counts.min() / part.size > MIN_SHARE:
                tiles[f'{picture}_{i // GRID}{i % GRID}'] = box
        return tiles

    return save_tiles(out, picture, (image, mask), labels, choose)


def _ids(root: Path) -> list[str]:
    """Ids that have an image and a mask; FileNotFoundError if some have one of them."""
    images, masks = (
        {p.name.removesuffix(end) for p in root.glob(f'*{end}')}
        for end in ('_sat.jpg', '_mask.png')
    )
    if not masks:
        raise FileNotFoundError(f'no <id>_mask.png in {root}; {_DOWNLOAD} (only train has masks)')
    if images != masks:
        raise FileNotFoundError(
            f'in {root} {len(images - masks)} images have no mask: {sorted(images - masks)[:5]}; '
            f'{len(masks - images)} masks have no image: {sorted(masks - images)[:5]}; {_DOWNLOAD}'
        )
    return sorted(images)
