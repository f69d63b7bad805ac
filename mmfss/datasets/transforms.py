"""Transforms of one image of an episode that mmcv and mmseg do not have, and the packing.

Resizing, flipping and rotating are mmcv's and mmseg's (``Resize``, ``RandomResize``,
``RandomFlip``, ``RandomRotate``). A training pipeline is, in this order: ``LoadImage``,
``LoadLabel``, ``BinarizeLabel``, scale, ``RandomRotate``, ``RandomBlur``, ``RandomFlip``,
``RandomCropKeepObject``. At test: ``LoadImage``, ``Resize``, ``LoadLabel``, ``BinarizeLabel``
for the query, whose label thus keeps its size, and ``Resize`` last for the supports.

Keys: ``img`` uint8 (H, W, 3) BGR; ``gt_seg_map`` uint8 (h, w); ``ori_shape`` (h, w) as stored;
``img_shape`` (H, W) as it is now.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.registry import TRANSFORMS
from mmseg.structures import SegDataSample

from mmfss.datasets.io import read_image, read_mask

IGNORE = 255
IMAGENET_MEAN_BGR = (104, 116, 124)
"""ImageNet mean in 0..255: what images are padded with."""


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Reads ``img_path`` into ``img``; adds ``img_shape``, ``ori_shape``.

    Args:
        exif_orientation: Turn the image upright as its EXIF tag says.

    Raises:
        FileNotFoundError, ValueError: As :func:`mmfss.datasets.io.read_image`.
    """

    def __init__(self, exif_orientation: bool = False) -> None:
        self.exif_orientation = exif_orientation

    def transform(self, results: dict) -> dict:
        """Adds the image to the results."""
        image = read_image(results['img_path'], self.exif_orientation)
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results


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
class RandomBlur(BaseTransform):
    """Gaussian blur of the image.

    Args:
        prob: Probability in 0..1.
        kernel_size: Odd side of the kernel.

    Raises:
        ValueError: Arguments out of range.
    """

    def __init__(self, prob: float = 0.5, kernel_size: int = 5) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'prob of RandomBlur must be in 0..1, got {prob}')
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size of RandomBlur must be odd, got {kernel_size}')
        self.prob, self.kernel_size = prob, kernel_size

    def transform(self, results: dict) -> dict:
        """Blurs ``img`` or leaves it."""
        if np.random.random() < self.prob:
            size = (self.kernel_size, self.kernel_size)
            results['img'] = cv2.GaussianBlur(results['img'], size, 0)
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
            best = tuple(
                int(np.clip(p - size // 2, 0, r)) for p, r in zip(nearest, room, strict=True)
            )
        return best


def _image_tensor(results: dict) -> torch.Tensor:
    """BGR image (H, W, 3) as a uint8 tensor (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(results['img'].transpose(2, 0, 1)))


def pack_episode(query: dict, supports: Sequence[dict], meta: dict) -> dict:
    """Put the transformed images of an episode into the form that the model takes.

    Args:
        query: Results of the query's pipeline, with its label (the truth, not an input).
        supports: Results of the K supports' pipelines, all of one size.
        meta: Further metainfo of the data sample: class, episode number.

    Returns:
        ``inputs``: ``query`` uint8 (3, H, W) BGR, ``support`` uint8 (K, 3, H, W), and
        ``support_mask`` uint8 (K, H, W) of {0, 1, 255}; ``data_samples``: a SegDataSample with
        ``gt_sem_seg`` uint8 (1, h, w) and the metainfo.

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
    inputs = dict(
        query=_image_tensor(query),
        support_mask=masks,
        support=torch.stack([_image_tensor(s) for s in supports]),
    )
    return dict(inputs=inputs, data_samples=sample)
