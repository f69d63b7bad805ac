"""EpisodicDataset: few-shot episodes out of any segmentation dataset."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.logging import print_log
from mmseg.registry import DATASETS, TRANSFORMS
from torch.utils.data import Dataset

from mmfss.datasets.class_index import ClassIndex, build_class_index
from mmfss.datasets.folds import get_benchmark, get_split
from mmfss.datasets.sampling import (
    Episode,
    ImageListSampler,
    build_pool,
    check_pool,
    drop_scarce,
)
from mmfss.datasets.segmentation import image_files
from mmfss.datasets.transforms import pack_episode

_AUGMENT = 3  # stream of random numbers of the pipelines, beside those of the sampler
_REDRAWS = 10


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Set the CPU random states of Python, NumPy and torch from a key; restore them after."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    seeds = np.random.SeedSequence(key).generate_state(3)
    try:
        random.seed(int(seeds[0]))
        np.random.seed(int(seeds[1]))
        torch.default_generator.manual_seed(int(seeds[2]))
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def _integer(name: str, value: object, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f'{name} must be an integer >= {low}, got {value!r}')
    return int(value)


def _one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise ValueError(f'{name} must be one of {list(allowed)}, got {value!r}')


@DATASETS.register_module()
class EpisodicDataset(Dataset):
    """K-shot episodes of one fold. Episode i, its augmentation included, depends on (seed, i)
    alone: not on the number of workers, ranks, the batch size or what was read before.

    The images are those of ``dataset`` with at least one class of the split that covers
    ``min_area`` pixels; see :class:`mmfss.datasets.sampling.ImageListSampler` for the draw.
    A run that should see new episodes throughout takes ``num_episodes`` for the whole run and
    a sampler that walks them once, not an epoch of a few that is repeated.

    Args:
        dataset: Config of a segmentation dataset (or the object) whose classes are
            'background' and the benchmark's; its own pipeline is not used.
        benchmark: Name in :data:`mmfss.datasets.folds.BENCHMARKS`.
        fold: Fold, an int or digits.
        split: 'base' draws from the training classes, 'novel' from the held-out ones.
        shots: K >= 1.
        num_episodes: Length; None for one pass over the images.
        seed: Integer >= 0.
        query_pipeline, support_pipeline: Transforms of an image, from ``LoadImage`` on.
        min_area: Pixels from which on a class counts; None takes the benchmark's.
        exclude_novel_images: Leave out images with any pixel of a held-out class; None does
            so for split='base'.
        shuffle: Random order of queries, a new one each pass; None does so for split='base'.
        scarce_classes: What to do with classes of 1..K images: 'error', or 'drop' them.
        class_index_file: JSON cache of the class areas; 'auto' puts it beside the mask
            folder, None keeps none.
        lazy_init: Read nothing before :meth:`full_init`.

    Raises:
        ValueError: An argument out of range; classes that are not the benchmark's; no image
            or too few images of a class. FileNotFoundError: the data are not there. Reading
            an item raises the error of its image or mask, with the path: nothing is retried.
    """

    def __init__(
        self,
        dataset: dict | Dataset,
        benchmark: str,
        fold: int | str,
        split: str,
        shots: int,
        query_pipeline: Sequence,
        support_pipeline: Sequence,
        num_episodes: int | None = None,
        seed: int = 0,
        min_area: int | None = None,
        exclude_novel_images: bool | None = None,
        shuffle: bool | None = None,
        scarce_classes: str = 'error',
        class_index_file: str | None = 'auto',
        lazy_init: bool = False,
    ) -> None:
        _one_of('split', split, ('base', 'novel'))
        _one_of('scarce_classes', scarce_classes, ('error', 'drop'))
        self.split = get_split(benchmark, fold)
        self.role = split
        self.shots = _integer('shots', shots, 1)
        self.seed = _integer('seed', seed, 0)
        self.min_area = (
            get_benchmark(benchmark).min_area
            if min_area is None
            else _integer('min_area', min_area, 1)
        )
        self.num_episodes = (
            None if num_episodes is None else _integer('num_episodes', num_episodes, 1)
        )
        training = split == 'base'
        self.exclude_novel_images = (
            training if exclude_novel_images is None else exclude_novel_images
        )
        self.shuffle = training if shuffle is None else shuffle
        self.scarce_classes, self.class_index_file = scarce_classes, class_index_file
        self.query_pipeline = _compose(query_pipeline)
        self.support_pipeline = _compose(support_pipeline)
        self._source = dataset
        self.index: ClassIndex | None = None
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """Classes, palette, benchmark, fold, role and the split, in plain Python types.

        mmengine stores this in checkpoints, which are loaded without unpickling classes;
        :meth:`mmfss.datasets.folds.FoldSplit.from_dict` makes a FoldSplit of ``split``.
        """
        self.full_init()
        return dict(
            classes=('background', *self.split.classes),
            palette=self._palette,
            benchmark=self.split.benchmark,
            fold=self.split.fold,
            role=self.role,
            shots=self.shots,
            split=self.split.to_dict(),
        )

    def full_init(self) -> None:
        """Read the image list and the class index; does nothing the second time."""
        if self.index is not None:
            return
        dataset = self._source
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        dataset.full_init()
        self._check_classes(dataset)
        self._palette = dataset.metainfo.get('palette')
        self._files = image_files(dataset)
        self.index = build_class_index(
            {image: paths[1] for image, paths in self._files.items()},
            len(self.split.classes),
            self._cache_file(dataset),
        )
        self._source = dataset
        self._draw = ImageListSampler(self._pool(dataset), self.shots, self.seed, self.shuffle)

    def _check_classes(self, dataset: Dataset) -> None:
        expected = ('background', *self.split.classes)
        found = tuple(dataset.metainfo.get('classes') or ())
        if found != expected or dataset.metainfo.get('reduce_zero_label'):
            raise ValueError(
                f'{self.split.benchmark} needs a dataset with background and its '
                f'{len(self.split.classes)} classes ({", ".join(expected[:3])}, ...) in label '
                f'order, got {type(dataset).__name__} with {len(found)} classes '
                f'({", ".join(found[:3])}, ...); choose the dataset type of the benchmark'
            )

    def _cache_file(self, dataset: Dataset) -> Path | None:
        if self.class_index_file != 'auto':
            return None if self.class_index_file is None else Path(self.class_index_file)
        masks = Path(os.path.abspath(dataset.data_prefix['seg_map_path']))
        images = Path(dataset.ann_file).stem or 'all'
        return masks.parent / f'class_index_{masks.name}_{images}.json'

    def _pool(self, dataset: Dataset):
        classes = self.split.ids(self.role)
        excluded = self.split.novel if self.exclude_novel_images else ()
        source = dataset.ann_file or dataset.data_prefix['img_path']
        pool = build_pool(self.index, classes, self.min_area, excluded)
        if self.scarce_classes == 'drop':
            pool = drop_scarce(self.index, classes, self.min_area, excluded, self.shots)
        check_pool(pool, self.split, self.role, self.shots, self.min_area, source)
        absent = [self.split.name(c) for c in classes if not pool.images_of.get(c)]
        if absent:
            print_log(
                f'{source}: no {self.shots}-shot episodes of the {self.role} classes '
                f'{", ".join(absent)} (too few images)',
                'current',
                logging.WARNING,
            )
        return pool

    @property
    def num_images(self) -> int:
        """Images that can be a query: the episodes of one pass over the list."""
        self.full_init()
        return len(self._draw.pool.images)

    def __len__(self) -> int:
        return self.num_episodes or self.num_images

    def episode(self, index: int) -> Episode:
        """Episode ``index`` in 0..len - 1: which class and images; opens no file."""
        self.full_init()
        if not 0 <= index < len(self):
            raise IndexError(f'episode must be in 0..{len(self) - 1}, got {index}')
        return self._draw(int(index))

    def __getitem__(self, index: int) -> dict:
        """Episode ``index``, read, transformed and packed (see :func:`pack_episode`)."""
        episode = self.episode(index)
        query = self._load(self.query_pipeline, episode, episode.query, 0, False)
        supports = [
            self._load(self.support_pipeline, episode, image, 1 + shot, True)
            for shot, image in enumerate(episode.supports)
        ]
        meta = dict(
            class_id=episode.class_id,
            class_name=self.split.name(episode.class_id),
            episode=episode.index,
        )
        return pack_episode(query, supports, meta)

    def _load(
        self, pipeline: Compose, episode: Episode, image: str, place: int, needs_object: bool
    ) -> dict:
        """Run a pipeline; a support that lost its object to the augmentation is redrawn."""
        for attempt in range(_REDRAWS if needs_object else 1):
            with seeded(self.seed, _AUGMENT, episode.index, place, attempt):
                results = self._transformed(pipeline, image, episode.class_id)
            if not needs_object or (results['gt_seg_map'] == 1).any():
                return results
        raise ValueError(
            f'support mask {self._files[image][1]} has no pixel of '
            f'{self.split.name(episode.class_id)} left after the support pipeline; raise '
            f'min_area ({self.min_area}) or the image size'
        )

    def _transformed(self, pipeline: Compose, image: str, class_id: int) -> dict:
        """Results of a pipeline; whatever goes wrong in it is reported with the file."""
        paths = self._files[image]
        start = dict(img_path=paths[0], seg_map_path=paths[1], class_id=class_id, seg_fields=[])
        try:
            results = pipeline(start)
        except Exception as error:
            if any(path in str(error) for path in paths):
                raise
            raise ValueError(
                f'a transform failed on {paths[0]} with mask {paths[1]}: '
                f'{_too_thin(error, start) or f"{type(error).__name__}: {error}"}'
            ) from error
        if results is None or not {'img', 'gt_seg_map'} <= set(results):
            raise ValueError(
                f'the pipeline gave no image and label for {paths[0]}; it needs LoadImage, '
                'LoadLabel and BinarizeLabel, and no transform that returns None: episodes '
                'are never skipped'
            )
        return results


def _too_thin(error: Exception, results: dict) -> str:
    """The reason and remedy where OpenCV was asked for a side of 0 pixels, else ''."""
    height, width = results.get('ori_shape', (1, 1))
    thin = max(height, width) > 32 * min(height, width)
    if not (thin and isinstance(error, cv2.error) and error.func == 'resize'):
        return ''
    return (
        f'the image is too thin to be resized: {height} x {width} pixels (height x width), and '
        'its short side would be scaled to 0; remove it from the list of images'
    )


def _compose(transforms: Sequence) -> Compose:
    return Compose([TRANSFORMS.build(t) if isinstance(t, dict) else t for t in transforms])
