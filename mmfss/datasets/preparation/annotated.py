"""Photos with annotations of a user's COCO file: each checked, then all together, then painted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmfss.datasets.account import Account
from mmfss.datasets.preparation.fits import Fits, compare
from mmfss.datasets.preparation.folder_layouts import Sample
from mmfss.datasets.preparation.frames import (
    Photo,
    Shape,
    exif_hint,
    note_frame,
    read_frame,
    size_of,
    turned,
)
from mmfss.datasets.preparation.instances import CROWD, decode, encode, paint
from mmfss.datasets.preparation.misfits import check
from mmfss.words import listed


@dataclass(frozen=True)
class Terms:
    """How annotations are read.

    Args:
        classes: Names of the classes 1..C.
        labels: ``{category id: class id}``.
        exif: One of :data:`.frames.EXIF`, or None where sizes are to tell.
        units: One of :data:`.misfits.UNITS`, or None where nothing is said: pixels.
    """

    classes: tuple[str, ...]
    labels: Mapping[int, int]
    exif: str | None = None
    units: str | None = None


@dataclass(frozen=True)
class Seen:
    """What one photo and its annotations are.

    Args:
        photo: Its size and orientation.
        frame: Which of its frames the annotations are of; None: of neither.
        overlap: Whether its classes overlap.
        fits: Its annotations, compared.
        outlined: Whether there are polygons among them.
        lost: What is lost of the grey values or bands of the photo.
    """

    photo: Photo
    frame: str | None
    overlap: bool = False
    fits: Fits = field(default_factory=Fits)
    outlined: bool = False
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Marked:
    """A photo with its annotations in pixels of a known frame.

    Args:
        image: Its path in the image folder, with '/'.
        annotations: As :class:`.own_coco.OwnCoco` has them.
        shape: (height, width) that they are of.
        orientation: How masks of this shape are turned upright, as in EXIF.
    """

    image: str
    annotations: Sequence[dict]
    shape: Shape
    orientation: int = 1


def look(sample: Sample, photo: Photo, terms: Terms) -> Seen:
    """Check the annotations of a photo; nothing is painted.

    Raises:
        ValueError: An annotation is malformed.
    """
    from pycocotools import mask as coder

    said = sample.shape if all(sample.shape) else None
    known = said in (None, photo.upright, photo.stored)
    frame = terms.exif if terms.exif and known else photo.frame(said, None)
    if frame is None:
        return Seen(photo, None)
    shape, fits = photo.shape(frame), Fits()
    of_class: dict[int, list[dict]] = {}
    outlined = False
    for row in sample.annotations:
        row = in_pixels(row, shape, terms.units)
        class_id = terms.labels[row['category_id']]
        place = f'{row["name"]} in {sample.image}'
        if isinstance(row['segmentation'], list):
            outlined = True
        elif (size := _size(row['segmentation'])) == shape:
            fits.own_frame += photo.size_tells
        elif size is not None:
            turned_code = photo.size_tells and size == shape[::-1] and terms.exif is None
            swapped = fits.other_frame if turned_code else fits.swapped
            (swapped if size == shape[::-1] else fits.sized).append(place)
            continue
        try:
            code = encode(row, *shape)
        except ValueError as error:
            raise ValueError(f'of {sample.image}: {error}') from error
        compare(fits, row, code, photo, shape, terms.classes[class_id - 1], sample.image)
        if code is not None and not row['iscrowd']:
            of_class.setdefault(class_id, []).append(code)
    class_name = terms.classes[0] if len(terms.classes) == 1 else ''
    note_frame(fits.account, photo, frame, terms.exif, class_name, sample.image)
    # areas of codes tell whether classes overlap: nothing is decoded for it
    areas = [coder.merge(codes) for codes in of_class.values()]
    overlap = sum(map(int, map(coder.area, areas))) > int(coder.area(coder.merge(areas)))
    return Seen(photo, frame, bool(areas) and overlap, fits, outlined)


def _size(code: dict) -> Shape | None:
    """(height, width) that a run-length code states; None where it is malformed."""
    size = code.get('size')
    fine = isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
    return (size[0], size[1]) if fine else None  # type: ignore[index]


def in_pixels(row: dict, shape: Shape, units: str | None) -> dict:
    """An annotation with outline and box in pixels."""
    if units in (None, 'pixels'):
        return row
    height, width = (side / (100 if units == 'percent' else 1) for side in shape)
    segmentation, bbox = row['segmentation'], row['bbox']
    if isinstance(segmentation, list):
        segmentation = [
            [number * (height if i % 2 else width) for i, number in enumerate(polygon)]
            for polygon in segmentation
        ]
        if bbox is not None:
            bbox = bbox[0] * width, bbox[1] * height, bbox[2] * width, bbox[3] * height
    return {**row, 'segmentation': segmentation, 'bbox': bbox}


def look_at_all(
    samples: Sequence[Sample], images: Path, terms: Terms, account: Account
) -> list[Marked]:
    """:func:`look` and :func:`settle` of some photos below a folder, in this process.

    Raises:
        FileNotFoundError, ValueError: As these, and :func:`.frames.read_frame`.
    """
    seen = [look(sample, read_frame(images / sample.image), terms) for sample in samples]
    return settle(samples, seen, terms, account)


# ---------------------------------------------------------------------------------- together
def settle(
    samples: Sequence[Sample], seen: Sequence[Seen], terms: Terms, account: Account
) -> list[Marked]:
    """Decide what only all photos together tell.

    Args:
        samples: The photos.
        seen: What :func:`look` gave of each.
        terms: How they were read.
        account: What is to be said is added to it.

    Raises:
        ValueError: Photos are of another size than their annotations say; annotations do not fit
            systematically (see :func:`.misfits.check`); sizes are those of stored pixels, and
            nothing tells whether the outlines are.
    """
    _check_sizes(samples, seen)
    fits = Fits()
    for one in seen:
        fits.merge(one.fits)
    check(fits, terms.units)
    doubtful = [
        sample.image
        for sample, one in zip(samples, seen)
        if one.frame == 'stored' and one.outlined and one.photo.orientation > 1
    ]
    if doubtful and terms.exif is None and not fits.own_frame:
        raise ValueError(
            f'sizes of {len(doubtful)} photos that EXIF turns are those of their stored pixels, '
            f'but their outlines fit both as shown and as stored: {listed(doubtful, 5)}; say '
            'which: --exif upright (Label Studio writes so) or --exif stored'
        )
    account.merge(fits.account)
    settled = []
    for sample, one in zip(samples, seen):
        frame = one.frame or 'upright'
        shape = one.photo.shape(frame)
        rows = [in_pixels(row, shape, terms.units) for row in sample.annotations]
        orientation = one.photo.orientation if frame == 'stored' else 1
        settled.append(Marked(sample.image, rows, shape, orientation))
    return settled


def _check_sizes(samples: Sequence[Sample], seen: Sequence[Seen]) -> None:
    wrong = [(s, one.photo) for s, one in zip(samples, seen) if one.frame is None]
    if not wrong:
        return
    said = [
        f'image {photo.path} is {size_of(photo.upright)} pixels (width x height), its annotations '
        f'are for {size_of(sample.shape)}{exif_hint(photo)}'
        for sample, photo in wrong
    ]
    ratios = [np.divide(photo.upright, sample.shape) for sample, photo in wrong]
    low, high = np.min(ratios), np.max(ratios)
    why = ''
    if len(wrong) > 1 and high - low < 0.02 * high:
        why = f' All are {high:.2g} times as large, so they were resized after annotation.'
    elif all(sample.shape == photo.upright[::-1] for sample, photo in wrong):
        why = ' Width and height are exchanged in all of them.'
    raise ValueError(
        f'{len(wrong)} of {len(samples)} images are of another size than their annotations say.'
        f'{why} Restore the images that were annotated, or annotate these: '
        + listed(said, 10, '; ', '; and {rest} more')
    )


# ---------------------------------------------------------------------------------- painting
def label_map(photo: Marked, labels: Mapping[int, int]) -> np.ndarray:
    """uint8 (H, W) of the upright photo: class ids, 255 unknown."""
    return turned(paint(photo.annotations, labels, *photo.shape)[0], photo.orientation)


def annotated_masks(photo: Marked, labels: Mapping[int, int]) -> dict[int, np.ndarray]:
    """``{class id: uint8 (H, W) of 0, 1, 255 = unknown}`` of the upright photo, ascending, of the
    classes that it shows.

    Raises:
        ValueError: A malformed annotation.
    """
    masks: dict[int, np.ndarray] = {}
    for crowd in (True, False):
        for annotation in _rows(photo.annotations, crowd):
            class_id = labels[annotation['category_id']]
            mask = masks.setdefault(class_id, np.zeros(photo.shape, np.uint8))
            mask[decode(annotation, *photo.shape)] = CROWD if crowd else 1
    return {
        class_id: turned(masks[class_id], photo.orientation)
        for class_id in sorted(masks)
        if (masks[class_id] == 1).any()
    }


def _rows(annotations: Iterable[dict], crowd: bool) -> list[dict]:
    """Those that are, or are not, of unknown pixels."""
    return [row for row in annotations if bool(row['iscrowd']) is crowd]


def boxes_of(
    photo: Marked, labels: Mapping[int, int]
) -> dict[int, list[tuple[int, int, int, int]]]:
    """``{class id: boxes}`` of the classes that a photo shows by boxes without an outline alone:
    (x1, y1, x2, y2) in whole pixels of the upright photo, within it."""
    outlined = {labels[row['category_id']] for row in photo.annotations if not row['iscrowd']}
    found: dict[int, list[tuple[int, int, int, int]]] = {}
    for row in photo.annotations:
        class_id = labels[row['category_id']]
        if row['box'] and class_id not in outlined:
            inside = turned(decode(row, *photo.shape), photo.orientation)
            ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            if len(xs):
                box = int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
                found.setdefault(class_id, []).append(box)
    return found
