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
from mmfss.datasets.preparation.jobs import Done, run
from mmfss.datasets.preparation.sources import begin, coded_mask, find_folder, image_size
from mmfss.datasets.preparation.tiles import (
    IGNORED,
    Tile,
    class_counts,
    grid_boxes,
    save_tiles,
    tile_entries,
)
from mmfss.datasets.prepared import write_description

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
    parser.add_argument('root', type=Path, help='holds train, or the images themselves')
    parser.add_argument('out', nargs='?', type=Path, default=Path('data/deepglobe'))
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
    benchmark = Benchmark('deepglobe', CLASSES, 1, (tuple(range(1, len(CLASSES) + 1)),), 1)
    options = dict(unknown=args.unknown, grid=GRID, min_share=MIN_SHARE)
    begin(args.out, dict(benchmark='deepglobe', **options))
    unknown = IGNORED if args.unknown == 'ignored' else 0
    cut = partial(cut_picture, root=root, out=args.out, unknown=unknown)
    tally = run(cut, ids, 'DeepGlobe', args.workers)
    entries = tile_entries(tally)
    source = dict(root=str(root.resolve()), pictures=len(ids), **options)
    write_description(
        args.out, benchmark, 'label_maps', args.out / 'images', {'test': entries}, source
    )
    return '\n'.join(
        [
            f'DeepGlobe: {len(entries)} of {GRID * GRID * len(ids)} tiles of {len(ids)} images '
            f'({tally}); {args.out}',
            f'  tiles with {class_counts(tally, CLASSES, 1)}',
        ]
    )


def cut_picture(picture: str, root: Path, out: Path, unknown: int) -> Done:
    """Write the tiles of more than one class in which none has :data:`MIN_SHARE` or less."""
    image, mask = root / f'{picture}_sat.jpg', root / f'{picture}_mask.png'
    codes = {colour: label for label, colour in enumerate(COLOURS.values(), 1)} | {UNKNOWN: unknown}

    def choose(labels: np.ndarray) -> list[Tile]:
        tiles = []
        for i, (top, bottom, left, right) in enumerate(grid_boxes(labels.shape, GRID)):
            part = labels[top:bottom, left:right]
            counts = np.unique(part, return_counts=True)[1]
            if len(counts) > 1 and counts.min() / part.size > MIN_SHARE:
                name = f'{picture}_{i // GRID}{i % GRID}'
                tiles.append(Tile(name, (top, bottom, left, right)))
        return tiles

    def labels() -> np.ndarray:
        return coded_mask(mask, codes, image_size(image), round_to=255)

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
