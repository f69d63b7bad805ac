"""Paint the masks of COCO 2014: ``python tools/dataset_converters/coco_masks.py DATA_ROOT``.

Reads DATA_ROOT/annotations/instances_<split>.json and writes, for every image in it that is in
DATA_ROOT/<split>, DATA_ROOT/annotations/<split>/<image name>.png: 8-bit grey, 0 background,
1..80 the classes in the order of their category ids, 255 crowds. Smaller instances lie on larger
ones, and all of them on crowds. Complete masks are left, so an interrupted run can be resumed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections import defaultdict
from contextlib import suppress
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmfss.datasets.class_names import COCO_CLASSES
from mmfss.datasets.io import read_mask

SPLITS, CROWD = ['train2014', 'val2014'], 255


def decode(annotation: dict, height: int, width: int) -> np.ndarray:
    """bool (height, width) of an annotation: polygons, or a run-length code.

    Raises:
        ValueError: the code is of another size than the image.
    """
    from pycocotools import mask as coder

    shape = annotation['segmentation']
    if isinstance(shape, list):
        polygons = [p for p in shape if len(p) >= 6]  # fewer than three points enclose nothing
        if not polygons:
            return np.zeros((height, width), bool)
        code = coder.merge(coder.frPyObjects(polygons, height, width))
    else:
        if list(shape['size']) != [height, width]:
            raise ValueError(
                f'annotation {annotation.get("id")} is {shape["size"]} pixels (height, width), its '
                f'image [{height}, {width}]; download the annotations again'
            )
        packed = isinstance(shape['counts'], (str, bytes))
        code = shape if packed else coder.frPyObjects(shape, height, width)
    return coder.decode(code).astype(bool)


def paint(annotations: list[dict], labels: dict[int, int], height: int, width: int) -> np.ndarray:
    """The label mask of an image, uint8 (height, width): crowds, then from large to small."""
    mask = np.zeros((height, width), np.uint8)
    parts = []
    for annotation in annotations:
        area = decode(annotation, height, width)
        crowd = bool(annotation.get('iscrowd', 0))
        value = CROWD if crowd else labels[annotation['category_id']]
        parts.append((not crowd, -int(np.count_nonzero(area)), annotation['id'], value, area))
    for *_, value, area in sorted(parts, key=lambda part: part[:3]):
        mask[area] = value
    return mask


def make(job: tuple[Path, dict, list[dict]], labels: dict[int, int]) -> bool:
    """Write one mask where it is not complete; whether it was written."""
    path, image, annotations = job
    height, width = image['height'], image['width']
    with suppress(FileNotFoundError, ValueError):  # none yet, or half of one
        if read_mask(path).shape == (height, width):
            return False
    partial_file = path.with_name(f'.{path.name}.{os.getpid()}')
    Image.fromarray(paint(annotations, labels, height, width)).save(partial_file, 'PNG')
    os.replace(partial_file, path)
    return True


def read_instances(file: Path) -> tuple[dict[int, int], list[dict], dict[int, list[dict]]]:
    """Labels by category id, images, and annotations by image id.

    Raises:
        FileNotFoundError, ValueError: no file, or not the instances of COCO's 80 categories.
    """
    remedy = 'download annotations_trainval2014.zip of COCO and unpack it in DATA_ROOT'
    if not file.is_file():
        raise FileNotFoundError(f'annotations not found: {file}; {remedy}')
    try:
        content = json.loads(file.read_text())
        categories = sorted(content['categories'], key=lambda category: category['id'])
        images, annotations = content['images'], content['annotations']
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{file} is no file of COCO instances ({error!r}); {remedy}') from error
    names = tuple(category['name'] for category in categories)
    if names != COCO_CLASSES:
        raise ValueError(
            f'{file} must have the 80 categories of COCO 2014, person to toothbrush, got '
            f'{len(names)}: {", ".join(names[:3])}, ...; {remedy}'
        )
    of_image = defaultdict(list)
    for annotation in annotations:
        of_image[annotation['image_id']].append(annotation)
    return {c['id']: i for i, c in enumerate(categories, 1)}, images, of_image


def convert(root: Path, split: str, workers: int | None) -> str:
    """Paint a split's masks; a summary in words."""
    out = root / 'annotations' / split
    labels, images, of_image = read_instances(out.with_name(f'instances_{split}.json'))
    there = [image for image in images if (root / split / image['file_name']).is_file()]
    if not there:
        raise FileNotFoundError(
            f'none of the {len(images)} images of {split} is in {root / split}; unpack {split}.zip'
        )
    out.mkdir(exist_ok=True)
    jobs = [(out / f'{Path(i["file_name"]).stem}.png', i, of_image.get(i['id'], [])) for i in there]
    with ThreadPool(workers) as pool:  # encoding, most of the work, runs in parallel
        done = pool.imap_unordered(partial(make, labels=labels), jobs)
        made = sum(tqdm(done, split, len(jobs)))
    absent = len(images) - len(there)
    counts = f'{made} masks painted, {len(jobs) - made} complete already'
    return f'{split}: {counts}, {absent} images not in {root / split}; masks in {out}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data_root', type=Path, help='holds train2014, val2014 and annotations')
    parser.add_argument('--splits', nargs='+', default=SPLITS, choices=SPLITS)
    parser.add_argument('--workers', type=int, help='processes (default: one a core)')
    args = parser.parse_args()
    if importlib.util.find_spec('pycocotools') is None:
        sys.exit('error: pycocotools is not installed; pip install -r requirements/tools.txt')
    try:
        for split in args.splits:
            print(convert(args.data_root, split, args.workers))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
