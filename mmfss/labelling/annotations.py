"""COCO annotations of a label map: one for each class that is there, or one for each object.

Objects are what the method itself keeps apart, where it does (the masks of GF-SAM, those that SAM 2
makes for INSID3); else connected parts, where pixels that touch at a corner are connected. Either
way the objects of a class are disjoint, and together they are its region.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from mmfss.apis.prediction import Marked
from mmfss.regions import cropped, mask_code, region_code

_DIGITS = 6


def regions_of(labels: np.ndarray, num_classes: int) -> list[dict[str, Any]]:
    """One annotation for each class that is there.

    Args:
        labels: uint8 (H, W) of 0..N.
        num_classes: N.

    Returns:
        As COCO has them: 'category_id', 'segmentation' (run-length code as text), 'area' and 'bbox'
        [x, y, width, height] in pixels.
    """
    from pycocotools import mask as coco_mask

    annotations = []
    by_columns = cv2.transpose(labels).T  # the order of pycocotools, brought about once
    for label in range(1, num_classes + 1):
        mask = by_columns == label
        area = int(np.count_nonzero(mask))
        if not area:
            continue
        code = mask_code(mask)
        annotations.append(
            dict(
                category_id=label,
                segmentation=code,
                area=area,
                bbox=[int(side) for side in coco_mask.toBbox(code)],
            )
        )
    return annotations


def objects_of(
    labels: np.ndarray, num_classes: int, prediction: Marked | None = None
) -> list[dict[str, Any]]:
    """One annotation for each object, by class; those of a class from the upper left to the lower
    right.

    Args:
        labels: uint8 (H, W) of 0..N.
        num_classes: N.
        prediction: what the labels are of; None where a person has drawn them.

    Returns:
        As :func:`regions_of`. With a prediction each has a 'score' in [0, 1]: the object score of
        the class times the probability of the pixel in its mask, mean over the object.
    """
    sure = None if prediction is None else prediction.sureness()
    parts = getattr(prediction, 'parts', ())
    annotations = []
    for label in range(1, num_classes + 1):
        region = labels == label
        if not region.any():
            continue
        masks = parts[label - 1] if parts else None
        found = _by_masks(region, masks) if masks is not None and len(masks) else _parts(region)
        for top, left, mask in found:
            height, width = mask.shape
            one = dict(
                category_id=label,
                segmentation=region_code(mask, left, top, *labels.shape),
                area=int(np.count_nonzero(mask)),
                bbox=[left, top, width, height],
            )
            if sure is not None:
                inside = sure[top : top + height, left : left + width][mask]
                one['score'] = round(float(inside.mean(dtype=np.float64)) / 255, _DIGITS)
            annotations.append(one)
    return annotations


def _parts(region: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Connected parts of a mask: top, left, and a mask of its own, by the first pixel in reading
    order."""
    # with eight neighbours
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats(region.view(np.uint8))
    boxes = boxes[:, :4].tolist()

    def first(number: int) -> tuple[int, int]:
        left, top, width, _ = boxes[number]
        return top, left + int((numbers[top, left : left + width] == number).argmax())

    for number in sorted(range(1, count), key=first):
        left, top, width, height = boxes[number]
        yield top, left, numbers[top : top + height, left : left + width] == number


def _by_masks(region: np.ndarray, masks: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """As :func:`_parts`: a pixel of the region belongs to the mask, of logits (m, l, l), that is
    largest there."""
    best = torch.full(region.shape, -torch.inf)
    owner = np.zeros(region.shape, np.int32)
    for number, one in enumerate(torch.from_numpy(masks)):
        full = F.interpolate(one[None, None].float(), region.shape, mode='bilinear')[0, 0]
        owner[(full > best).numpy()] = number
        torch.maximum(best, full, out=best)
    made = []
    for number in range(len(masks)):
        mask = region & (owner == number)
        if mask.any():
            part, left, top = cropped(mask)
            made.append((top, left, part))
    yield from sorted(made, key=lambda one: (one[0], one[1] + int(one[2][0].argmax())))
