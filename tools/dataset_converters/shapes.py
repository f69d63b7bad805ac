"""Generate Shapes-5i: ``python tools/dataset_converters/shapes.py [OUT]`` (data/shapes5i)."""

import argparse
import importlib.util
import sys
import time
from dataclasses import fields
from pathlib import Path

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmfss.datasets.folds import get_split
from mmfss.datasets.shapes import ShapesSpec, fold_counts, write_shapes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', nargs='?', default='data/shapes5i', help='directory to write to')
    meaning = dict(
        seed='every picture follows from it',
        train='training images',
        val='test images',
        image_size='side in pixels',
    )
    for field in fields(ShapesSpec):
        parser.add_argument(
            f'--{field.name.replace("_", "-")}',
            type=int,
            default=field.default,
            help=f'{meaning[field.name]} (default {field.default})',
        )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    start = time.time()
    try:
        spec = ShapesSpec(**{field.name: getattr(args, field.name) for field in fields(ShapesSpec)})
        made = write_shapes(args.out, spec)
    except ValueError as error:
        sys.exit(f'error: {error}')
    what = f'made in {time.time() - start:.0f} s' if made else 'complete already, left as it was'
    print(f'Shapes-5i (seed {spec.seed}, {spec.image_size} px): {args.out} {what}')
    print(f'  {spec.train} training and {spec.val} test images')
    for fold in range(4):
        novel = get_split('shapes-5i', fold).novel
        train, test = (fold_counts(args.out, split, novel) for split in ('train', 'val'))
        print(
            f'  fold {fold}: {train.without} training images without its novel classes, '
            f'{test.qualifying} test images with one of them; fewest per class: '
            f'{train.fewest_base} to train, {test.fewest_novel} to test'
        )


if __name__ == '__main__':
    main()
