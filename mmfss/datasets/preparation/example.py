"""An example for labelling: a few marked images of three classes, a folder of others, the truth.

Generated like Shapes-5i, from another seed, so no picture is one that the model of the demo was
trained or tested on. The classes are three that fold 0 holds out of training. Writes::

    OUT/support/<class>/images/*.png, masks/*.png    2, 3 and 5 supports
    OUT/images/*.png                                 pictures to label; some show none of the three
    OUT/masks/*.png                                  their labels: 1..3 in the order of the names
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mmfss.configs import DEMO_CONFIG
from mmfss.datasets.classes import SHAPES_CLASSES
from mmfss.datasets.io import save_png
from mmfss.datasets.shapes_scenes import render_sample, scene_classes
from mmfss.files import write_text

SEQUENTIAL = True
SHOTS = {'crescent': 2, 'ring': 3, 'star': 5}
"""Supports of each class, in the order of their labels 1..3."""
MANIFEST, _BEGUN = 'example.json', '.example.begun.json'
_MIN_AREA = 0.03
"""Share of the picture that a supported object has at least."""
_ABSENT = 0.3
"""Part of the pictures that show none of the classes."""


@dataclass(frozen=True)
class Example:
    """What to generate; equal ones give equal pixels.

    Args:
        images: number of pictures to label.
        seed: any integer >= 0; 0 is that of the benchmark.
        image_size: side in pixels, 32..1024.
    """

    images: int = 200
    seed: int = 4
    image_size: int = 128

    def __post_init__(self) -> None:
        limits = dict(images=(1, 99999), seed=(0, 2**32 - 1), image_size=(32, 1024))
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f'{name} must be from {low} to {high}, got {value}')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to write, how much."""
    parser.add_argument('out', nargs='?', default='data/example', type=Path, help='folder')
    for name, value in asdict(Example()).items():
        option = f'--{name.replace("_", "-")}'
        parser.add_argument(option, type=int, default=value, metavar='N', help=f'default {value}')


def prepare(args: argparse.Namespace) -> str:
    """Generate what is not there; a summary in words.

    Raises:
        ValueError: A number is out of range, or the folder holds something else.
    """
    example = Example(args.images, args.seed, args.image_size)
    made = write_example(args.out, example)
    shots = ', '.join(f'{k} of {name}' for name, k in SHOTS.items())
    return (
        f'{args.out}: {"made" if made else "complete already, left as it was"}\n'
        f'  supports: {shots}; {example.images} pictures to label\n'
        f'  mmfss label {args.out}/support {args.out}/images {args.out}/labelled'
        f' --config {DEMO_CONFIG}'
    )


def write_example(out: Path, example: Example) -> bool:
    """Generate the example; returns whether anything had to be made.

    Raises:
        ValueError: The folder is not empty and was made from other numbers, or not by this.
    """
    text = json.dumps(dict(asdict(example), shots=SHOTS), indent=2) + '\n'
    manifest = out / MANIFEST
    if manifest.is_file() and manifest.read_text(encoding='utf-8') == text:
        return False
    if out.exists() and (not out.is_dir() or manifest.is_file() or _others(out, text)):
        raise ValueError(
            f'{out} holds something else, or an example of other numbers; choose another folder, '
            'or remove it'
        )
    write_text(out / _BEGUN, text)
    labels = [SHAPES_CLASSES.index(name) + 1 for name in SHOTS]
    for name, index in _supports(example):
        image, label = render_sample(example.seed, 'train', index, example.image_size)
        mask = (label == SHAPES_CLASSES.index(name) + 1).astype(np.uint8)
        folder = out / 'support' / name
        save_png(folder / 'images' / f'{index:05d}.png', image[..., ::-1])
        save_png(folder / 'masks' / f'{index:05d}.png', mask * 255)
    for number, index in enumerate(_pictures(example, set(labels))):
        image, label = render_sample(example.seed, 'val', index, example.image_size)
        truth = np.zeros_like(label)
        truth[label == 255] = 255
        for value, class_id in enumerate(labels, 1):
            truth[label == class_id] = value
        save_png(out / 'images' / f'{number:05d}.png', image[..., ::-1])
        save_png(out / 'masks' / f'{number:05d}.png', truth)
    (out / _BEGUN).replace(manifest)
    return True


def _others(out: Path, text: str) -> bool:
    """Whether there is anything but what an interrupted run of the same numbers leaves."""
    begun = out / _BEGUN
    if begun.is_file() and begun.read_text(encoding='utf-8') == text:
        return False
    return any(not path.name.startswith(f'.{_BEGUN}.') for path in out.iterdir())


def _supports(example: Example) -> Iterator[tuple[str, int]]:
    """(class, index of the picture): the first ones that show enough of it, none for two."""
    used: set[int] = set()
    for name, shots in SHOTS.items():
        class_id, found, index = SHAPES_CLASSES.index(name) + 1, 0, -1
        while found < shots:
            index += 1
            if index in used or class_id not in scene_classes(example.seed, 'train', index):
                continue
            label = render_sample(example.seed, 'train', index, example.image_size)[1]
            if (label == class_id).mean() >= _MIN_AREA:
                used.add(index)
                found += 1
                yield name, index


def _pictures(example: Example, classes: set[int]) -> Iterator[int]:
    """Indices of the pictures to label, those without any of the classes spread among them."""
    without, index = 0, -1
    for number in range(example.images):
        empty = round((number + 1) * _ABSENT) > without
        while True:
            index += 1
            if bool(classes & set(scene_classes(example.seed, 'val', index))) != empty:
                break
        without += empty
        yield index
