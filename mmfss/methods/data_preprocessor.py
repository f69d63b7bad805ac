"""From collated episodes to the model's input.

B episodes, K supports, S side of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmseg.registry import MODELS
from torch import Tensor

from mmfss.features.images import DeferredBatch, DeferredImage, DeferredImages

_KEYS = ('query', 'support', 'support_mask')
_NDIM = {'query': 3, 'support': 4, 'support_mask': 3}
_FORM = {'query': '(3, S, S)', 'support': '(K, 3, S, S)', 'support_mask': '(K, S, S)'}


@MODELS.register_module()
class EpisodeDataPreprocessor(BaseDataPreprocessor):
    """Checks and stacks episodes, moves them to the device, and turns BGR into RGB floats.

    Normalisation is left to the encoders, each of which knows its own mean and std. Images
    stay uint8 until they are on the device.

    Args:
        bgr_to_rgb: Flip the channels, as images are read as BGR.
        image_size: Side S that is required; None takes any square.
        non_blocking: Do not wait for the transfer to the device.
    """

    def __init__(
        self, bgr_to_rgb: bool = True, image_size: int | None = None, non_blocking: bool = False
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        self.bgr_to_rgb, self.image_size = bgr_to_rgb, image_size

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch.

        Args:
            data: ``inputs`` with ``query``, ``support`` and ``support_mask``: uint8 tensors per
                episode in a list, or stacked: (B, 3, S, S), (B, K, 3, S, S), (B, K, S, S);
                mask values 0, 1 and 255. Where the dataset defers images, ``query`` and
                ``support`` are lists of B :class:`~mmfss.features.images.DeferredImages`.
                ``data_samples``: list of B samples, or absent.
            training: Has no effect.

        Returns:
            ``inputs``: ``query`` float32 (B, 3, S, S) and ``support`` float32 (B, K, 3, S, S),
            RGB 0..255; deferred images as :class:`~mmfss.features.images.DeferredBatch`, B and
            B K episode-major. ``support_mask`` uint8 (B, K, S, S). ``data_samples`` as given.

        Raises:
            ValueError: Wrong keys, sizes, dtypes or mask values, a mask without foreground,
                or episodes of different sizes; the message names the image. The pixels of
                deferred images are checked when they are read.
        """
        samples = data.get('data_samples')
        inputs = data.get('inputs')
        if not isinstance(inputs, Mapping) or set(inputs) != set(_KEYS):
            got = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
            raise ValueError(
                f'inputs must be a dict of {list(_KEYS)}, got {got}; the data must '
                'come from EpisodicDataset'
            )
        check_episodes(inputs, samples, self.image_size)
        return dict(
            inputs={key: self._prepared(key, inputs[key]) for key in inputs},
            data_samples=self.cast_data(samples),
        )

    def deferred(self, files: Sequence[DeferredImage]) -> DeferredBatch:
        """What the model takes in the place of the pixels of files."""
        return DeferredBatch(files, self.bgr_to_rgb, self.device, self._non_blocking)

    def _prepared(
        self, key: str, value: Sequence[Tensor | DeferredImages] | Tensor
    ) -> Tensor | DeferredBatch:
        """One entry of the inputs, stacked, on the device, in the form that the model takes."""
        files = [file for item in value if isinstance(item, DeferredImages) for file in item]
        if files:
            return self.deferred(files)
        stacked = value if isinstance(value, Tensor) else torch.stack(tuple(value))  # type: ignore[arg-type]
        # to the device as uint8, to float there: a quarter of the bytes to move
        moved = self.cast_data(stacked)
        if key == 'support_mask':
            return moved
        return (moved.flip(-3) if self.bgr_to_rgb else moved).float()


def check_episodes(
    inputs: Mapping[str, Sequence[Tensor | DeferredImages] | Tensor],
    samples: Sequence | None = None,
    image_size: int | None = None,
) -> None:
    """Refuse a batch that the model would misread; arguments as in the preprocessor.

    Raises:
        ValueError: See :meth:`EpisodeDataPreprocessor.forward`.
    """
    counts = {key: len(inputs[key]) for key in _KEYS}
    if samples is not None:
        counts['data_samples'] = len(samples)
    if len(set(counts.values())) != 1 or not counts['query']:
        raise ValueError(
            f'a batch must hold as many queries as supports, masks and data '
            f'samples, and at least one; got {counts}'
        )
    first = None
    for i in range(counts['query']):
        sample = samples[i] if samples is not None else None
        name = getattr(sample, 'img_path', None) or f'number {i} of the batch'
        episode: dict[str, Any] = {key: inputs[key][i] for key in _KEYS}
        _check_form(episode, name, image_size)
        sizes = _shape(episode['support'])
        if first is not None and sizes != first[0]:
            raise ValueError(
                f'episodes of a batch must have one (K, 3, S, S), got {first[0]} for the query '
                f'{first[1]} and {sizes} for {name}; end both pipelines with one size'
            )
        first = first or (sizes, name)
        paths = getattr(sample, 'support_paths', None)
        _check_masks(episode['support_mask'], name, paths)
    _check_unmixed(inputs)


