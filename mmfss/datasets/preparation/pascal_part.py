"""PASCAL-Part: 56 parts of objects in 4 folds, cut out object by object.

Reads ROOT/VOC2010/JPEGImages and ImageSets/Main/{train,val}.txt, and Annotations_Part/<image>.mat
in ROOT or ROOT/VOC2010; writes a picture per object, class masks, lists and dataset.json to OUT.
See docs/datasets/pascal_part.md.
"""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path

import numpy as np

from mmfss.datasets.folds import Benchmark
from mmfss.datasets.preparation.class_masks import novel_lines, save_class_masks
from mmfss.datasets.preparation.jobs import Done
from mmfss.datasets.preparation.recipe import Areas, Recipe, add_folders, make
from mmfss.datasets.preparation.sources import (
    check_size,
    find_folder,
    image_size,
    need_scipy,
    read_mat,
    read_names,
)
from mmfss.datasets.preparation.tiles import Box

_SIDES = ('frontside', 'leftside', 'rightside', 'backside', 'roofside')
_LEG = 'lleg', 'uleg', 'leg'
MERGED: dict[str, tuple[str, ...]] = {
    'face': (
        *('beak', 'hair', 'head', 'nose', 'lear', 'lebrow', 'leye', 'mouth'),
        *('rear', 'rebrow', 'reye'),
    ),
    'leg': (
        *(f'{side}{part}' for side in 'lr' for part in (*_LEG, 'foot')),
        *(f'{side}{end}{part}' for side in 'lr' for end in 'bf' for part in (*_LEG, 'ho')),
    ),
    'neck': ('neck',),
    'armhand': tuple(f'{side}{part}' for side in 'lr' for part in ('hand', 'larm', 'uarm')),
    'tail': ('tail',),
    'torso': ('torso',),
    'wings': ('lwing', 'rwing'),
    'body': ('body',),
    'plant': ('plant',),
    'pot': ('pot',),
    'screen': ('screen',),
    'engine': ('engine',),
    'wheel': ('bwheel', 'chainwheel', 'fwheel', 'wheel'),
    'door': ('door',),
    'vehicle_side': _SIDES,
    'windows': ('window',),
    'train_coach': ('coach', *(f'c{side}' for side in _SIDES)),
    'train_head': tuple(f'h{side}' for side in _SIDES),
}
"""Merged part -> the parts of PASCAL-Part in it, without their numbers (``wheel_3``); others
(muzzles, paws, horns, saddles, mirrors, plates, headlights, caps, sterns) are left out."""

_ANIMAL = ('face', 'leg', 'neck', 'tail', 'torso')
_VEHICLE = ('door', 'vehicle_side', 'wheel', 'windows')
FOLDS: dict[str, dict[str, tuple[str, ...]]] = {
    'animals': {
        'bird': (*_ANIMAL, 'wings'),
        **dict.fromkeys(('cat', 'cow', 'dog', 'horse', 'sheep'), _ANIMAL),
    },
    'indoor': {'bottle': ('body',), 'pottedplant': ('plant', 'pot'), 'tvmonitor': ('screen',)},
    'person': {'person': ('armhand', 'face', 'leg', 'neck', 'torso')},
    'vehicles': {
        'aeroplane': ('body', 'engine', 'wheel', 'wings'),
        'bicycle': ('wheel',),
        'bus': _VEHICLE,
        'car': _VEHICLE,
        'motorbike': ('wheel',),
        'train': ('train_coach', 'train_head'),
    },
}
"""Fold -> object -> its merged parts: 31 + 4 + 5 + 16 classes."""

