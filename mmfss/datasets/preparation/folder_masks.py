"""Masks of a user's folder: first all are read and checked, then all are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmfss.datasets.class_index import class_areas, label_counts
from mmfss.datasets.grey_values import GreyValues
from mmfss.datasets.io import exif_orientation, read_image, read_mask, save_png
from mmfss.datasets.preparation.folder_layouts import Sample
from mmfss.datasets.preparation.instances import CROWD, decode, paint
from mmfss.datasets.preparation.jobs import Done, read_complete
from mmfss.datasets.preparation.sources import image_size
from mmfss.datasets.prepared import mask_path

IGNORED = 255
Masks = dict[int | None, np.ndarray]
"""``{class id: class mask}``, or ``{None: label map}``."""


@dataclass(frozen=True)
class Rules:
    """How masks are read and written.

    Args:
        images: The image folder.
        out: The prepared folder.
        num_classes: C.
        labels: ``{category id: class id}`` of COCO.
        object_value: Value of the object in masks of two values: 1 or 255; None: not known yet.
        kind: 'label_maps' or 'class_masks'.
        grey_values: How photos of more than 8 bits are to be read, see :meth:`.GreyValues.of`.
    """

    images: Path
    out: Path
    num_classes: int
    labels: Mapping[int, int]
    object_value: int | None = None
    kind: str = 'label_maps'
    grey_values: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Found:
    """What a mask holds.

    Args:
        values: The values of a mask file, ascending.
        overlap: Whether classes overlap (COCO).
        empty: Annotations that cover no pixel (COCO).
        lost: What is lost of the grey values or bands of the photo.
    """

    values: tuple[int, ...] = ()
    overlap: bool = False
    empty: int = 0
    lost: tuple[str, ...] = ()


def inspect(sample: Sample, rules: Rules) -> Done:
    """Check an image and its mask.

    Returns:
        With :class:`Found` as its result.

    Raises:
        FileNotFoundError, ValueError: The image or mask is missing, damaged or of another form,
            they differ in size, the mask has a value that is no class, an annotation is wrong.
    """
    image = rules.images / sample.image
    image_size(image)  # its message is the better one where this is no image at all
    lost: list[str] = []
    # to its end: a photo that is cut off would end a test half-way
    read_image(image, grey_values=GreyValues(**(rules.grey_values or {}), say=lost.append))
    found = _inspect(sample, rules, image)
    return Done(result=replace(found, lost=tuple(lost)))


def _inspect(sample: Sample, rules: Rules, image: Path) -> Found:
    if sample.mask is None:
        return _inspect_annotations(sample, rules)
    mask = _read(sample.mask, image)
    values = tuple(label_counts(mask))
    allowed = {0, 1, IGNORED} if sample.class_id else {*range(rules.num_classes + 1), IGNORED}
    wrong = [v for v in values if v not in allowed]
    if wrong:
        said = (
            '0 and 255 (or 0, 1 and 255 = ignored)'
            if sample.class_id
            else f'0..{rules.num_classes} (the lines of classes.txt) and 255 = ignored'
        )
        raise ValueError(
            f'mask {sample.mask} has {len(wrong)} unknown values: {wrong[:5]}; allowed are {said}; '
            'smoothed edges and JPEG leave values in between: save it as PNG without smoothing'
        )
    if sample.class_id and values == (0,):
        raise _empty(sample.mask)
    if sample.class_id:
        check_palette(sample.mask, values)
    return Found(values)


def write(sample: Sample, rules: Rules) -> Done:
    """Write the mask, or masks, of an image; files that hold just this are left.

    Returns:
        With ``{class id: pixels}`` as its result.

    Raises:
        FileNotFoundError, ValueError: As for :func:`inspect`.
    """
    masks = _masks(sample, rules)
    written = 0
    areas: dict[int, int] = {}
    for class_id, mask in masks.items():
        path = mask_path(rules.out, sample.image, class_id)
        there = read_complete(path, mask.shape)
        if there is None or not np.array_equal(there, mask):
            save_png(path, mask)
            written += 1
        found = class_areas(mask)
        areas |= found if class_id is None else {class_id: found[1]}
    return Done(written, len(masks) - written, areas)


def _masks(sample: Sample, rules: Rules) -> Masks:
    """The masks of an image in the form in which they are written."""
    if sample.mask is None:
        if rules.kind == 'label_maps':
            return {None: paint(sample.annotations, rules.labels, *sample.shape)[0]}
        return dict(annotated_masks(sample, rules.labels).items())
    values = _read(sample.mask, rules.images / sample.image)
    if not sample.class_id:
        return {None: values}
    inside = values == rules.object_value
    if not inside.any():
        raise _empty(sample.mask)
    single = rules.kind == 'class_masks'
    mask = np.where(inside, 1 if single else sample.class_id, 0).astype(np.uint8)
    if rules.object_value != IGNORED:
        mask[values == IGNORED] = IGNORED
    return {sample.class_id if single else None: mask}


def _empty(mask_file: Path) -> ValueError:
    return ValueError(
        f'mask {mask_file} marks no pixel as object; draw it, or remove it and its image'
    )


def _read(mask_file: Path, image: Path) -> np.ndarray:
    """The mask of an image, checked against the image."""
    (height, width), mask = image_size(image), read_mask(mask_file)
    _check_fit(
        image,
        (height, width),
        mask.shape,
        f'mask {mask_file} is {mask.shape[1]} x {mask.shape[0]} pixels (width x height), its '
        f'image {image} is {width} x {height}; they must be equal',
    )
    return mask


def _check_fit(
    image: Path, shape: tuple[int, ...], marked: tuple[int, ...], differs: str, shown: bool = True
) -> None:
    """Check that what is marked belongs to the pixels of a photo as they are stored.

    Args:
        image, shape: The photo, and its (height, width) as stored.
        marked: (height, width) of the marks.
        differs: What is said where these differ.
        shown: Whether there is any mark.

    Raises:
        ValueError: They differ, or programs show the photo turned and the size does not tell
            which of the two was marked.
    """
    turned = exif_orientation(image)
    remedy = (
        f'; the image has EXIF orientation {turned}, and programs that turn it show another '
        'picture than its pixels: save it upright and without the tag'
    ) * (turned > 1)
    if shape != marked:
        raise ValueError(f'{differs}{remedy}')
    sideways = turned > 4  # the lower ones are mirrored or upside down
    if shown and remedy and not (sideways and shape[0] != shape[1]):
        raise ValueError(f'what image {image} shows may be annotated upright or as stored{remedy}')


def check_palette(mask_file: Path, values: tuple[int, ...]) -> None:
    """ValueError if colours and values of a palette disagree: which is the object?

    Args:
        mask_file: A mask of two values.
        values: Its values, ascending.
    """
    with Image.open(mask_file) as opened:
        palette = opened.getpalette('RGB') if opened.mode == 'P' else None
    if palette is not None:
        brightness = [sum(palette[3 * v : 3 * v + 3]) for v in values]
        if 0 in values and brightness[0] > max(brightness[1:]):
            raise ValueError(
                f'mask {mask_file} has a palette in which the background (value 0) is brighter '
                'than the object: a program may have swapped both to save space; save it as 8-bit '
                'grey with the object white'
            )


def _inspect_annotations(sample: Sample, rules: Rules) -> Found:
    image, shape = rules.images / sample.image, image_size(rules.images / sample.image)
    _check_fit(
        image,
        shape,
        sample.shape,
        f'image {image} is {shape[1]} x {shape[0]} pixels (width x height), its annotations are '
        f'for {sample.shape[1]} x {sample.shape[0]}; restore the image that was annotated, or '
        'annotate it again',
        shown=bool(sample.annotations),
    )
    covered, overlap, empty = np.zeros(shape, np.uint8), False, 0
    classes: dict[int, np.ndarray] = {}
    for annotation in sample.annotations:
        area = decode(annotation, *shape)
        empty += not area.any()
        if not annotation.get('iscrowd', 0):
            class_id = rules.labels[annotation['category_id']]
            classes[class_id] = classes.get(class_id, False) | area
    for area in classes.values():
        overlap |= bool((covered & area).any())
        covered |= area
    return Found(overlap=overlap, empty=empty)


def annotated_masks(sample: Sample, labels: Mapping[int, int]) -> dict[int, np.ndarray]:
    """The masks of an image with annotations: ``{class id: uint8 (H, W) of 0, 1, 255 = crowd}``,
    ascending, of the classes that it shows.

    Args:
        sample: Of COCO's layout; H, W are its ``shape``.
        labels: ``{category id: class id}``.

    Raises:
        ValueError: A malformed annotation.
    """
    masks: dict[int, np.ndarray] = {}
    for crowd in (True, False):
        for annotation in sample.annotations:
            class_id = labels[annotation['category_id']]
            if bool(annotation.get('iscrowd', 0)) is crowd:
                mask = masks.setdefault(class_id, np.zeros(sample.shape, np.uint8))
                mask[decode(annotation, *sample.shape)] = CROWD if crowd else 1
    return {class_id: masks[class_id] for class_id in sorted(masks) if (masks[class_id] == 1).any()}
