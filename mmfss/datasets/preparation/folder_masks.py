"""Masks of a user's folder: first all are read and checked, then all are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mmfss.datasets.account import Account
from mmfss.datasets.class_index import class_areas, label_counts
from mmfss.datasets.io import read_image, read_mask, save_png
from mmfss.datasets.preparation.annotated import (
    Marked,
    Reading,
    annotated_masks,
    label_map,
    look,
)
from mmfss.datasets.preparation.folder_layouts import Sample
from mmfss.datasets.preparation.frames import Photo, note_frame, read_frame, upright_mask
from mmfss.datasets.preparation.jobs import Done, read_complete
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
        reading: How annotations are read; also names the classes and the frame of masks.
        object_value: Value of the object in masks of two values: 1 or 255; None: not known yet.
        kind: 'label_maps' or 'class_masks'.
    """

    images: Path
    out: Path
    reading: Reading
    object_value: int | None = None
    kind: str = 'label_maps'


@dataclass(frozen=True)
class Found:
    """What a mask file holds.

    Args:
        values: Its values, ascending.
        account: What is to be said of it.
    """

    values: tuple[int, ...] = ()
    account: Account = field(default_factory=Account)


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
    read_image(image)  # to its end: a photo that is cut off would end a test half-way
    if sample.mask is None:
        return Done(result=look(sample, photo, rules.reading))
    account, name = Account(), sample.class_id and rules.reading.classes[sample.class_id - 1]
    mask = _read(sample.mask, photo, rules.reading.exif, account, name or '', sample.image)
    values = tuple(label_counts(mask))
    allowed = (
        {0, 1, IGNORED} if sample.class_id else {*range(len(rules.reading.classes) + 1), IGNORED}
    )
    wrong = [v for v in values if v not in allowed]
    if wrong:
        said = (
            '0 and 255 (or 0, 1 and 255 = ignored)'
            if sample.class_id
            else f'0..{len(rules.reading.classes)} (the lines of classes.txt) and 255 = ignored'
        )
        raise ValueError(
            f'mask {sample.mask} has {len(wrong)} unknown values: {wrong[:5]}; allowed are {said}; '
            'smoothed edges and JPEG leave values in between: save it as PNG without smoothing'
        )
    if sample.class_id and values == (0,):
        raise _empty(sample.mask)
    if sample.class_id:
        check_palette(sample.mask, values)
    return Done(result=Found(values, account))


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
            return {None: label_map(sample, rules.reading.labels)}
        return dict(annotated_masks(sample, rules.reading.labels).items())
    assert sample.mask is not None
    photo = read_frame(rules.images / sample.image)
    values = _read(sample.mask, photo, rules.reading.exif)
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


def _read(
    mask_file: Path,
    photo: Photo,
    exif: str | None,
    account: Account | None = None,
    class_name: str = '',
    image: str = '',
) -> np.ndarray:
    """The mask of an image, checked against the image and upright as it; the account is told of
    frames that are not plain."""
    mask = read_mask(mask_file)
    upright = upright_mask(mask, photo, exif, f'mask {mask_file}')
    if account is not None:
        frame = photo.frame(mask.shape, exif) or 'upright'
        note_frame(account, photo, frame, exif, class_name, image)
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
