"""Frozen encoders, run once per image: in chunks, and only for images that no cache knows.

``encode`` below is a function (n, 3, S, S) -> list of (n, ...) tensors, without gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from mmfss.arguments import integer
from mmfss.batching import cat
from mmfss.features.cache import FeatureCache
from mmfss.features.fingerprint import Fingerprint, arithmetic, fingerprint, weights_version
from mmfss.features.images import DeferredBatch, content_key

Encode = Callable[[Tensor], list[Tensor]]


class FrozenEncoding:
    """Runs frozen encoders for a model.

    In eval mode images are encoded ``chunk`` at a time. With the default of 1 what an image gives
    does not depend on the batch that it came in, and so features from the cache are bit for bit
    those that are computed. Larger chunks keep a GPU busy; they give each image's numbers the
    rounding of its chunk.

    A change of weights, of autocast and of torch's switches (TF32, ...) is noticed at any time;
    other attributes of the modules must not be set after the first use.

    Args:
        modules: what ``encode`` runs, by name; all of it frozen, and kept in eval mode by the
            model. Without any, it is not called.
        settings: what else decides about its output, of JSON types.
        cache: None encodes always.
        chunk: images at a time in eval mode, >= 1.
        fixed: for a compiled encoder: fill up the last chunk, so that it sees one shape only, and
            copy what it gives.

    Raises:
        ValueError: ``chunk`` below 1.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        settings: Mapping[str, Any],
        cache: FeatureCache | None = None,
        chunk: int = 1,
        fixed: bool = False,
    ) -> None:
        self.modules, self.settings = dict(modules), dict(settings)
        self.cache, self.fixed = cache, fixed
        self.chunk = integer('model.encode_batch', chunk, 1)
        self._keys: dict[str | None, str] = {}
        self._version: tuple | None = None

    @torch.no_grad()
    def __call__(
        self, encode: Encode, images: Tensor | DeferredBatch, training: bool = False
    ) -> list[Tensor]:
        """Outputs of ``encode`` for all images.

        Args:
            encode: see above; always the same one.
            images: (N, 3, S, S) RGB 0..255, or images that are read where they must be.
            training: pixels are then encoded in one batch, and kept only where the cache is told
                to; images that come as files are kept all the same.
        """
        if not self.modules:
            return []
        deferred = isinstance(images, DeferredBatch)
        if self.cache is None or (training and not deferred and not self.cache.training):
            pixels = all_pixels(images) if deferred else images
            return self._run(encode, pixels) if training else cat(self._chunks(encode, pixels))
        names = images.keys if deferred else [content_key(image) for image in images]
        device = self._device()
        key = self._encoder_key(device)
        found = {name: self.cache.get(key, name, device) for name in dict.fromkeys(names)}
        missing = [name for name, features in found.items() if features is None]
        for start in range(0, len(missing), self.chunk):
            some = missing[start : start + self.chunk]
            places = [names.index(name) for name in some]
            pixels = [images.pixels(i) if deferred else images[i : i + 1] for i in places]
            encoded = self._chunk(encode, torch.cat(pixels))
            for row, name in enumerate(some):
                features = [level[row : row + 1] for level in encoded]
                found[name] = self.cache.put(key, name, features)
        return cat([found[name] for name in names])

    def _chunks(self, encode: Encode, images: Tensor) -> list[list[Tensor]]:
        return [self._chunk(encode, some) for some in images.split(self.chunk)]

    def _chunk(self, encode: Encode, images: Tensor) -> list[Tensor]:
        count = len(images)
        if self.fixed and count < self.chunk:
            images = torch.cat([images, images[-1:].expand(self.chunk - count, -1, -1, -1)])
        return [level[:count] for level in self._run(encode, images)]

    def _run(self, encode: Encode, images: Tensor) -> list[Tensor]:
        levels = encode(images)
        # the next call of one that was compiled with CUDA graphs writes over its outputs
        return [level.clone() for level in levels] if self.fixed else levels

    def _device(self) -> torch.device:
        modules = self.modules.values()
        return next(x for m in modules for x in chain(m.parameters(), m.buffers())).device

    def _encoder_key(self, device: torch.device) -> str:
        """Key of the encoders as they are now; a new one when their weights change, or how torch
        computes."""
        version = weights_version(self.modules), arithmetic()
        if version != self._version:
            self._keys, self._version = {}, version
        cast = torch.is_autocast_enabled(device.type)
        dtype = str(torch.get_autocast_dtype(device.type)) if cast else None
        if dtype not in self._keys:
            settings = {**self.settings, 'autocast': dtype, 'encode_batch': self.chunk}
            found: Fingerprint = fingerprint(self.modules, settings)
            self.cache.open(found.key, found.about)
            self._keys[dtype] = found.key
        return self._keys[dtype]


def all_pixels(images: DeferredBatch) -> Tensor:
    """Read all of them: (N, 3, S, S)."""
    return torch.cat([images.pixels(i) for i in range(len(images))])
