"""The encoders of a model, run once per image: in chunks, and only where no cache knows the image.

Each encoder has a key of its own, see :func:`mmfss.features.fingerprint.fingerprint`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from mmfss.arguments import integer
from mmfss.batching import cat
from mmfss.features.cache import FeatureCache
from mmfss.features.fingerprint import (
    Fingerprint,
    WeightsVersion,
    arithmetic,
    fingerprint,
    with_settings,
)
from mmfss.features.images import DeferredBatch, content_key

from .base import Encoder, Step
from .runtimes import Runtimes, RuntimeSettings
from .runtimes.converted import Converted

Levels = tuple[Tensor, ...]


class Encoding:
    """Runs the encoders of a model.

    In eval mode images are encoded ``chunk`` at a time. With the default of 1 what an image gives
    does not depend on the batch that it came in, and so features from the cache are bit for bit
    those that are computed. Larger chunks keep a GPU busy; they give each image's numbers the
    rounding of its chunk.

    What is kept is decided by mode: in evaluation all that an encoder gives, trained or not, since
    the weights are in its key; in training what comes before its first step with a gradient. What
    trained steps give in the validations of a training goes to memory alone: other weights come.

    A change of weights, of autocast and of torch's switches (TF32, ...) is noticed at any time;
    other attributes of the modules must not be set after the first use.

    Args:
        encoders: by name.
        cache: None encodes always.
        chunk: images at a time in eval mode, >= 1.
        compile: ``parts`` out of the names of ``encoders``, and arguments of ``torch.compile``,
            e.g. ``dict(parts=['sam2'], mode='max-autotune')``. These are compiled in place, names
            in the state dict stay; the last chunk is filled up, so that they see one shape only.
            What comes after the encoders sees another shape for each batch size and K, and takes a
            twentieth of the time; it is left as it is. None compiles nothing.
        runtime: what runs the steps without a gradient on a CPU, see
            :class:`~mmfss.encoders.runtimes.RuntimeSettings`; 'auto' by default. In a training the
            steps that learn stay in torch, in its validations too.

    Attributes:
        has_trained: whether it was called with ``training``.

    Raises:
        ValueError: ``chunk`` below 1, or ``parts`` that are no encoders, or none at all; see
            :class:`~mmfss.encoders.runtimes.Runtimes`.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        cache: FeatureCache | None = None,
        chunk: int = 1,
        compile: Mapping[str, Any] | None = None,
        runtime: str | Mapping[str, Any] | None = None,
    ) -> None:
        self.encoders = dict(encoders)
        self.cache = cache
        self.chunk = integer('model.encode_batch', chunk, 1)
        self.compiled: tuple[str, ...] = ()
        self._options: dict[str, str] = {}
        self._made: dict[tuple, tuple[WeightsVersion, dict, Fingerprint]] = {}
        self.has_trained = False
        if compile is not None:
            self._compile(compile)
        self.runtimes = Runtimes(RuntimeSettings.of(runtime), self.compiled)

    def _compile(self, compile: Mapping[str, Any]) -> None:
        parts = compile.get('parts', ()) if isinstance(compile, Mapping) else None
        if not isinstance(parts, (list, tuple)):
            raise ValueError(
                f'model.compile must be None or dict(parts=[...]) with names of encoders, '
                f'{list(self.encoders)}, and arguments of torch.compile; got {compile!r}'
            )
        self.compiled = tuple(parts)
        if not self.compiled or set(self.compiled) - set(self.encoders):
            raise ValueError(
                f'model.compile.parts must be out of {list(self.encoders)}, the encoders of the '
                f'model, got {list(self.compiled)}'
            )
        options = {key: value for key, value in compile.items() if key != 'parts'}
        self._options = {key: str(value) for key, value in compile.items()}
        for name in self.compiled:
            self.encoders[name].compile(**{'dynamic': False, **options})

    def __call__(
        self, names: Iterable[str], images: Tensor | DeferredBatch, training: bool = False
    ) -> dict[str, Levels]:
        """What some of the encoders give for N images.

        Args:
            names: which.
            images: (N, 3, S, S) RGB 0..255, or images that are read where they must be.
            training: of the model. Pixels are then encoded in one batch, and kept only where the
                cache is told to; images that come as files are kept all the same.

        Returns:
            By name, tensors (N, ...). With a gradient only in training, where weights are trained.
        """
        steps = {name: self.encoders[name].steps() for name in names}
        if not training:
            return self._without_gradient(steps, images)
        self.has_trained = True
        # features = trained steps(frozen steps(x)); only what is frozen is kept
        frozen = {name: some[: leading_frozen(some)] for name, some in steps.items()}
        if isinstance(images, DeferredBatch) and any(not some for some in frozen.values()):
            images = all_pixels(images)
        if self.cache is not None and (isinstance(images, DeferredBatch) or self.cache.training):
            before = self._without_gradient({k: v for k, v in frozen.items() if v}, images)
        else:
            images = all_pixels(images)
            with torch.no_grad():
                before = {name: self._run(name, some, images) for name, some in frozen.items()}
        return {
            name: _through(some[len(frozen[name]) :], before.get(name, (images,)))
            for name, some in steps.items()
        }

    @contextmanager
    def run_by(self, runtimes: Runtimes) -> Iterator[None]:
        """Within, these run the steps; features of others in the cache are left alone."""
        runtimes, self.runtimes = self.runtimes, runtimes
        try:
            yield
        finally:
            self.runtimes = runtimes

    def in_torch(self) -> AbstractContextManager[None]:
        """Within, torch runs all steps, e.g. to have its operations counted."""
        return self.run_by(Runtimes(RuntimeSettings('torch')))

    @contextmanager
    def without_cache(self) -> Iterator[None]:
        """Within, everything is encoded and nothing is kept."""
        cache, self.cache = self.cache, None
        try:
            yield
        finally:
            self.cache = cache

    @torch.no_grad()
    def _without_gradient(
        self, steps: Mapping[str, Sequence[Step]], images: Tensor | DeferredBatch
    ) -> dict[str, Levels]:
        """The steps of each encoder for all images, through the cache."""
        if self.cache is None:
            chunks = all_pixels(images).split(self.chunk)
            return {
                name: cat([self._chunk(name, some, pixels) for pixels in chunks])
                for name, some in steps.items()
            }
        lazy = isinstance(images, DeferredBatch)
        names = images.keys if lazy else [content_key(image) for image in images]
        # an image that comes twice in a batch is encoded once
        place = {name: names.index(name) for name in names}
        size = images.files[0].shape if lazy else images.shape[-2:]
        keys = {encoder: self._key(encoder, some, size) for encoder, some in steps.items()}
        found = {
            encoder: {name: self.cache.get(keys[encoder], name, _device(some)) for name in place}
            for encoder, some in steps.items()
        }
        missing = [name for name in place if any(f[name] is None for f in found.values())]
        for start in range(0, len(missing), self.chunk):
            chunk = missing[start : start + self.chunk]
            pixels: dict[str, Tensor] = {}  # an image is read once for all encoders

            def read(some: Sequence[str], pixels: dict[str, Tensor] = pixels) -> Tensor:
                for name in some:
                    if name not in pixels:
                        i = place[name]
                        pixels[name] = images.pixels(i) if lazy else images[i : i + 1]
                return torch.cat([pixels[name] for name in some])

            for encoder, some in steps.items():
                todo = [name for name in chunk if found[encoder][name] is None]
                if todo:
                    entry = keys[encoder], some, todo, read, size
                    found[encoder].update(self._encode(encoder, *entry))
        return {encoder: tuple(cat([f[name] for name in names])) for encoder, f in found.items()}

    def _encode(
        self,
        encoder: str,
        key: str,
        steps: Sequence[Step],
        names: Sequence[str],
        read: Callable[[Sequence[str]], Tensor],
        size: tuple[int, int],
    ) -> dict[str, list[Tensor]]:
        """Encode images that the cache does not have under ``key``, and put them there."""
        assert self.cache is not None
        frozen = leading_frozen(steps)
        before: dict[str, list[Tensor] | None] = {}
        # another runtime that has all steps as one model would convert those below for this alone
        apart = self.has_trained or self._runner(encoder, steps, size)[0] is None
        if 0 < frozen < len(steps) and apart:
            first, below = self._key(encoder, steps[:frozen], size), steps[:frozen]
            before = {name: self.cache.get(first, name, _device(below)) for name in names}
            lacking = [name for name, levels in before.items() if levels is None]
            if lacking and self.has_trained:
                # the weights after it are new in each validation, those before it are not
                before.update(self._encode(encoder, first, below, lacking, read, size))
        if before and None not in before.values():
            levels = _through(steps[frozen:], tuple(cat([before[name] for name in names])))
        else:
            levels = self._chunk(encoder, steps, read(names))
        return {
            name: self.cache.put(key, name, [level[i : i + 1] for level in levels])
            for i, name in enumerate(names)
        }

    def _chunk(self, encoder: str, steps: Sequence[Step], pixels: Tensor) -> Levels:
        """At most ``chunk`` images; as many as that for a compiled encoder."""
        count = len(pixels)
        if encoder not in self.compiled:
            return self._from_pixels(encoder, steps, pixels)
        if count < self.chunk:
            pixels = torch.cat([pixels, pixels[-1:].expand(self.chunk - count, -1, -1, -1)])
        # in one memory layout: photos that are read for labelling have the channels last
        levels = _through(steps, (pixels.contiguous(),))
        # the next call of one that was compiled with CUDA graphs writes over its outputs
        return tuple(level[:count].clone() for level in levels)

    def _run(self, encoder: str, steps: Sequence[Step], images: Tensor) -> Levels:
        """A batch of training, as it is."""
        out = self._from_pixels(encoder, steps, images)
        return tuple(level.clone() for level in out) if self.compiled and steps else out

    def _from_pixels(self, encoder: str, steps: Sequence[Step], pixels: Tensor) -> Levels:
        runner, taken = self._runner(encoder, steps, pixels.shape[-2:])
        levels = (pixels,) if runner is None else runner.of_images(pixels)
        return _through(steps[taken if runner else 0 :], levels)

    def _runner(
        self,
        encoder: str,
        steps: Sequence[Step],
        size: Sequence[int],
        made: Fingerprint | None = None,
    ) -> tuple[Converted | None, int]:
        """What runs the first steps in the place of torch, if anything, and how many.

        Args:
            encoder, steps, size: see :meth:`_encode`.
            made: of all steps, by whoever has asked for it just now: that looks at all weights.
        """
        # steps that learn have other weights in each validation: a conversion would not pay
        taken = leading_frozen(steps) if self.has_trained else len(steps)
        first = steps[:taken]

        def about() -> dict[str, Any]:
            known = made if taken == len(steps) else None
            return (known or self._fingerprint(encoder, first)).about

        place = encoder, self.encoders[encoder], first, (size[0], size[1])
        return self.runtimes.of(*place, about), taken

    def _key(self, encoder: str, steps: Sequence[Step], size: Sequence[int]) -> str:
        """Key of the steps of an encoder as they are now; a new one when their weights change, or
        how torch computes, or what runs them."""
        assert self.cache is not None
        made = self._fingerprint(encoder, steps)
        runner = self._runner(encoder, steps, size, made)[0]
        if runner is not None:
            made = with_settings(made, runtime=runner.settings)
        # weights of a validation in mid-training do not come again: their features are not shared
        passing = self.has_trained and leading_frozen(steps) < len(steps)
        self.cache.open(made.key, made.about, share=not passing)
        return made.key

    def _fingerprint(self, encoder: str, steps: Sequence[Step]) -> Fingerprint:
        """Of the steps in torch."""
        device, switches = _device(steps), arithmetic()
        cast = torch.is_autocast_enabled(device.type)
        dtype = str(torch.get_autocast_dtype(device.type)) if cast else None
        # it reads all weights: made again only where a version counter has moved
        known = self._made.get((encoder, len(steps), dtype))
        if known is not None and known[1] == switches and known[0].holds():
            return known[2]
        owner = type(self.encoders[encoder])
        modules = {name: module for step in steps for name, module in step.modules.items()}
        settings = dict(
            encoder=f'{owner.__module__}.{owner.__qualname__}',
            arch=self.encoders[encoder].arch,
            autocast=dtype,
            encode_batch=self.chunk,
            compile=self._options if encoder in self.compiled else {},
        )
        version = WeightsVersion(modules.values())
        made = fingerprint(modules, settings, (owner,), (__name__,))
        self._made[encoder, len(steps), dtype] = version, switches, made
        return made


def leading_frozen(steps: Sequence[Step]) -> int:
    """How many steps come before the first with a parameter that is trained."""
    for count, step in enumerate(steps):
        if any(p.requires_grad for m in step.modules.values() for p in m.parameters()):
            return count
    return len(steps)


def all_pixels(images: Tensor | DeferredBatch) -> Tensor:
    """The pixels (N, 3, S, S); images that have not been read are read."""
    if isinstance(images, Tensor):
        return images
    return torch.cat([images.pixels(i) for i in range(len(images))])


def _through(steps: Sequence[Step], levels: Levels) -> Levels:
    for step in steps:
        levels = step.run(*levels)
    return levels


def _device(steps: Sequence[Step]) -> torch.device:
    modules = (module for step in steps for module in step.modules.values())
    return next(x for m in modules for x in chain(m.parameters(), m.buffers())).device
