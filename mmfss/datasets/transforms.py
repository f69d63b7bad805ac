"""Transforms of one image of an episode that mmcv and mmseg do not have.

Resizing, flipping and rotating are mmcv's and mmseg's (``Resize``, ``RandomResize``,
``RandomFlip``, ``RandomRotate``). A training pipeline is, in this order: ``LoadImage``,
``LoadLabel``, ``BinarizeLabel``, scale, ``RandomRotate``, ``RandomBlur``, ``RandomFlip``,
``RandomCropKeepObject``. At test: ``LoadImage``, ``Resize``, ``LoadLabel``, ``BinarizeLabel``
for the query, whose label thus keeps its size, and ``Resize`` last for the supports.

Keys: ``img`` uint8 (H, W, 3) BGR; ``gt_seg_map`` uint8 (h, w); ``ori_shape`` (h, w) as stored;
``img_shape`` (H, W) as it is now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv import transforms as mmcv_transforms
from mmcv.transforms import BaseTransform
from mmseg.datasets.transforms import RandomRotate, Resize
from mmseg.registry import TRANSFORMS

from mmfss.datasets.grey_values import GreyValues
from mmfss.datasets.io import image_shape, read_image, read_mask

IGNORE = 255
IMAGENET_MEAN_BGR = (104, 116, 124)
"""ImageNet mean in 0..255: what images are padded with."""
RESIZE = (Resize, mmcv_transforms.Resize)
"""Classes that resize image and label to what their arguments say."""


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Reads ``img_path`` into ``img``; adds ``img_shape``, ``ori_shape``.

    Args:
        exif_orientation: Turn the image upright as its EXIF tag says.
        reduce_to: Side or (w, h) >= 1 that large JPEGs may be decoded close to, which saves most
            of their time, see :func:`mmfss.datasets.io.read_image`; None decodes them whole.
            The pixels then differ a little. It belongs before a ``Resize`` to a fixed ``scale``
            that is no larger, see :func:`check_reduced`. ``ori_shape`` stays that of the file,
            ``img_shape`` is what came.
        grey_values: What black and white stand for in photos of more than 8 bits:
            ``dict(bit_depth=12)``, ``dict(percentiles=(1, 99))`` or ``dict(limits=(0, 3000))``, see
            :class:`mmfss.datasets.grey_values.GreyValues`. None: the whole range of 16 bits, or
            that with which the dataset was prepared.

    Raises:
        FileNotFoundError, ValueError: As :func:`mmfss.datasets.io.read_image`; ``reduce_to`` out
            of range.
    """

    def __init__(
        self,
        exif_orientation: bool = False,
        reduce_to: int | Sequence[int] | None = None,
        grey_values: Mapping[str, Any] | None = None,
    ) -> None:
        self.grey_values = GreyValues.of(grey_values).record()
        self.exif_orientation = exif_orientation
        sides = (reduce_to, reduce_to) if isinstance(reduce_to, int) else reduce_to
        if sides is not None and (
            len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides)
        ):
            raise ValueError(
                f'reduce_to of LoadImage must be None, a side or (width, height) >= 1, got '
                f'{reduce_to!r}'
            )
        self.reduce_to = None if sides is None else (sides[0], sides[1])

    def shape_of(self, path: str) -> tuple[int, int]:
        """``ori_shape`` of a file, from its header.

        Raises:
            FileNotFoundError, ValueError: As :func:`mmfss.datasets.io.image_shape`.
        """
        return image_shape(path, self.exif_orientation)

    def transform(self, results: dict) -> dict:
        """Adds the image to the results."""
        path = results['img_path']
        how = _grey_values(json.dumps(self.grey_values))
        image = read_image(path, self.exif_orientation, self.reduce_to, how)
        whole = image.shape[:2] if self.reduce_to is None else self.shape_of(path)
        results.update(img=image, img_shape=image.shape[:2], ori_shape=whole)
        return results


@lru_cache
def _grey_values(record: str) -> GreyValues:
    """One for all pipelines of a process, which says once what is lost."""
    return GreyValues.of(json.loads(record))


def read_grey_values(transforms: Sequence, prepared: Mapping[str, Any] | None) -> None:
    """Let ``LoadImage`` read photos with the range that their dataset was prepared with, unless it
    has one of its own."""
    for transform in transforms:
        if isinstance(transform, LoadImage) and transform.grey_values is None:
            transform.grey_values = GreyValues.of(prepared).record()


