"""EpisodicDataset: few-shot episodes out of any segmentation dataset."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path

from mmengine.logging import print_log
from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from mmfss.arguments import integer, one_of, optional
from mmfss.datasets.account import Account
from mmfss.datasets.class_index import ClassIndex, build_class_index, user_cache_file
from mmfss.datasets.deferred import check_deferrable
from mmfss.datasets.episode_loading import EpisodeLoader, compose
from mmfss.datasets.folds import ALL_CLASSES, NOVEL_IMAGES, ROLES, get_benchmark, get_split
from mmfss.datasets.frozen import FrozenEpisodes, data_digest, frozen_path
from mmfss.datasets.sampling import (
    SAMPLERS,
    Episode,
    EpisodeDraw,
    EpisodePool,
    build_pool,
    check_pool,
    drop_scarce,
)
from mmfss.datasets.segmentation import image_files
from mmfss.datasets.transforms import LoadImage, read_grey_values
from mmfss.distributed import first
from mmfss.features.images import DeferredImage

_MANY = 50_000  # episodes beyond which it is not enumerated which classes they are of


@DATASETS.register_module()
class EpisodicDataset(Dataset):
    """K-shot episodes of one fold. Episode i, its augmentation included, depends on (seed, i)
    alone: not on the number of workers, ranks, the batch size or what was read before.

    The images are those of ``dataset`` with at least one class of the split that covers
    ``min_area`` pixels; see :mod:`mmfss.datasets.sampling` for the ways to draw from them.
    In a distributed run all processes build it: the first reads the masks for all.
    A run that should see new episodes throughout takes ``num_episodes`` for the whole run and
    a sampler that walks them once, not an epoch of a few that is repeated.

    Args:
        dataset: Config of a segmentation dataset (or the object) whose classes are
            'background' and the benchmark's; its own pipeline is not used.
        benchmark: Name in :data:`mmfss.datasets.folds.BENCHMARKS`, or a prepared dataset's folder.
        fold: Fold, an int or digits, or 'all': every class is a base class.
        split: Which classes episodes are about: 'base' the training classes, 'novel' the
            held-out ones; 'base_val' the base classes that are kept for validation and
            'base_train' the base classes without them.
        shots: K >= 1.
        num_episodes: Length; None for one pass over the images.
        seed: Integer >= 0.
        query_pipeline, support_pipeline: Transforms of an image, from ``LoadImage`` on.
        sampler: Name in :data:`mmfss.datasets.sampling.SAMPLERS`.
        min_area: Pixels from which on a class counts; None takes the benchmark's.
        support_min_area: The same for support images; None takes ``min_area``.
        exclude_novel_images: Leave out images with any pixel of a class that training must not
            see: a novel one, and for 'base_train' one of 'base_val'; None does so for 'base' and
            'base_train'.
        shuffle: For 'image_list': random order of queries, a new one each pass; None does so for
            'base' and 'base_train'.
        label_size: 'original', or the side in pixels of a square that query labels are resized
            to, as some papers measure.
        scarce_classes: What to do with classes of 1..K images: 'error', or 'drop' them.
        episodes_file: Replay the episodes of this file (``tools/freeze_episodes.py``), whatever
            the sampler; '{fold}', '{shots}' and '{seed}' in it are filled in.
        class_index_file: JSON cache of the class areas; 'auto' puts it beside the mask
            folder (in the user's cache folder where that is read-only), None keeps none.
        lazy_init: Read nothing before :meth:`full_init`.
        defer_images: Give :class:`~mmfss.features.images.DeferredImages` in the place of pixels,
            for a model with a feature cache; the pipelines must not be random.

    Raises:
        ValueError: An argument out of range; classes that are not the benchmark's; no image
            or too few images of a class; an episodes file of other data. FileNotFoundError: the
            data are not there. Reading an item raises the error of its image or mask, with the
            path: nothing is retried.
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
        sampler: str = 'image_list',
        min_area: int | None = None,
        support_min_area: int | None = None,
        exclude_novel_images: bool | None = None,
        shuffle: bool | None = None,
        label_size: str | int = 'original',
        scarce_classes: str = 'error',
        episodes_file: str | None = None,
        class_index_file: str | None = 'auto',
        lazy_init: bool = False,
        defer_images: bool = False,
    ) -> None:
        one_of('split', split, ROLES)
        one_of('scarce_classes', scarce_classes, ('error', 'drop'))
        one_of('sampler', sampler, tuple(SAMPLERS))
        one_of('defer_images', defer_images, (False, True))
        self.split = get_split(benchmark, fold)
        self.role = split
        if not self.split.ids(split):
            few = len(self.split.ids('base'))
            if self.split.fold == ALL_CLASSES and split == 'novel':
                raise ValueError(
                    f'FOLD={ALL_CLASSES} holds no class of {self.split.benchmark} out: there is '
                    'nothing to test on, or to choose a checkpoint on by SELECTION=novel or both. '
                    'Figures are those of a fold, FOLD=0, and of a training on it; a model of all '
                    'classes is for labelling'
                )
            raise ValueError(
                f'{self.split.benchmark} fold {self.split.fold} has no {split} classes; choose '
                f'another split than {split!r}, or a benchmark that has them'
                + f' (of {few} base classes none is held out: SELECTION=base or novel, see '
                'docs/benchmarking.md)' * (split == 'base_val' and few > 0)
            )
        self.shots = integer('shots', shots, 1)
        self.seed = integer('seed', seed, 0)
        self.min_area = optional('min_area', min_area) or get_benchmark(benchmark).min_area
        self.support_min_area = optional('support_min_area', support_min_area) or self.min_area
        self.num_episodes = optional('num_episodes', num_episodes)
        training = split in ('base', 'base_train')
        excluded = training if exclude_novel_images is None else exclude_novel_images
        self.exclude_novel_images = excluded
        if shuffle is not None and sampler != 'image_list':
            raise ValueError(f"shuffle is for sampler='image_list', not for {sampler!r}; leave it")
        self.sampler, self.shuffle = sampler, training if shuffle is None else shuffle
        name = "label_size must be 'original', or it"
        self.label_size = None if label_size == 'original' else integer(name, label_size, 1)
        self.scarce_classes, self.class_index_file = scarce_classes, class_index_file
        self.episodes_file = episodes_file and frozen_path(
            episodes_file, fold=self.split.fold, shots=self.shots, seed=self.seed
        )
        self._pipelines = compose(query_pipeline), compose(support_pipeline)
        self.defer_images = defer_images
        for name, pipeline in zip(('query_pipeline', 'support_pipeline'), self._pipelines):
            if defer_images:
                check_deferrable(pipeline, name)
        self._source = dataset
        self.index: ClassIndex | None = None
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """Classes, palette, benchmark, fold, role, the split, and which images training leaves
        out (:data:`~mmfss.datasets.folds.NOVEL_IMAGES`), in plain Python types.

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
            novel_images=NOVEL_IMAGES[not self.exclude_novel_images],
        )

    @cached_property
    def protocol(self) -> dict:
        """What decides which episodes these are and how they are measured: plain values."""
        self.full_init()
        order = 'random' if self.shuffle else 'list'
        drawn = dict(
            benchmark=self.split.benchmark,
            fold=self.split.fold,
            classes=self.role,
            shots=self.shots,
            episodes=len(self),
            seed=self.seed,
            sampler=self.sampler,
            order=order if self.sampler == 'image_list' else None,
            episodes_file=self.episodes_file,
            query_min_area=self.min_area,
            support_min_area=self.support_min_area,
            exclude_novel_images=self.exclude_novel_images,
            scarce_classes=self.scarce_classes,
            label_size=self.label_size or 'original',
            images=len(self.index),
            data=data_digest(self.index),
        )
        ranges = [
            transform.grey_values
            for pipeline in self._pipelines
            for transform in pipeline.transforms
            if isinstance(transform, LoadImage) and transform.grey_values is not None
        ]
        if ranges:  # of photos of more than 8 bits
            drawn['grey_values'] = ranges
        return drawn if self.episodes_file is None else {**drawn, **self._draw.protocol}

    def full_init(self) -> None:
        """Read the image list and the class index; does nothing the second time."""
        if self.index is not None:
            return
        dataset = self._dataset()
        self._palette = dataset.metainfo.get('palette')
        files = image_files(dataset)
        cache, fallback = self.class_index_file, None
        if cache == 'auto':
            folder = Path(os.path.abspath(dataset.data_prefix['seg_map_path']))
            images = Path(dataset.ann_file).stem or 'all'
            cache = folder.parent / f'class_index_{folder.name}_{images}.json'
            fallback = user_cache_file(cache)
        masks = {image: paths.masks for image, paths in files.items()}
        number = len(self.split.classes)
        index = first(  # process reads the masks for all
            lambda: build_class_index(masks, number, cache, fallback_file=fallback)
        )
        self._pool = self._make_pool(dataset, index)
        self._draw: EpisodeDraw | FrozenEpisodes
        if self.episodes_file is None:
            self._draw = SAMPLERS[self.sampler](self._pool, self.shots, self.seed, self.shuffle)
        else:
            frozen = FrozenEpisodes(self.episodes_file, self.split, self.role, self.shots, index)
            if (self.num_episodes or 0) > len(frozen):
                raise ValueError(
                    f'episodes file {self.episodes_file} has {len(frozen)} episodes, num_episodes '
                    f'is {self.num_episodes}; lower it, or freeze more'
                )
            self._draw, self.num_episodes = frozen, self.num_episodes or len(frozen)
        if getattr(dataset, 'upright', False):
            for pipeline in self._pipelines:
                pipeline.transforms = [_upright(step) for step in pipeline.transforms]
        for pipeline in self._pipelines:
            read_grey_values(pipeline.transforms, getattr(dataset, 'grey_values', None))
        load = *self._pipelines, self.seed, self.label_size, self.defer_images
        self._load = EpisodeLoader(files, self.split, *load)
        self.index, self._source = index, dataset

    def _dataset(self) -> Dataset:
        """The segmentation dataset, which must have the benchmark's classes."""
        dataset = self._source
        if isinstance(dataset, dict):
            kind = dataset.get('type')
            kind = DATASETS.get(kind) if isinstance(kind, str) else kind
            # the list is read once here: packing it into bytes, which takes longer than all else,
            # is left out unless the config asks for it
            if inspect.isclass(kind) and 'serialize_data' in inspect.signature(kind).parameters:
                dataset = {'serialize_data': False, **dataset}
            dataset = DATASETS.build(dataset)
        dataset.full_init()
        expected = ('background', *self.split.classes)
        found = tuple(dataset.metainfo.get('classes') or ())
        if found != expected or dataset.metainfo.get('reduce_zero_label'):
            raise ValueError(
                f'{self.split.benchmark} needs a dataset with background and its '
                f'{len(self.split.classes)} classes ({", ".join(expected[:3])}, ...) in label '
                f'order, got {type(dataset).__name__} with {len(found)} classes '
                f'({", ".join(found[:3])}, ...); choose the dataset type of the benchmark'
            )
        return dataset

    def _make_pool(self, dataset: Dataset, index: ClassIndex) -> EpisodePool:
        classes = self.split.ids(self.role)
        excluded = self.split.held_out(self.role) if self.exclude_novel_images else ()
        source = dataset.ann_file or dataset.data_prefix['img_path']
        areas = self.min_area, excluded, self.support_min_area
        pool = build_pool(index, classes, *areas)
        if self.episodes_file is not None:  # nothing is drawn from it
            return pool
        dropped = pool.scarce(self.shots) if self.scarce_classes == 'drop' else {}
        if dropped:
            pool = build_pool(index, drop_scarce(pool, self.shots), *areas)
        absent = [self.split.name(c) for c in classes if c not in pool.classes]
        left_out = self._left_out(dataset, absent)
        if dropped and not pool.images:
            counts = ', '.join(f'{self.split.name(c)} {count}' for c, count in dropped.items())
            raise ValueError(
                f"scarce_classes='drop' leaves none of the {self.role} classes: {self.shots}-shot "
                f'episodes need {self.shots + 1} images of a class with at least '
                f'{self.support_min_area} pixels in {source}, and there are of {counts}. Add '
                f'images, lower shots or min_area, or choose another fold{left_out}'
            )
        check = pool, self.split, self.role, self.shots, self.support_min_area, source
        try:
            check_pool(*check)
        except ValueError as error:
            scarce = [*absent, *map(self.split.name, pool.scarce(self.shots))]
            raise ValueError(f'{error}{self._left_out(dataset, scarce)}') from None
        if absent:
            print_log(
                f'{source}: no {self.shots}-shot episodes of the {self.role} classes '
                f'{", ".join(absent)} (too few images){left_out}',
                'current',
                logging.WARNING,
            )
        return pool

    def _left_out(self, dataset: Dataset, classes: Sequence[str]) -> str:
        """What the preparation left out of some classes, for messages; '' where that is nothing."""
        root = getattr(dataset, 'data_root', None)
        because = Account.read(root).of(classes).because() if root and classes else ''
        return because and f'. The preparation left out: {because}'

    @property
    def num_images(self) -> int:
        """Images that can be a query: the episodes of one pass over the list."""
        self.full_init()
        return len(self._pool.images)

    @property
    def pool_files(self) -> tuple[str, ...]:
        """Files of the images that can be a query or a support, in the order of the list."""
        self.full_init()
        pool = self._pool
        drawn = set(pool.images).union(*pool.supports_of.values())
        return tuple(paths.image for name, paths in self._load.files.items() if name in drawn)

    @cached_property
    def absent_classes(self) -> tuple[str, ...]:
        """Names of the classes of the split that none of the episodes is of."""
        self.full_init()
        if len(self) > _MANY:
            drawn = set(self._pool.classes)
        else:
            drawn = {self.episode(i).class_id for i in range(len(self))}
        return tuple(self.split.name(c) for c in self.split.ids(self.role) if c not in drawn)

    def __len__(self) -> int:
        if self.episodes_file is not None:
            self.full_init()
        return self.num_episodes or self.num_images

    def episode(self, index: int) -> Episode:
        """Episode ``index`` in 0..len - 1: which class and images; opens no file."""
        self.full_init()
        if not 0 <= index < len(self):
            raise IndexError(f'episode must be in 0..{len(self) - 1}, got {index}')
        return self._draw(int(index))

    def deferred_images(self) -> dict[tuple[str, str], Callable[[], DeferredImage]]:
        """Distinct images of all episodes, see :meth:`EpisodeLoader.deferred_images`."""
        self.full_init()
        return self._load.deferred_images(map(self.episode, range(len(self))))

    def __getitem__(self, index: int) -> dict:
        """Episode ``index``, read, transformed and packed (see :func:`pack_episode`)."""
        return self._load(self.episode(index))


def _upright(transform: Callable) -> Callable:
    """The same, but a loader of images turns them as their EXIF tag says; a copy, as the transforms
    of a config may be shared."""
    if type(transform) is LoadImage:
        transform = copy(transform)
        transform.exif_orientation = True
    return transform
