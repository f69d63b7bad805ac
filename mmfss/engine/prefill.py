"""Before a distributed evaluation: each process encodes its share of the images for all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmseg.registry import HOOKS

from mmfss.datasets.episodes import EpisodicDataset
from mmfss.distributed import gathered
from mmfss.engine.guards import bare_model
from mmfss.engine.loops import autocast_of
from mmfss.features.images import DeferredImage


@HOOKS.register_module()
class PrefillFeaturesHook(Hook):
    """Encodes the images of a validation or test into the feature cache, shared out evenly, so
    that W processes encode each image once in all and not once in each that meets it.

    With one process, without a directory that the processes share, and for datasets that read
    their images, it does nothing; nor where the directory can take no more. An image is looked at
    once in a run; where weights of the encoders are loaded later, the evaluation itself encodes
    again.

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

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Say what the cache was good for."""
        _report(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Say what the cache was good for."""
        _report(runner)

    def _prefill(self, runner: Runner, loop: BaseLoop) -> None:
        model = bare_model(runner)
        encoding: Any = getattr(model, 'encoding', None)
        cache: Any = getattr(encoding, 'cache', None)
        directory = getattr(cache, 'directory', None)
        dataset = loop.dataloader.dataset
        rank, world = get_dist_info()
        defers = isinstance(dataset, EpisodicDataset) and dataset.defer_images
        if world == 1 or directory is None or not defers:
            return
        start = time.perf_counter()
        images = dataset.deferred_images()
        todo = [name for name in images if name not in self._done]

        def work() -> int:
            model.eval()
            try:
                with torch.no_grad(), autocast_of(loop):
                    files = [images[name]() for name in todo[rank::world]]
                    return encode(model, files, encoding.chunk)
            except (ValueError, OSError) as error:
                raise ValueError(
                    f'images could not be encoded before the evaluation: process {rank}: {error}'
                ) from error

        counts = gathered(work)
        self._done.update(todo)
        print_log(
            f'{world} processes saw to {sum(counts)} of {len(todo)} images '
            f'in {directory}, this one to {counts[rank]} in {time.perf_counter() - start:.1f} s'
            f'{"" if cache.shares else "; it takes no more, the rest is encoded when needed"}',
            'current',
        )


def _report(runner: Runner) -> None:
    cache = getattr(getattr(bare_model(runner), 'encoding', None), 'cache', None)
    if cache is not None:
        said = f'feature cache (an entry per image and encoder), so far: {cache.stats}'
        print_log(said, 'current')


def encode(model: Any, files: Sequence[DeferredImage], chunk: int) -> int:
    """Encode files that the cache of a model has no features of, as long as it shares them.

    Args:
        model: a :class:`~mmfss.methods.base.FewShotModel` with an ``EpisodeDataPreprocessor``.
        files: The images.
        chunk: How many at a time.

    Returns:
        How many of the files were seen to.
    """
    for start in range(0, len(files), chunk):
        images = model.data_preprocessor.deferred(files[start : start + chunk])
        model.encoding(model.encoders, images)
        if not model.encoding.cache.shares:
            return start
    return len(files)
