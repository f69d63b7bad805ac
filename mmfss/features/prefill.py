"""Before a distributed evaluation: each process encodes its share of the images for all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmseg.registry import HOOKS

from mmfss.datasets.episodes import EpisodicDataset
from mmfss.engine.loops import autocast_of
from mmfss.features.images import ImageFile


@HOOKS.register_module()
class PrefillFeaturesHook(Hook):
    """Encodes the images of a validation or test into the feature cache, shared out evenly, so
    that W processes encode each image once in all and not once in each that meets it.

    With one process, without a directory that the processes share, and for datasets that read
    their images, it does nothing. An image is looked at once in a run; where weights of the
    encoders are loaded later, the evaluation itself encodes again.

    Raises:
        ValueError: from ``before_val_epoch`` and ``before_test_epoch``, in all processes, where
            one could not read an image.
    """

    def __init__(self) -> None:
        self._done: set[tuple[str, str]] = set()  # path and digest of transforms

    def before_val_epoch(self, runner: Runner) -> None:
        """Those of validation, and of the novel episodes that are watched beside."""
        watched = getattr(runner.val_loop, 'watched', None)
        for loop in (runner.val_loop, watched):
            if loop is not None:
                self._prefill(runner, loop)

    def before_test_epoch(self, runner: Runner) -> None:
        """Those of the test."""
        self._prefill(runner, runner.test_loop)

    def _prefill(self, runner: Runner, loop: BaseLoop) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        encoding: Any = getattr(model, 'encoding', None)
        directory = getattr(getattr(encoding, 'cache', None), 'directory', None)
        dataset = loop.dataloader.dataset
        rank, world = get_dist_info()
        defers = isinstance(dataset, EpisodicDataset) and dataset.defer_images
        if world == 1 or directory is None or not defers:
            return
        start, failed = time.perf_counter(), None
        images = dataset.unread_images()
        todo = [name for name in images if name not in self._done]
        share = todo[rank::world]
        try:
            model.eval()
            with torch.no_grad(), autocast_of(loop):
                encode(model, [images[name]() for name in share], encoding.chunk)
        except (ValueError, OSError) as error:  # the others must not wait for ever
            failed = f'process {rank}: {error}'
        errors = [error for error in all_gather_object(failed) if error is not None]
        if errors:
            raise ValueError(f'images could not be encoded before the evaluation: {errors[0]}')
        self._done.update(todo)
        print_log(
            f'features of {len(images)} images are in {directory}: this process of {world} saw to '
            f'{len(share)} of them in {time.perf_counter() - start:.1f} s',
            'current',
        )


def encode(model: Any, files: Sequence[ImageFile], chunk: int) -> None:
    """Encode files that the cache of a model has no features of.

    Args:
        model: An FSSAM, with an ``EpisodeDataPreprocessor`` and ``encode_image``.
        files: The images.
        chunk: How many at a time.
    """
    for start in range(0, len(files), chunk):
        model.encode_image(model.data_preprocessor.unread(files[start : start + chunk]))