def _check_unmixed(inputs: Mapping[str, Sequence[Tensor | DeferredImages] | Tensor]) -> None:
    """All images of a batch are deferred, or none."""
    deferred = {isinstance(value, DeferredImages) for key in _KEYS[:2] for value in inputs[key]}
    if len(deferred) > 1:
        raise ValueError(
            'a batch has some images as pixels and others as files; take all its episodes from '
            'datasets with the same defer_images'
        )


def _shape(images: Tensor | DeferredImages) -> tuple[int, ...]:
    """Shape of a tensor, or of what the K files of an episode are going to be."""
    if isinstance(images, Tensor):
        return tuple(images.shape)
    return (len(images), 3, *images[0].shape)


def _check_form(
    episode: Mapping[str, Tensor | DeferredImages], name: str, image_size: int | None
) -> None:
    shapes = {}
    for key, value in episode.items():
        if isinstance(value, DeferredImages) and key != 'support_mask':
            _check_files(value, key, name)
            shapes[key] = _shape(value) if key == 'support' else _shape(value)[1:]
            continue
        if not isinstance(value, Tensor) or value.dtype != torch.uint8:
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f'{key} of the query {name} must be a torch.uint8 tensor, got '
                f'{got}; pass pixels as 0..255 and labels as 0, 1, 255'
            )
        shape = shapes[key] = tuple(value.shape)
        if value.ndim != _NDIM[key] or (key != 'support_mask' and shape[-3] != 3):
            raise ValueError(f'{key} of the query {name} must be {_FORM[key]}, got {shape}')
    side = {shape[-2:] for shape in shapes.values()}
    shots = {shapes['support'][0], shapes['support_mask'][0]}
    if len(side) != 1 or len(shots) != 1 or not min(shots):
        raise ValueError(
            f'query, supports and support masks of the query {name} must share one '
            f'S and one K >= 1, got {shapes}; end both pipelines with one size'
        )
    height, width = side.pop()
    if height != width or (image_size is not None and height != image_size):
        wanted = 'square' if image_size is None else f'{image_size} x {image_size}'
        raise ValueError(
            f'images of the query {name} must be {wanted}, got {height} x {width}; '
            'use Resize(scale=(S, S)) or RandomCropKeepObject(S) last'
        )


def _check_files(files: DeferredImages, key: str, name: str) -> None:
    """One file for a query, at least one for supports, all of one size to come."""
    if not len(files) or (key == 'query' and len(files) != 1):
        raise ValueError(
            f'{key} of the query {name} must be {"1 file" if key == "query" else "K >= 1 files"}, '
            f'got {len(files)}; the data must come from EpisodicDataset'
        )
    sizes = {file.path: file.shape for file in files}
    if len(set(sizes.values())) != 1:
        raise ValueError(
            f'supports of the query {name} must have one size, got {sizes}; end the support '
            'pipeline with Resize(scale=(S, S))'
        )


def _check_masks(masks: Tensor, name: str, paths: Sequence[str] | None) -> None:
    """Values {0, 1, 255} and some foreground in each of the K masks (K, S, S)."""
    for shot, mask in enumerate(masks):
        where = f'support mask {shot} of the query {name}'
        if paths is not None and shot < len(paths):
            where += f' (support {paths[shot]})'
        if int((mask + 1).max()) > 2:  # uint8 wraps: 255, 0, 1 become 0, 1, 2
            values = mask.unique().tolist()
            raise ValueError(
                f'{where} may hold 0, 1 and 255, got {values[:8]}; binarise it for '
                'the class of the episode'
            )
        if not bool((mask == 1).any()):
            raise ValueError(
                f'{where} has no foreground (no pixel of value 1); choose a support '
                'that shows the object'
            )
