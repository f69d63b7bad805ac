"""A generated fold like one of PASCAL-5i: M test images, and M training images, in VOC's layout.

Photos are JPEG files of PASCAL's size, of noise with a rectangle that is the object, of one class
each; 'shapes' are pictures of Shapes-5i (PNG). Episodes walk the image list, as published.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmseg.registry import DATASETS

from mmfss.configs import find_config
from mmfss.datasets.episodes import EpisodicDataset
from mmfss.datasets.folds import get_split
from mmfss.datasets.shapes import SHAPES_MIN_AREA
from mmfss.datasets.shapes_scenes import render_sample
from mmfss.files import atomic, write_text

PICTURES = ('photos', 'shapes')
_PER_CLASS = 6  # a class needs K + 1 images, for K up to 5
_SPLITS = {'val': 'novel', 'train': 'base'}
_PIPELINES = 'fss_sam2_pascal_1shot'  # whose transforms are taken


@dataclass(frozen=True)
class FoldSpec:
    """What to generate.

    Args:
        images: of each split, >= 2.
        kind: out of ``PICTURES``.
        width, height: of photos; the side of shapes is ``height``.
        per_class: the least number of photos of a class: K + 1.
        seed: of the pictures.
    """

    images: int = 12
    kind: str = 'photos'
    width: int = 500
    height: int = 375
    per_class: int = _PER_CLASS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in PICTURES:
            raise ValueError(f'--pictures must be one of {list(PICTURES)}, got {self.kind!r}')
        if self.images < self.per_class:
            raise ValueError(
                f'--images must be >= {self.per_class}, as a class needs K + 1 images, got '
                f'{self.images}'
            )

    @staticmethod
    def asked(args: argparse.Namespace, side: int, images: int, per_class: int) -> FoldSpec:
        """What the options of a benchmark ask for; ``side`` is that of the model's images."""
        width, height = args.photo_size
        if args.pictures == 'shapes':
            width = height = min(1024, side)
        return FoldSpec(images, args.pictures, width, height, per_class, args.seed)

    @property
    def benchmark(self) -> str:
        """Name of the benchmark whose folds and classes the pictures have."""
        return 'pascal-5i' if self.kind == 'photos' else 'shapes-5i'

    @property
    def min_area(self) -> int:
        """Pixels from which on a class counts."""
        if self.kind == 'shapes':
            return max(16, SHAPES_MIN_AREA * self.height**2 // 128**2)
        return max(16, min(2048, self.width * self.height // 32))


def write_fold(root: str | Path, spec: FoldSpec) -> Path:
    """Generate the pictures under ``root`` and return their folder; nothing is done twice."""
    name = '_'.join(str(value) for value in asdict(spec).values())
    folder = Path(root) / f'fold_{name}'
    done = folder / 'done.json'
    if done.is_file():
        return folder
    split = get_split(spec.benchmark, 0)
    for place, (part, role) in enumerate(_SPLITS.items()):
        make = photos if spec.kind == 'photos' else shapes
        names = []
        for name, suffix, image, label in make(part, place, split.ids(role), spec):
            for sub, ending, pixels in (
                ('JPEGImages', suffix, image),
                ('SegmentationClassAug', '.png', label),
            ):
                encoded, content = cv2.imencode(ending, pixels)
                if not encoded:
                    raise OSError(f'OpenCV could not encode {name}{ending}')
                with atomic(folder / sub / f'{name}{ending}') as file:
                    file.write_bytes(content.tobytes())
            names.append(name)
        write_text(folder / f'ImageSets/Segmentation/{part}.txt', '\n'.join(names) + '\n')
    write_text(done, json.dumps(asdict(spec)) + '\n')
    return folder


Picture = tuple[str, str, np.ndarray, np.ndarray]
"""Name, ending of the file, image, label."""


def photos(part: str, place: int, classes: tuple[int, ...], spec: FoldSpec) -> Iterator[Picture]:
    """Of as many of the classes as get ``per_class`` photos."""
    shown = classes[: max(1, min(len(classes), spec.images // spec.per_class))]
    for i in range(spec.images):
        rng = np.random.default_rng([spec.seed, place, i])
        yield f'{part}_{i:05d}', '.jpg', *photo(rng, spec, shown[i % len(shown)])


def photo(rng: np.random.Generator, spec: FoldSpec, class_id: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (H, W, 3) BGR of noise with a brighter rectangle, and its label uint8 (H, W)."""
    height, width = spec.height, spec.width
    coarse = rng.integers(0, 160, (max(2, height // 20), max(2, width // 20), 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    image += rng.integers(0, 24, image.shape, dtype=np.int16)
    tall, wide = (int(rng.integers(side // 3, side // 2 + 1)) for side in (height, width))
    top, left = int(rng.integers(0, height - tall)), int(rng.integers(0, width - wide))
    label = np.zeros((height, width), np.uint8)
    label[top : top + tall, left : left + wide] = class_id
    image[label > 0] += np.array([90, 40, 10], np.int16)
    label[-3:] = 255
    return image.clip(0, 255).astype(np.uint8), label


def shapes(part: str, place: int, classes: tuple[int, ...], spec: FoldSpec) -> Iterator[Picture]:
    """Pictures that show one of the classes (of 'base': none of the others)."""
    found = 0
    for i in range(1000 * spec.images):
        image, label = render_sample(spec.seed, part, i, spec.height)
        areas = np.bincount(label.ravel(), minlength=256)
        qualifies = any(areas[c] >= spec.min_area for c in classes)
        others = part == 'train' and any(areas[c] for c in range(1, 21) if c not in classes)
        if qualifies and not others:
            yield f'{part}_{i:05d}', '.png', image, label
            found += 1
        if found == spec.images:
            return


def pipelines(side: int, training: bool = False) -> tuple[list[dict], list[dict]]:
    """Transforms of queries and supports at side S, those of the PASCAL-5i config."""
    cfg = Config.fromfile(find_config(_PIPELINES))
    dataset = (cfg.train_dataloader if training else cfg.test_dataloader).dataset.to_dict()
    out = dataset['query_pipeline'], dataset['support_pipeline']
    for step in (*out[0], *out[1]):
        if step['type'] == 'Resize':
            step['scale'] = (side, side)
        elif step['type'] == 'RandomResize':
            step['scale'] = (side * 500 // 512,) * 2
        elif step['type'] == 'RandomCropKeepObject':
            step['crop_size'] = side
    return out


def episodes_config(
    root: str | Path, spec: FoldSpec, side: int, shots: int, number: int, training: bool = False
) -> dict[str, Any]:
    """Config of the episodes of a generated fold, which is written if it is not there.

    Args:
        root, spec: of :func:`write_fold`.
        side: S of the model.
        shots, number: K, and how many episodes.
        training: augmented ones of the base classes, instead of those of a test.
    """
    query, support = pipelines(side, training)
    part = 'train' if training else 'val'
    kind = 'PascalVOCFewShot' if spec.kind == 'photos' else 'ShapesDataset'
    return dict(
        type='EpisodicDataset',
        benchmark=spec.benchmark,
        fold=0,
        split=_SPLITS[part],
        shots=shots,
        num_episodes=number,
        sampler='image_list',
        min_area=spec.min_area,
        scarce_classes='drop',
        query_pipeline=query,
        support_pipeline=support,
        class_index_file=None,
        dataset=dict(
            type=kind,
            data_root=str(write_fold(root, spec)),
            ann_file=f'ImageSets/Segmentation/{part}.txt',
        ),
    )


def episodes_of(
    root: str | Path, spec: FoldSpec, side: int, shots: int, number: int,
    training: bool = False, **options: Any,
) -> EpisodicDataset:  # fmt: skip
    """The episodes of :func:`episodes_config`, with further arguments of
    :class:`mmfss.datasets.episodes.EpisodicDataset`."""
    config = episodes_config(root, spec, side, shots, number, training)
    return DATASETS.build({**config, **options})
