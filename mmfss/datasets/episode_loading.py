"""Reading and transforming the images of an episode, repeatably; the form that models take."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.structures import PixelData
from mmseg.registry import TRANSFORMS
from mmseg.structures import SegDataSample

from mmfss.datasets.deferred import deferred_pipeline, image_steps
from mmfss.datasets.folds import FoldSplit
from mmfss.datasets.sampling import Episode
from mmfss.datasets.segmentation import AnnotatedImage
from mmfss.datasets.transforms import check_reduced
from mmfss.features.images import DeferredImage, DeferredImages, ImageSteps, image_tensor

_AUGMENT = 3  # stream of random numbers of the pipelines, beside those of the samplers
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


def compose(transforms: Sequence) -> Compose:
    """A pipeline of configs or transforms.

    Raises:
        ValueError: As :func:`mmfss.datasets.transforms.check_reduced`.
    """
    pipeline = Compose([TRANSFORMS.build(t) if isinstance(t, dict) else t for t in transforms])
    check_reduced(pipeline.transforms)
    return pipeline


class EpisodeLoader:
    """Files -> pipelines -> the packed episode; what it gives depends on (seed, episode) alone.

    Args:
        files: Files of each image id.
        split: The fold, for names of classes.
        query_pipeline, support_pipeline: Transforms of an image, from ``LoadImage`` on.
        seed: Of the augmentation.
        label_size: Side of the square that query labels are resized to (nearest), None to keep
            what the pipeline gives.
        defer_images: Read sizes and labels only; pixels are left to
            :class:`~mmfss.features.images.DeferredImage`.

    Raises:
        ValueError: A pipeline that cannot be deferred is to be.
        ValueError, FileNotFoundError: When called: whatever goes wrong, with the file's path.
    """

    def __init__(
        self,
        files: Mapping[str, AnnotatedImage],
        split: FoldSplit,
        query_pipeline: Compose,
        support_pipeline: Compose,
        seed: int,
        label_size: int | None = None,
        defer_images: bool = False,
    ) -> None:
        self.files, self.split, self.seed, self.label_size = files, split, seed, label_size
        self.query_pipeline, self.support_pipeline = query_pipeline, support_pipeline
        self._steps: dict[Compose, ImageSteps] = {}  # of a pipeline whose images are deferred
        if defer_images:
            steps = (
                image_steps(query_pipeline, 'query_pipeline'),
                image_steps(support_pipeline, 'support_pipeline'),
            )
            self.query_pipeline = deferred_pipeline(query_pipeline)
            self.support_pipeline = deferred_pipeline(support_pipeline)
            self._steps = {self.query_pipeline: steps[0], self.support_pipeline: steps[1]}

    def __call__(self, episode: Episode) -> dict:
        """Read, transform and pack an episode (see :func:`pack_episode`)."""
        query = self._load(self.query_pipeline, episode, episode.query, 0, False)
        if self.label_size is not None:
            side = (self.label_size, self.label_size)
            label = cv2.resize(query['gt_seg_map'], side, interpolation=cv2.INTER_NEAREST)
            query['gt_seg_map'] = label
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

    def deferred_images(
        self, episodes: Iterable[Episode]
    ) -> dict[tuple[str, str], Callable[[], DeferredImage]]:
        """The distinct images of episodes, where images are deferred; opens no file.

        Returns:
            (path, digest of the image transforms) -> what makes the
            :class:`~mmfss.features.images.DeferredImage`, which opens the file for its size.
        """
        found: dict[tuple[str, str], Callable[[], DeferredImage]] = {}
        query, support = self.query_pipeline, self.support_pipeline
        for episode in episodes:
            images = [(query, episode.query), *((support, image) for image in episode.supports)]
            for pipeline, image in images:
                path, steps = self.files[image].image, self._steps[pipeline]
                found.setdefault((path, steps.digest), partial(_deferred, path, steps))
        return found

    def _load(
        self, pipeline: Compose, episode: Episode, image: str, place: int, needs_object: bool
    ) -> dict:
        """Run a pipeline; a support that lost its object to the augmentation is redrawn."""
        for attempt in range(_REDRAWS if needs_object else 1):
            # pipelines of deferred images have nothing random
            seeds = (self.seed, _AUGMENT, episode.index, place, attempt)
            with nullcontext() if pipeline in self._steps else seeded(*seeds):
                results = self._transformed(pipeline, image, episode.class_id)
            if not needs_object or (results['gt_seg_map'] == 1).any():
                return results
        raise ValueError(
            f'support mask {self.files[image].mask_of(episode.class_id)[0]} has no pixel of '
            f'{self.split.name(episode.class_id)} left after the support pipeline; raise '
            'min_area or the image size'
        )

    def _transformed(self, pipeline: Compose, image: str, class_id: int) -> dict:
        """Results of a pipeline; whatever goes wrong in it is reported with the file."""
        path = self.files[image].image
        mask, value = self.files[image].mask_of(class_id)
        start: dict[str, Any] = dict(
            img_path=path, seg_map_path=mask, label_value=value, seg_fields=[]
        )
        steps = self._steps.get(pipeline)
        try:
            # before anything is read: a file that changes now is found out when it is read
            key = None if steps is None else DeferredImage.key_of(path, steps)
            results = pipeline(start)
        except Exception as error:
            if any(name in str(error) for name in (path, mask)):
                raise
            why = f'{type(error).__name__}: {error}'
            height, width = start.get('ori_shape', (1, 1))
            thin = max(height, width) > 32 * min(height, width)
            if thin and isinstance(error, cv2.error) and error.func == 'resize':
                why = (
                    f'the image is too thin to be resized: {height} x {width} pixels (height x '
                    'width), and its short side would be scaled to 0; remove it from the list of '
                    'images'
                )
            raise ValueError(f'a transform failed on {path} with mask {mask}: {why}') from error
        if results is None or not {'img', 'gt_seg_map'} <= set(results):
            raise ValueError(
                f'the pipeline gave no image and label for {path}; it needs LoadImage, '
                'LoadLabel and BinarizeLabel, and no transform that returns None: episodes '
                'are never skipped'
            )
        if steps is not None and key is not None:
            shape = results['img'].shape[:2]
            results['deferred'] = DeferredImage(path, key, steps, shape)
        return results


def pack_episode(query: dict, supports: Sequence[dict], meta: dict) -> dict:
    """Put the transformed images of an episode into the form that the model takes.

    Args:
        query: Results of the query's pipeline, with its label (the truth, not an input). Where
            images are deferred, all results have a ``deferred`` and their ``img`` is a
            stand-in.
        supports: Results of the K supports' pipelines, all of one size.
        meta: Further metainfo of the data sample: class, episode number.

    Returns:
        ``inputs``: ``query`` uint8 (3, H, W) BGR, ``support`` uint8 (K, 3, H, W), and
        ``support_mask`` uint8 (K, H, W) of {0, 1, 255}; where images are deferred, ``query``
        and ``support`` are :class:`~mmfss.features.images.DeferredImages`. ``data_samples``: a
        SegDataSample with ``gt_sem_seg`` uint8 (1, h, w) and the metainfo.

    Raises:
        ValueError: Supports of different sizes, or a support label unlike its image.
    """
    shapes = [s['img'].shape[:2] for s in supports]
    shapes += [s['gt_seg_map'].shape for s in supports]
    if len(set(shapes)) != 1:
        raise ValueError(
            f'support images and masks of an episode must have one size, got '
            f'{shapes} for {[s["img_path"] for s in supports]}; end the support '
            'pipeline with Resize(scale=(S, S)) or RandomCropKeepObject(S)'
        )
    sample = SegDataSample(
        metainfo=dict(
            img_path=query['img_path'],
            seg_map_path=query['seg_map_path'],
            ori_shape=tuple(query['ori_shape']),
            img_shape=tuple(query['img'].shape[:2]),
            shots=len(supports),
            support_paths=[s['img_path'] for s in supports],
            **meta,
        )
    )
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(query['gt_seg_map'][None].copy()))
    masks = torch.stack([torch.from_numpy(s['gt_seg_map'].copy()) for s in supports])
    images: dict[str, Any]
    if 'deferred' in query:
        images = dict(
            query=DeferredImages((query['deferred'],)),
            support=DeferredImages(tuple(s['deferred'] for s in supports)),
        )
    else:
        images = dict(
            query=image_tensor(query['img']),
            support=torch.stack([image_tensor(s['img']) for s in supports]),
        )
    return dict(inputs=dict(images, support_mask=masks), data_samples=sample)


def _deferred(path: str, steps: ImageSteps) -> DeferredImage:
    """An image without label."""
    key = DeferredImage.key_of(path, steps)
    results = deferred_pipeline(Compose(list(steps.transforms)))(dict(img_path=path, seg_fields=[]))
    return DeferredImage(path, key, steps, results['img'].shape[:2])
