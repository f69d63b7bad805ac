"""What is written for one image: its label, its overlay, its record."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from PIL import Image

from mmfss.apis.prediction import Prediction
from mmfss.datasets.classes import label_palette
from mmfss.datasets.io import read_image, read_mask, save_png
from mmfss.files import atomic
from mmfss.labelling.folder import ANN_DIR, OVERLAYS
from mmfss.labelling.records import Entry
from mmfss.labelling.sources import label_name, stem_of

OVERLAY_SIDE = 1600
_DIGITS = 6


def write_label(out: Path, name: str, prediction: Prediction) -> dict[str, Any]:
    """Write the palette PNG of an image.

    Returns:
        What a record says of it: 'label' (size and CRC-32 of the file), 'height', 'width', and
        'annotations', one for each class that is there.
    """
    path = out / ANN_DIR / label_name(name)
    save_png(path, prediction.labels, prediction.palette)
    return describe_label(path, prediction.labels, len(prediction.classes))


def describe_label(path: Path, labels: np.ndarray, num_classes: int) -> dict[str, Any]:
    """See :func:`write_label`; ``labels``: uint8 (H, W), the content of ``path``."""
    height, width = labels.shape
    return dict(
        label=label_state(path),
        height=height,
        width=width,
        annotations=annotations_of(labels, num_classes),
    )


def annotations_of(labels: np.ndarray, num_classes: int) -> list[dict[str, Any]]:
    """The regions of classes 1..N in uint8 (H, W) as COCO has them: 'category_id', 'segmentation'
    (run-length code as text), 'area' and 'bbox' [x, y, width, height] in pixels."""
    from pycocotools import mask as coco_mask

    found = []
    by_columns = cv2.transpose(labels).T  # the order of pycocotools, brought about once
    for label in range(1, num_classes + 1):
        mask = by_columns == label
        area = int(np.count_nonzero(mask))
        if not area:
            continue
        code = coco_mask.encode(mask.view(np.uint8))
        found.append(
            dict(
                category_id=label,
                segmentation=dict(size=list(labels.shape), counts=code['counts'].decode()),
                area=area,
                bbox=[int(side) for side in coco_mask.toBbox(code)],
            )
        )
    return found


def scores_of(prediction: Prediction) -> dict[str, Any]:
    """What a record says of how sure the result is: 'certainty', and per class 'scores' and
    'confidence', rounded."""
    return dict(
        certainty=round(prediction.certainty, _DIGITS),
        scores=[round(float(score), _DIGITS) for score in prediction.scores],
        confidence=[round(prediction.confidence(c), _DIGITS) for c in prediction.classes],
    )


def write_overlay(out: Path, name: str, image: np.ndarray, prediction: Prediction) -> None:
    """Write the image (uint8 (H, W, 3) BGR) with its classes as JPEG, shrunk to a long side of
    1600 pixels where it is longer."""
    height, width = image.shape[:2]
    scale = OVERLAY_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = mmcv.imresize(image, size, interpolation='area')
        labels = mmcv.imresize(prediction.labels, size, interpolation='nearest')
        prediction = replace(prediction, labels=labels)
    with atomic(out / OVERLAYS / f'{stem_of(name)}.jpg') as part:
        rgb = np.ascontiguousarray(prediction.draw(image)[..., ::-1])
        Image.fromarray(rgb).save(part, 'JPEG', quality=90)


def label_state(path: Path) -> tuple[int, int] | None:
    """Size and CRC-32 of a label file; None where there is none."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return len(data), zlib.crc32(data)


def edited_label(path: Path, shape: Sequence[int], num_classes: int) -> np.ndarray | None:
    """The label uint8 (H, W) that a person has put in the place of the one written; None where
    there is none, or half of one.

    Args:
        path: of the label.
        shape: (H, W) of the image.
        num_classes: N.

    Raises:
        ValueError: It is a whole image but no label map of this size with labels 0..N in their
            colours: somebody's work, which is not to be written over.
    """
    try:
        read_image(path)
    except (FileNotFoundError, ValueError):
        return None
    labels = read_mask(path)
    if labels.shape != tuple(shape):
        raise ValueError(
            f'label {path} is {labels.shape[1]} x {labels.shape[0]} pixels (width x height), its '
            f'image {shape[1]} x {shape[0]}'
        )
    used = np.flatnonzero(np.bincount(labels.ravel()))
    if used[-1] > num_classes:
        raise ValueError(f'label {path} has the value {used[-1]}, allowed are 0..{num_classes}')
    with Image.open(path) as image:
        colours = image.getpalette('RGB') if image.mode == 'P' else None
    ours = label_palette(num_classes)
    if colours and any(list(colours[3 * v : 3 * v + 3]) != ours[v] for v in used):
        raise ValueError(
            f'label {path} has another palette: the drawing program has numbered the colours anew'
        )
    return labels


def is_done(out: Path, source: Path, name: str, entry: Entry) -> bool:
    """Whether the image is the one that was labelled, and its label is as it was written."""
    if not entry.ok or label_state(out / ANN_DIR / label_name(name)) != entry.label:
        return False
    return image_state(source) == entry.stat


def image_state(source: Path) -> tuple[int, int] | None:
    """Size and time of change of an image; None where there is none."""
    try:
        stat = source.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
