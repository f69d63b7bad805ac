"""Mark classes in images, given a few marked ones of each: what people call on their own images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image

from mmfss.apis.check_result import SelfCheck
from mmfss.apis.images import ImageInput, as_bgr, files_below, read_ahead, to_model_size
from mmfss.apis.loading import choose_config, find_weights, load_model, read_config
from mmfss.apis.nway import ClassMasks, ClassStates, as_input, encode_classes, segment_classes
from mmfss.apis.photos import Photo, open_photo
from mmfss.apis.prediction import Marked, Prediction, TiledPrediction, check_threshold
from mmfss.apis.self_check import check_support
from mmfss.apis.support import SupportSet
from mmfss.apis.windows import Blend, Tiles
from mmfss.arguments import integer, optional
from mmfss.datasets.grey_values import GreyValues
from mmfss.encoders.runtimes import asked
from mmfss.functional import bfloat16
from mmfss.methods.base import FewShotModel

FALLBACK_THRESHOLD = 0.5


class FewShotInferencer:
    """Few-shot segmentation of N classes, in the manner of mmseg's inferencers.

    ::

        inferencer = FewShotInferencer('fss_sam2_pascal_1shot', weights='best_mIoU_epoch_20.pth')
        inferencer.set_support({'cat': [('a.jpg', 'a_mask.png'), ...], 'cup': [...]})
        result = inferencer('query.jpg')       # result.labels, result.scores, result.present

    The supports are encoded once; an image costs one encoding and a light pass per class.

    With ``batch_size=1`` what an image gives does not depend on the images beside it, bit by bit.
    In larger batches, which keep a GPU busy, it is the same up to rounding: object scores to about
    1e-5, labels but for pixels on a border between two.

    Args:
        config: name or path of a config, one that is loaded, or a model that is built. Without
            config and method: what :func:`mmfss.apis.loading.choose_config` says.
        weights: checkpoint; see :func:`mmfss.apis.loading.load_model`. None with a built model.
        device: e.g. 'cuda:1'; default: the first GPU, else the CPU.
        threshold: of the object score, in [0, 1]: a class that scores below it in an image is not
            marked there. One for all classes or ``{class: threshold}``. Default: the config's
            ``object_threshold``, which belongs to its prior encoder.
        amp: run under bfloat16 autocast.
        batch_size: images of a list, folder or iterable that are read, encoded and segmented
            together; the next ones are read meanwhile. A model that is built encodes as many at a
            time as its own ``encode_batch`` says.
        pairs: of image and class that go through the model at once, at most; bounds the memory.
            None takes what suits the device, see :func:`mmfss.apis.nway.segment_classes`.
        feature_cache: folder where the features of all images are kept, to label them again with
            other supports, classes or thresholds: about 9 MB an image at full size in float32, half
            of it under ``amp``. Results are equal to the last bit with ``batch_size=1`` and as many
            threads; each batch size has features of its own. Or arguments of
            :class:`mmfss.features.cache.FeatureCache`, such as budgets. None keeps none, whatever
            the config says. A model that is built has a ``feature_cache`` of its own.
        method: name of a method, in the place of the config: 'prototype', see ``METHOD`` in the
            README.
        grey_values: what black and white stand for in photos of more than 8 bits per channel,
            supports included: ``dict(bit_depth=12)``, ``dict(percentiles=(1, 99))`` or
            ``dict(limits=(0, 3000))``; see :class:`mmfss.datasets.grey_values.GreyValues`. None:
            the whole range of 16 bits.
        runtime: what runs the encoders on a CPU: 'auto' (the faster one in fp32, by measurement),
            'torch' or 'openvino', or all entries of
            :class:`mmfss.encoders.runtimes.RuntimeSettings`; None: the config's, else 'auto'.
        precision: 'fp32', or by OpenVINO 'bf16' or 'int8'.
        calibration: folder of photos that int8 is fitted to.

    Raises:
        FileNotFoundError, ValueError: See :func:`mmfss.apis.loading.load_model` and
            :func:`mmfss.apis.prediction.check_threshold`.
    """

    def __init__(
        self,
        config: str | os.PathLike | Config | FewShotModel | None = None,
        weights: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        threshold: float | Mapping[str, float] | None = None,
        amp: bool = False,
        batch_size: int = 1,
        pairs: int | None = None,
        feature_cache: str | os.PathLike | Mapping[str, Any] | None = None,
        method: str | None = None,
        grey_values: GreyValues | Mapping[str, Any] | None = None,
        runtime: str | Mapping[str, Any] | None = None,
        precision: str | None = None,
        calibration: str | os.PathLike | None = None,
    ) -> None:
        self.batch_size = integer('batch_size', batch_size, 1)
        self.pairs = optional('pairs', pairs)
        self.grey_values = GreyValues.of(grey_values)
        default, encoder_runtime = FALLBACK_THRESHOLD, asked(runtime, precision, calibration)
        self.weights: str | None = None
        if method is not None and isinstance(config, (Config, FewShotModel)):
            raise ValueError(f'method {method!r} and a {type(config).__name__} are both given')
        if isinstance(config, FewShotModel):
            if weights is not None:
                raise ValueError('weights are given with a model that is built; load them into it')
            if encoder_runtime is not None:
                raise ValueError(
                    'runtime or precision are given with a model that is built; build it with '
                    f'encoder_runtime={encoder_runtime}'
                )
            if feature_cache is not None:
                raise ValueError(
                    'feature_cache is given with a model that is built; build it with '
                    "feature_cache=dict(type='FeatureCache', directory=...)"
                )
            self.model = config.eval() if device is None else config.to(device).eval()
        else:
            if isinstance(config, Config):
                cfg = config
            else:
                cfg = read_config(choose_config(config, method, weights))
            default = cfg.get('object_threshold', default)
            self.weights = find_weights(cfg, weights)
            self.model = load_model(
                cfg, self.weights, device, feature_cache, batch_size, encoder_runtime
            )
        self.threshold = default if threshold is None else threshold
        if not isinstance(self.threshold, Mapping):
            check_threshold(self.threshold, ('all',))
        self.amp = amp
        self._support: SupportSet | None = None
        self._states: ClassStates | None = None

    # ------------------------------------------------------------------ supports

    @property
    def image_size(self) -> int:
        """Side S of the square that images are brought to."""
        return self.model.image_size

    @property
    def resize(self) -> str:
        """How they are brought to it, out of :data:`mmfss.functional.RESIZES`."""
        return self.model.resize

    @property
    def has_support(self) -> bool:
        """Whether the model was shown something."""
        return self._support is not None

    @property
    def support(self) -> SupportSet:
        """What the model was shown.

        Raises:
            ValueError: Nothing yet.
        """
        if self._support is None:
            raise ValueError(
                "there is no support yet: call set_support({'cat': [(image, mask), ...]}) or "
                'load_support(file) first'
            )
        return self._support

    @property
    def states(self) -> ClassStates | None:
        """What is kept of the supports, encoded; None before there are some."""
        return self._states

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels 1..N."""
        return self.support.classes

    def set_support(
        self,
        support: SupportSet | Mapping[str, Sequence[tuple[ImageInput, Any]]],
        negatives: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Show the model its classes, in the place of those before; each image is encoded here.

        Args:
            support: name of a class -> its K (image, mask) pairs, K >= 1 and not the same for all;
                see :func:`mmfss.apis.images.as_bgr` and :func:`mmfss.apis.support.as_mask` for
                what they may be. Or a :class:`SupportSet`.
            negatives: name of a class -> what it is not, though it may look like it: images, or
                (image, mask) pairs that mark where; see
                :func:`mmfss.apis.support.make_negative`. A :class:`SupportSet` has its own.

        Raises:
            FileNotFoundError, ValueError: An image or mask that cannot be used, or negatives that
                the method does not take; the supports from before are then still there.
        """
        support = self._checked(support, negatives)
        with self._context():
            states = encode_classes(self.model, *support.pairs())
        self._support, self._states = support, states

    def _checked(
        self,
        support: SupportSet | Mapping[str, Sequence[tuple[ImageInput, Any]]],
        negatives: Mapping[str, Sequence[Any]] | None,
    ) -> SupportSet:
        if not isinstance(support, SupportSet):
            how = self.image_size, self.resize, negatives, self.grey_values
            support = SupportSet.build(support, *how)
        elif negatives is not None:
            raise ValueError(
                'negatives are given with a SupportSet, which has its own; give them to '
                'SupportSet.build'
            )
        support.check_image_size(self.image_size, self.resize)
        if isinstance(self.threshold, Mapping):
            check_threshold(self.threshold, support.classes)
        return support

    def save_support(self, path: str | os.PathLike) -> None:
        """Write the support set to a small file (safetensors, no pickle) that holds its images and
        masks at the model's size. Endings are not added."""
        self.support.save(path)

    def load_support(self, path: str | os.PathLike) -> None:
        """Take the support set of a file of :meth:`save_support`, with the same results.

        Raises:
            FileNotFoundError, ValueError: No such file, damaged, or of another format, version or
                image size.
        """
        self.set_support(SupportSet.load(path))

    def check(
        self,
        support: SupportSet | Mapping[str, Sequence[tuple[ImageInput, Any]]] | None = None,
        negatives: Mapping[str, Sequence[Any]] | None = None,
    ) -> SelfCheck:
        """Predict each support from the others, see :mod:`mmfss.apis.self_check`. ::

            found = inferencer.check({'cat': [('a.jpg', 'a_mask.png'), ...], 'cup': [...]})
            print(found.text())
            inferencer.threshold = found.thresholds(inferencer.threshold)

        Args:
            support, negatives: as for :meth:`set_support`, which this then does too, with one
                encoding of each image for both. None checks what is there, and encodes it once
                more.

        Raises:
            FileNotFoundError, ValueError: see :meth:`set_support`, and
                :func:`mmfss.apis.self_check.check_support`.
        """
        if support is None:
            with self._context():
                return check_support(self.model, self.support)[0]
        shown = self._checked(support, negatives)
        with self._context():
            found, states = check_support(self.model, shown)
        self._support, self._states = shown, states
        return found

    # ------------------------------------------------------------------ images

    def __call__(
        self,
        inputs: ImageInput | Iterable[ImageInput],
        tiles: int | None = None,
        overlap: int | None = None,
    ) -> Marked | list[Marked] | Iterator[Marked]:
        """Mark the classes.

        Args:
            inputs: an image (see :func:`mmfss.apis.images.as_bgr`); a list of them; a folder, or
                any other iterable of images.
            tiles: look at images through windows of this side in pixels, ``batch_size`` of them
                together; see :mod:`mmfss.apis.windows`. None takes images as a whole.
            overlap: of the windows in pixels, at least; by default an eighth of them.

        Returns:
            A :class:`Prediction`, with ``tiles`` a :class:`TiledPrediction`; a list for a list; an
            iterator for a folder or iterable, which works as it goes and keeps nothing.

        Raises:
            FileNotFoundError, ValueError: No support, an image that cannot be read, wrong tiles.
        """
        _ = self.support
        stream: Callable[[Iterable[ImageInput]], Iterator[Marked]] = self._stream
        if tiles is not None:
            stream = partial(self._stream_tiled, tiles=Tiles(tiles, overlap))
        elif overlap is not None:
            raise ValueError(f'overlap is of tiles, and there are none; got {overlap!r}')
        if isinstance(inputs, (str, os.PathLike)) and Path(inputs).is_dir():
            return stream(files_below(inputs))
        if isinstance(inputs, (str, os.PathLike, np.ndarray, Image.Image)):
            if tiles is not None:
                return next(stream([inputs]))
            pixels = as_bgr(inputs, 'image', self.grey_values)
            return self.predict([pixels], [_source(inputs, 'image')])[0]
        if isinstance(inputs, (list, tuple)):
            return list(stream(inputs))
        if isinstance(inputs, Iterable):
            return stream(inputs)
        raise ValueError(
            'inputs must be a path, an array (H, W, 3), an image of Pillow, a list or other '
            f'iterable of them, or a folder; got {type(inputs).__name__}'
        )

    def predict(self, images: Sequence[np.ndarray], sources: Sequence[str]) -> list[Prediction]:
        """Mark the classes in images that are read already, as one batch.

        Args:
            images: Q of them, uint8 (H, W, 3) BGR, of any sizes.
            sources: what they are called.

        Raises:
            ValueError: No support yet.
        """
        names, found = self.classes, self._segment(images)
        thresholds = check_threshold(self.threshold, names)
        parts = [tuple(None if p is None else p.cpu().numpy() for p in ps) for ps in found.parts]
        rows = zip(images, sources, found.scores.numpy(), found.logits.numpy(), parts, strict=True)
        return [
            Prediction.make(names, scores, thresholds, logits, image.shape[:2], source, some)
            for image, source, scores, logits, some in rows
        ]

    def predict_tiled(
        self,
        photo: Photo,
        tiles: Tiles,
        source: str,
        sure: bool = False,
        done: Callable[[int, int], None] = lambda number, of: None,
    ) -> TiledPrediction:
        """Mark the classes in a photo, ``batch_size`` windows at a time.

        Args:
            photo, source: of :func:`mmfss.apis.photos.open_photo`, and what it is called.
            tiles: the windows.
            sure: keep how sure each pixel is, one byte each.
            done: is told after each batch how many windows are done, and of how many.

        Raises:
            ValueError: No support yet, or a part of the photo cannot be read.
        """
        grid, count = tiles.over(*photo.shape), 0
        blend = Blend(grid, check_threshold(self.threshold, self.classes), sure)
        for batch in read_ahead(photo.window, grid.windows, self.batch_size):
            found = self._segment([one.result() for one in batch])
            windows = grid.windows[count : count + len(batch)]
            for one in zip(windows, found.logits, found.scores, strict=True):
                blend.add(*one)
            count += len(windows)
            done(count, len(grid.windows))
        return blend.prediction(self.classes, source)

    def _segment(self, images: Sequence[np.ndarray]) -> ClassMasks:
        """Masks and scores of all classes in images, as one batch; both on the CPU."""
        side, how, device = self.image_size, self.resize, self._device
        small = torch.cat([as_input(to_model_size(image, side, how), device) for image in images])
        with self._context(), torch.no_grad():
            features = self.model.encode_image(small)
            masks = segment_classes(self.model, features, self._encoded(), self.pairs)
        return ClassMasks(masks.logits.cpu(), masks.scores.cpu(), masks.parts)

    def _stream(self, images: Iterable[ImageInput]) -> Iterator[Prediction]:
        """In batches; one that cannot be read is an error after the results of those before it."""
        for batch in read_ahead(self._read, enumerate(images), self.batch_size):
            good = [one.result() for one in takewhile(_is_whole, batch)]
            number = len(good)
            if good:
                yield from self.predict(*zip(*good))
            del good  # as many images are read now
            if number < len(batch):
                batch[number].result()

    def _stream_tiled(self, images: Iterable[ImageInput], tiles: Tiles) -> Iterator[Marked]:
        """One after the other: of large photos the next one is not read meanwhile."""
        for number, image in enumerate(images):
            name = f'image {number}'
            with open_photo(image, name, self.grey_values) as photo:
                yield self.predict_tiled(photo, tiles, _source(image, name))

    def _read(self, numbered: tuple[int, ImageInput]) -> tuple[np.ndarray, str]:
        """An image uint8 (H, W, 3) BGR, and what it is called."""
        number, image = numbered
        name = f'image {number}'
        return as_bgr(image, name, self.grey_values), _source(image, name)

    # ------------------------------------------------------------------ the model

    def _encoded(self) -> ClassStates:
        _ = self.support
        return cast(ClassStates, self._states)

    @property
    def _device(self) -> torch.device:
        return self.model.device

    def _context(self) -> AbstractContextManager:
        return bfloat16(self._device, self.amp)

    @torch.no_grad()
    def encode(self, image: np.ndarray) -> Any:
        """Features of a uint8 (S, S, 3) BGR image, encoded by itself."""
        with self._context():
            return self.model.encode_image(as_input(image, self._device))


def _source(image: ImageInput, name: str) -> str:
    return str(image) if isinstance(image, (str, os.PathLike)) else name


def _is_whole(read: Future) -> bool:
    return read.exception() is None