@TRANSFORMS.register_module()
class LoadLabel(BaseTransform):
    """Reads ``seg_map_path`` into ``gt_seg_map`` and lists it in ``seg_fields``.

    Before a resize the label follows the image; after it, it keeps its original size.

    Raises:
        FileNotFoundError, ValueError: As :func:`mmfss.datasets.io.read_mask`, or the label's
            size is not that of the stored image.
    """

    def transform(self, results: dict) -> dict:
        """Adds the label to the results."""
        if 'ori_shape' not in results:
            raise ValueError(
                'LoadLabel compares the label with its image; put LoadImage before '
                'it in the pipeline'
            )
        label = read_mask(results['seg_map_path'])
        if label.shape != tuple(results['ori_shape']):
            raise ValueError(
                f"mask {results['seg_map_path']} is {label.shape[0]} x {label.shape[1]} pixels "
                f"(height x width), its image {results['img_path']} is "
                f"{results['ori_shape'][0]} x {results['ori_shape'][1]}; they must be equal, "
                'make the mask anew from its image'
            )
        results['gt_seg_map'] = label
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results


@TRANSFORMS.register_module()
class BinarizeLabel(BaseTransform):
    """``gt_seg_map`` becomes 1 on ``label_value``, 255 where it is 255, and 0 elsewhere."""

    def transform(self, results: dict) -> dict:
        """Replaces the label by a uint8 one of {0, 1, 255}."""
        label = results['gt_seg_map']
        binary = (label == results['label_value']).astype(np.uint8)
        binary[label == IGNORE] = IGNORE
        results['gt_seg_map'] = binary
        return results


@TRANSFORMS.register_module()
class RandomRotateNearest(RandomRotate):
    """mmseg's ``RandomRotate``, but each pixel of the image is one of the image before, as
    torchvision rotates by default; mmseg mixes four."""

    def transform(self, results: dict) -> dict:
        """Rotates ``img`` and all ``seg_fields`` by one angle, or leaves them."""
        rotate, angle = self.generate_degree()
        if rotate:
            how = dict(angle=angle, center=self.center, auto_bound=self.auto_bound)
            values = {'img': self.pal_val, **dict.fromkeys(results['seg_fields'], self.seg_pad_val)}
            for key, value in values.items():
                results[key] = mmcv.imrotate(
                    results[key], border_value=value, interpolation='nearest', **how
                )
        return results


@TRANSFORMS.register_module()
class RandomBlur(BaseTransform):
    """Gaussian blur of the image.

    Args:
        prob: Probability in 0..1.
        kernel_size: Odd side of the kernel.
        sigma: Range that its deviation in pixels is drawn from, uniform; None takes the one that
            OpenCV gives to the kernel.

    Raises:
        ValueError: Arguments out of range.
    """

    def __init__(
        self,
        prob: float = 0.5,
        kernel_size: int = 5,
        sigma: Sequence[float] | None = None,
    ) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'prob of RandomBlur must be in 0..1, got {prob}')
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size of RandomBlur must be odd, got {kernel_size}')
        if sigma is not None and not (len(sigma) == 2 and 0 < sigma[0] <= sigma[1]):
            raise ValueError(
                f'sigma of RandomBlur must be None or (lowest, highest) > 0, got {sigma!r}'
            )
        self.prob, self.kernel_size, self.sigma = prob, kernel_size, sigma

    def transform(self, results: dict) -> dict:
        """Blurs ``img`` or leaves it."""
        if np.random.random() < self.prob:
            size = (self.kernel_size, self.kernel_size)
            sigma = 0.0 if self.sigma is None else float(np.random.uniform(*self.sigma))
            results['img'] = cv2.GaussianBlur(results['img'], size, sigma)
        return results


