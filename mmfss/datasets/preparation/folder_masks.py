"""Masks of a user's folder: first all are read and checked, then all are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmfss.datasets.account import Account
from mmfss.datasets.class_index import class_areas
from mmfss.datasets.grey_values import GreyValues
from mmfss.datasets.io import read_image, save_png
from mmfss.datasets.preparation.annotated import (
    Marked,
    Terms,
    annotated_masks,
    label_map,
    look,
)
from mmfss.datasets.preparation.folder_layouts import VALUES, Meaning, Sample
from mmfss.datasets.preparation.frames import Photo, note_frame, read_frame, upright_mask
from mmfss.datasets.preparation.jobs import Done, read_complete
from mmfss.datasets.preparation.mask_files import (
    IGNORED,
    MaskContent,
    content_of,
    object_in,
    read_labels,
    read_values,
)
from mmfss.datasets.prepared import mask_path

Masks = dict[int | None, np.ndarray]
"""``{class id: class mask}``, or ``{None: label map}``."""


@dataclass(frozen=True)
class Rules:
    """How masks are read and written.

    Args:
        images: The image folder.
        out: The prepared folder.
        terms: How annotations are read; also names the classes and the frame of masks.
        object_value: Value of the object in masks of two values: 0, 1 or 255; None: not known yet,
            or there are no such masks.
        kind: 'label_maps' or 'class_masks'.
        meaning: Of masks of class values.
        blank: Masks without an object are right.
        grey_values: How photos of more than 8 bits are to be read, see :meth:`.GreyValues.of`.
    """

    images: Path
    out: Path
    terms: Terms
    object_value: int | None = None
    kind: str = 'label_maps'
    meaning: Meaning | None = None
    blank: bool = False
    grey_values: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Found:
    """What the masks of an image hold.

    Args:
        masks: Of mask files.
        overlap: Whether classes overlap.
        account: What is to be said of it.
        lost: What is lost of the grey values or bands of the photo.
    """

    masks: tuple[MaskContent, ...] = ()
    overlap: bool = False
    account: Account = field(default_factory=Account)
    lost: tuple[str, ...] = ()


def inspect(sample: Sample, rules: Rules) -> Done:
    """Check an image and its mask.

    Returns:
        With :class:`Found` as its result, or :class:`.annotated.Seen` for annotations.

    Raises:
        FileNotFoundError, ValueError: The image or mask is missing, damaged or of another form,
            they differ in size, the mask has a value that is no class, an annotation is wrong.
    """
    image = rules.images / sample.image
    photo = read_frame(image)  # its message is the better one where this is no image at all
    lost: list[str] = []
    # to its end: a photo that is cut off would end a test half-way
    read_image(image, grey_values=GreyValues(**(rules.grey_values or {}), say=lost.append))
    found = _inspect(sample, photo, rules) if sample.masks else look(sample, photo, rules.terms)
    return Done(result=replace(found, lost=tuple(lost)))


def _inspect(sample: Sample, photo: Photo, rules: Rules) -> Found:
    account, found = Account(), []
    covered, overlap = np.zeros((), bool), False
    for class_id, file in sample.masks.items():
        values = _read(file, photo, class_id, rules, account)
        content = content_of(file, class_id, values, rules.meaning)
        found.append(content)
        if class_id != VALUES:
            _check_two(content, rules)
            inside = object_in(values, rules.object_value)
            overlap |= bool((covered & inside).any())
            covered = covered | inside
    return Found(tuple(found), overlap, account)


def _check_two(mask: MaskContent, rules: Rules) -> None:
    """ValueError for what cannot be a mask of two values, or marks nothing where it must."""
    wrong = [v for v in mask.values if v not in (0, 1, IGNORED)]
    if wrong:
        only = rules.images / rules.terms.classes[0]
        whole = len(rules.terms.classes) == 1 and mask.file.parent.parent == only
        raise ValueError(
            f'mask {mask.file} has {len(wrong)} unknown values: {wrong[:5]}; allowed are 0 and 255 '
            '(or 0, 1 and 255 = ignored); smoothed edges and JPEG leave values in between: save it '
            'as PNG without smoothing'
            + f'; if {only.name} is no class but a dataset of several, give {only}'
            * whole
        )
    if mask.values == (0,) and not rules.blank and rules.object_value != 0:
        raise _empty(mask.file)
    if rules.object_value is None:
        check_palette(mask.file, mask.values)


def write(sample: Sample | Marked, rules: Rules) -> Done:
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


def _masks(sample: Sample | Marked, rules: Rules) -> Masks:
    """The masks of an image in the form in which they are written."""
    if isinstance(sample, Marked):
        if rules.kind == 'label_maps':
            return {None: label_map(sample, rules.terms.labels)}
        return dict(annotated_masks(sample, rules.terms.labels).items())
    photo = read_frame(rules.images / sample.image)
    masks: Masks = {}
    for class_id, file in sample.masks.items():
        values = _read(file, photo, class_id, rules)
        if class_id == VALUES:
            if rules.object_value in (0, IGNORED):  # of one class, in masks of two values
                values = object_in(values, rules.object_value).astype(np.uint8)
            return {None: values}
        inside = values == rules.object_value
        if not inside.any() and not rules.blank:
            raise _empty(file)
        unknown = (values == IGNORED) & (rules.object_value == 1)
        if rules.kind == 'label_maps':
            labels = masks.setdefault(None, np.zeros(values.shape, np.uint8))
            labels[unknown & (labels == 0)] = IGNORED
            labels[inside] = class_id
        elif inside.any():
            masks[class_id] = np.where(unknown, IGNORED, inside).astype(np.uint8)
    return masks


def _empty(mask_file: Path) -> ValueError:
    return ValueError(
        f'mask {mask_file} marks no pixel as object; draw it, or remove it and its image'
    )


def _read(
    mask_file: Path, photo: Photo, class_id: int, rules: Rules, account: Account | None = None
) -> np.ndarray:
    """The mask of an image, checked against the image and upright as it; the account is told of
    frames that are not plain."""
    if class_id == VALUES and rules.meaning is not None:
        mask = read_labels(mask_file, rules.meaning)
    else:
        mask = read_values(mask_file, two=True)
    exif = rules.terms.exif
    upright = upright_mask(mask, photo, exif, f'mask {mask_file}')
    if account is not None:
        frame = photo.frame(mask.shape, exif) or 'upright'
        name = rules.terms.classes[class_id - 1] if class_id != VALUES else ''
        note_frame(account, photo, frame, exif, name, photo.path)
    return upright


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