CLASSES = tuple(
    f'{name}:{part}' for objects in FOLDS.values() for name in objects for part in objects[name]
)
_IDS = {name: i for i, name in enumerate(CLASSES, 1)}
_MERGED_OF = {part: name for name, parts in MERGED.items() for part in parts}
SPLITS = 'train', 'val'
_VOC = 'unpack VOCtrainval_03-May-2010.tar: ROOT is its VOCdevkit'
_PARTS = 'unpack trainval.tar.gz of PASCAL-Part (Annotations_Part) in ROOT'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the download and the output are, which splits."""
    add_folders(parser, 'VOCdevkit with VOC2010', 'pascal_part')
    parser.add_argument('--splits', nargs='+', choices=SPLITS, default=list(SPLITS))


def prepare(args: argparse.Namespace) -> str:
    """Write the pictures and masks that are not there, and the lists; a summary in words.

    Raises:
        FileNotFoundError, ValueError: No download, annotations that are missing, damaged or of
            another size than their image; scipy is not installed.
    """
    need_scipy()
    voc = find_folder(args.root / 'VOC2010', _VOC)
    places = [folder / 'Annotations_Part' for folder in (args.root, voc)]
    parts = find_folder(next((place for place in places if place.is_dir()), places[0]), _PARTS)
    novel = tuple(
        tuple(_IDS[f'{name}:{part}'] for name in objects for part in objects[name])
        for objects in FOLDS.values()
    )
    recipe = Recipe(
        title='PASCAL-Part {}',
        benchmark=Benchmark('pascal-part', CLASSES, len(FOLDS), novel, 1),
        kind='class_masks',
        images=args.out / 'images',
        jobs={s: read_names(voc / 'ImageSets/Main' / f'{s}.txt') for s in args.splits},
        job=partial(cut_objects, images=voc / 'JPEGImages', parts=parts, out=args.out),
        options=dict(classes=list(CLASSES)),
        source={},
    )
    made = make(recipe, args.root, args)
    return '\n'.join(
        [
            f'PASCAL-Part: {len(CLASSES)} parts; {args.out}',
            *(
                f'  {split}: {len(one.images)} objects with a part in {len(recipe.jobs[split])} '
                f'images; files {one.tally}'
                for split, one in made.items()
            ),
            *novel_lines(recipe.benchmark, made),
        ]
    )


def cut_objects(name: str, images: Path, parts: Path, out: Path) -> Done:
    """Cut the objects of an image that have a part of :data:`CLASSES`, by the box of their mask.

    Raises:
        FileNotFoundError, ValueError: Image or annotation missing, damaged or of another size.
    """
    image, file = images / f'{name}.jpg', parts / f'{name}.mat'
    shape = image_size(image)
    written = kept = 0
    found: dict[str, Areas] = {}
    for i, (kind, silhouette, drawn) in enumerate(read_objects(file), 1):
        check_size(silhouette, file, shape)
        masks: dict[int, list[np.ndarray]] = {}
        for part, mask in drawn:
            check_size(mask, file, shape)
            merged = _MERGED_OF.get(re.sub(r'_\d+$', '', part))
            class_id = _IDS.get(f'{kind}:{merged}')
            if class_id is not None:
                masks.setdefault(class_id, []).append(mask)
        if not masks or not silhouette.any():
            continue
        paint = {class_id: partial(np.logical_or.reduce, rows) for class_id, rows in masks.items()}
        box = bounding_box(silhouette)
        done = save_class_masks(image, f'{name}_{i}.png', paint, box, out, file)
        written, kept = written + done.written, kept + done.kept
        found |= {image: areas for image, areas in done.result.items() if areas}
    return Done(written, kept, found)


def bounding_box(mask: np.ndarray) -> Box:
    """(top, bottom, left, right) of a mask that has a pixel. As in Matcher the last row and column
    are outside, where that leaves any."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    return top, max(int(rows[-1]), top + 1), left, max(int(columns[-1]), left + 1)


def read_objects(file: Path) -> list[tuple[str, np.ndarray, list[tuple[str, np.ndarray]]]]:
    """``(class, silhouette, [(part, mask)])`` of each object; masks are bool (height, width).

    Raises:
        FileNotFoundError: No such file. ValueError: It is cut off or of another structure.
    """

    def read(content: dict) -> list[tuple[str, np.ndarray, list[tuple[str, np.ndarray]]]]:
        return [
            (
                str(one['class'][0]),
                _mask(one['mask']),
                [(str(part['part_name'][0]), _mask(part['mask'])) for part in one['parts'].ravel()],
            )
            for one in content['anno'][0, 0]['objects'].ravel()
        ]

    if not file.is_file():
        raise FileNotFoundError(f'annotation not found: {file}; {_PARTS}')
    return read_mat(file, read, 'anno.objects as PASCAL-Part has', 'trainval.tar.gz')


def _mask(values: np.ndarray) -> np.ndarray:
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f'a mask must be integers of two dimensions, got {values.dtype}')
    return values > 0