@TRANSFORMS.register_module()
class RandomCropKeepObject(BaseTransform):
    """Random square crop that keeps most of the object (value 1 of ``gt_seg_map``).

    A side below the crop size is padded, evenly on both ends. Positions are redrawn until the
    crop keeps ``keep_ratio`` of the object's pixels; after ``max_tries`` the best one is
    taken. Where even that holds none of them, the crop is centred on an object pixel near the
    object's centre, so that a mask with foreground stays one. A label without foreground gets
    the first draw.

    Args:
        crop_size: Side S of the crop.
        pad_val: Image padding, BGR.
        seg_pad_val: Label padding.
        keep_ratio: Share of the object's pixels to keep, in 0..1.
        max_tries: Number of draws, >= 1.

    Raises:
        ValueError: Arguments out of range, or a label whose size is not the image's.
    """

    def __init__(
        self,
        crop_size: int,
        pad_val: Sequence[float] = IMAGENET_MEAN_BGR,
        seg_pad_val: int = IGNORE,
        keep_ratio: float = 0.85,
        max_tries: int = 30,
    ) -> None:
        for name, ok, value in (
            ('crop_size', crop_size >= 1, crop_size),
            ('keep_ratio', 0 <= keep_ratio <= 1, keep_ratio),
            ('max_tries', max_tries >= 1, max_tries),
        ):
            if not ok:
                raise ValueError(
                    f'{name} of RandomCropKeepObject is out of range: {value}; '
                    'crop_size and max_tries are >= 1, keep_ratio is in 0..1'
                )
        self.crop_size, self.pad_val, self.seg_pad_val = crop_size, tuple(pad_val), seg_pad_val
        self.keep_ratio, self.max_tries = keep_ratio, max_tries

    def transform(self, results: dict) -> dict:
        """Crops ``img`` and ``gt_seg_map`` to (S, S)."""
        image, label = results['img'], results['gt_seg_map']
        if image.shape[:2] != label.shape:
            raise ValueError(
                f'RandomCropKeepObject needs image and label of one size, got '
                f'{image.shape[:2]} and {label.shape} for '
                f"{results.get('img_path')}; load the label before resizing"
            )
        image, label = self._pad(image, self.pad_val), self._pad(label, self.seg_pad_val)
        top, left = self._choose(label == 1)
        window = np.s_[top : top + self.crop_size, left : left + self.crop_size]
        results['img'] = np.ascontiguousarray(image[window])
        results['gt_seg_map'] = np.ascontiguousarray(label[window])
        results['img_shape'] = results['img'].shape[:2]
        return results

    def _pad(self, array: np.ndarray, value: float | Sequence[float]) -> np.ndarray:
        height, width = (max(0, self.crop_size - side) for side in array.shape[:2])
        if not height and not width:
            return array
        return cv2.copyMakeBorder(
            array,
            height // 2,
            height - height // 2,
            width // 2,
            width - width // 2,
            cv2.BORDER_CONSTANT,
            value=value,
        )

    def _choose(self, inside: np.ndarray) -> tuple[int, int]:
        """Top and left of the crop, given where the object is (bool)."""
        size = self.crop_size
        room = [side - size for side in inside.shape]
        total = int(np.count_nonzero(inside))
        best, best_kept = (0, 0), -1
        for _ in range(self.max_tries):
            top, left = (int(np.random.randint(0, r + 1)) for r in room)
            kept = int(np.count_nonzero(inside[top : top + size, left : left + size]))
            if kept > best_kept:
                best, best_kept = (top, left), kept
            if kept >= self.keep_ratio * total or room == [0, 0]:
                break
        if total and best_kept == 0:
            points = np.argwhere(inside)
            nearest = points[np.abs(points - points.mean(axis=0)).sum(axis=1).argmin()]
            top, left = (
                int(np.clip(p - size // 2, 0, r)) for p, r in zip(nearest, room, strict=True)
            )
            best = top, left
        return best


def check_reduced(transforms: Sequence) -> None:
    """Check that images decoded at a reduced size go into a resize that does not need to know it.

    Args:
        transforms: The transforms of a pipeline.

    Raises:
        ValueError: ``LoadImage(reduce_to=...)`` is not followed by a ``Resize`` to a fixed scale
            of at most that size: a label would be resized by another ratio than its image, or
            the image be enlarged again.
    """
    load = next((t for t in transforms if isinstance(t, LoadImage)), None)
    if load is None or load.reduce_to is None:
        return
    after = [t for t in transforms if not isinstance(t, (LoadImage, LoadLabel, BinarizeLabel))]
    first: Any = after[0] if after else None
    fixed = type(first) in RESIZE and first.scale is not None and not first.keep_ratio
    if fixed and all(want <= got for want, got in zip(first.scale, load.reduce_to, strict=True)):
        return
    got = 'nothing' if first is None else f'{type(first).__name__}'
    if type(first) in RESIZE:
        got += f'(scale={first.scale}, keep_ratio={first.keep_ratio})'
    raise ValueError(
        f'LoadImage(reduce_to={load.reduce_to}) must be followed by a Resize to a fixed scale of '
        f'at most that size, got {got}: the label, which keeps its full size, would no longer '
        'fit its image. Set Resize(scale=(w, h), keep_ratio=False), or leave out reduce_to'
    )
