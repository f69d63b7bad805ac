"""Shapes-5i, a generated benchmark: 20 classes in 4 folds.

Nothing is downloaded; every picture follows from the seed. Writes OUT/JPEGImages,
OUT/SegmentationClassAug, OUT/ImageSets/Segmentation/{train,val}.txt and OUT/shapes5i.json.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import fields

from mmfss.datasets.folds import get_split
from mmfss.datasets.shapes import ShapesSpec, fold_counts, write_shapes

SEQUENTIAL = True
_MEANING = dict(
    seed='every picture follows from it',
    train='training images',
    val='test images',
    image_size='side in pixels',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to write, and the fields of :class:`ShapesSpec`."""
    parser.add_argument('out', nargs='?', default='data/shapes5i', help='directory to write to')
    for field in fields(ShapesSpec):
        parser.add_argument(
            f'--{field.name.replace("_", "-")}',
            type=int,
            default=field.default,
            metavar='N',
            help=f'{_MEANING[field.name]} (default {field.default})',
        )


def prepare(args: argparse.Namespace) -> str:
    """Generate what is not there; a summary in words.

    Raises:
        ValueError: A number is out of range, or the directory holds something else.
    """
    start = time.time()
    spec = ShapesSpec(**{field.name: getattr(args, field.name) for field in fields(ShapesSpec)})
    made = write_shapes(args.out, spec)
    what = f'made in {time.time() - start:.0f} s' if made else 'complete already, left as it was'
    lines = [
        f'Shapes-5i (seed {spec.seed}, {spec.image_size} px): {args.out} {what}',
        f'  {spec.train} training and {spec.val} test images',
    ]
    for fold in range(4):
        novel = get_split('shapes-5i', fold).novel
        train, test = (fold_counts(args.out, split, novel) for split in ('train', 'val'))
        lines.append(
            f'  fold {fold}: {train.without} training images without its novel classes, '
            f'{test.qualifying} test images with one of them; fewest per class: '
            f'{train.fewest_base} to train, {test.fewest_novel} to test'
        )
    return '\n'.join(lines)
