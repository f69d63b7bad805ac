"""A folder of marked images as a support set, and the picture of one.

::

    classes   DIR/<class>/x.jpg + x.png (a mask) or x.json (a prompt); or with images/ and masks/
    values    DIR/images/x.jpg + DIR/masks/x.png of class values + DIR/classes.txt
    coco      DIR/images/x.jpg + DIR/annotations.json

These are the layouts of ``tools/prepare.py folder`` (docs/datasets/folder.md), with prompts added.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from mmfss.apis.images import as_bgr
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.prompts import Proposer, read_prompt
from mmfss.apis.shots import Shot, make_shot
from mmfss.apis.support import SupportSet, check_classes
from mmfss.apis.support_picture import draw_support
from mmfss.datasets.io import read_mask
from mmfss.datasets.preparation.folder_layouts import (
    PROMPT,
    Sample,
    Source,
    find_source,
)
from mmfss.datasets.preparation.folder_masks import annotated_masks, check_palette
from mmfss.words import listed

__all__ = ['draw_support', 'read_support']
UNKNOWN = 255


def read_support(
    path: str | os.PathLike, inferencer: FewShotInferencer, checkpoint: str | None = None
) -> tuple[SupportSet, list[str]]:
    """Read a support set from a folder or a support file.

    In a folder of the layout 'classes' an image may have a prompt, ``x.json`` (see
    :func:`mmfss.apis.prompts.read_prompt`), in the place of a mask; where both are there, the mask
    counts. In the other two layouts an image gives a shot to each class that it shows, with other
    classes as background. Images are turned upright as their EXIF tag says. Classes are in the
    order of their names (layout 'classes') or in that of the file that names them.

    Args:
        path: The folder, or a file of ``save_support``.
        inferencer: For whose model it is; not changed.
        checkpoint: Whose prompt encoder and mask decoder turn prompts into masks; see
            :class:`mmfss.apis.prompts.Proposer`.

    Returns:
        The support set, and the images whose mask came from a prompt.

    Raises:
        FileNotFoundError: There is no such file or folder, or a part of it is missing.
        ValueError: No known layout, a class without an image, an image without mask or prompt, and
            what :meth:`SupportSet.build` and :meth:`SupportSet.load` refuse.
    """
    if not os.path.isdir(path):
        return SupportSet.load(path), []
    source = find_source(Path(path), 'auto', prompts=True)
    for remark in source.remarks:
        print_log(f'{path}: {remark}', 'current', logging.WARNING)
    _check_no_odd_one(source)
    names = check_classes(list(source.classes))
    shots: dict[int, list[Shot]] = defaultdict(list)
    prompted: list[str] = []
    proposer: Proposer | None = None
    for sample in source.samples:
        image = source.images / sample.image
        if sample.mask is not None and sample.mask.suffix.lower() == PROMPT:
            proposer = proposer or Proposer(inferencer, checkpoint)
            masks: dict[int, Any] = {sample.class_id: _propose(proposer, image, sample.mask)}
            prompted.append(str(image))
        else:
            masks = _masks(sample, source)
        if not masks:
            raise ValueError(
                f'no class is marked in {image}; mark one, or take the image out of the folder'
            )
        for class_id, mask in masks.items():
            shot = make_shot((image, mask), inferencer.image_size, str(image))
            shots[class_id].append(shot)
    empty = [name for c, name in enumerate(names, 1) if c not in shots]
    if empty:
        raise ValueError(
            f'{len(empty)} classes of {path} have no image: {listed(empty)}; add a marked image of '
            'each, or remove the class'
        )
    ordered = {name: tuple(shots[c]) for c, name in enumerate(names, 1)}
    return SupportSet(ordered, inferencer.image_size), prompted


def _propose(proposer: Proposer, image: Path, file: Path) -> Any:
    prompt = read_prompt(file)
    try:
        return proposer.propose(as_bgr(image), prompt)
    except ValueError as error:
        raise ValueError(f'prompt {file} of {image}: {error}') from error


def _masks(sample: Sample, source: Source) -> dict[int, np.ndarray]:
    """Class id -> uint8 (H, W) mask, as ``as_mask`` reads it."""
    if sample.mask is None:
        return annotated_masks(sample, source.labels)
    values = read_mask(sample.mask)
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()
    if sample.class_id:
        check_palette(sample.mask, tuple(present))
        return {sample.class_id: values}
    wrong = [v for v in present if v != UNKNOWN and v > len(source.classes)]
    if wrong:
        raise ValueError(
            f'mask {sample.mask} has {len(wrong)} unknown values: {wrong[:5]}; allowed are '
            f'0..{len(source.classes)} (the lines of classes.txt) and 255 = unknown'
        )
    unknown = np.where(values == UNKNOWN, UNKNOWN, 0).astype(np.uint8)
    return {v: np.where(values == v, 1, unknown).astype(np.uint8) for v in present if 0 < v < 255}


def _two_values(source: Source) -> Iterator[tuple[Path, set[int]]]:
    for sample in source.samples:
        if sample.class_id and sample.mask is not None and sample.mask.suffix.lower() != PROMPT:
            counts = np.bincount(read_mask(sample.mask).ravel(), minlength=256)
            yield sample.mask, set(np.flatnonzero(counts).tolist())


def _check_no_odd_one(source: Source) -> None:
    """In masks of two values 1 is the object and 255 unknown, or 255 is the object. Where some of
    a folder have both, one with 255 alone would be read as object and may mean unknown."""
    found = list(_two_values(source))
    if any({1, UNKNOWN} <= values for _, values in found):
        odd = [file for file, values in found if UNKNOWN in values and 1 not in values]
        if odd:
            raise ValueError(
                f'255 means unknown in some masks, as they have 1 too, but {len(odd)} masks have '
                f'255 and no 1: {listed(odd)}; mark their object with 1'
            )
