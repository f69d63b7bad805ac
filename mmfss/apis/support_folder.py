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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log

from mmfss.apis.images import as_bgr
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.prompts import Proposer, read_prompt
from mmfss.apis.support import Shot, SupportSet, check_classes, make_negative, make_shot
from mmfss.datasets.classes import label_palette
from mmfss.datasets.io import read_mask
from mmfss.datasets.preparation.folder_layouts import (
    PROMPT,
    Sample,
    Source,
    find_source,
)
from mmfss.datasets.preparation.folder_masks import annotated_masks, check_palette
from mmfss.visualization.episodes import GAP, PAPER, blank, stack_rows
from mmfss.visualization.overlays import overlay_mask
from mmfss.visualization.text import write_text
from mmfss.words import listed

UNKNOWN = 255


def read_support(
    path: str | os.PathLike, inferencer: FewShotInferencer, checkpoint: str | None = None
) -> tuple[SupportSet, list[str]]:
    """Read a support set from a folder or a support file.

    In a folder of the layout 'classes' an image may have a prompt, ``x.json`` (see
    :func:`mmfss.apis.prompts.read_prompt`), in the place of a mask; where both are there, the mask
    counts. Images in a folder ``not`` below that of the class are its negatives: all of the image,
    or what its mask or prompt marks. In the other two layouts, which hold no negatives, an image
    gives a shot to each class that it shows, with other classes as background. Images are turned
    upright as their EXIF tag says. Classes are in the order of their names (layout 'classes') or in
    that of the file that names them.

    Args:
        path: The folder, or a file of ``save_support``.
        inferencer: For whose model it is, and how it reads photos; not changed.
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
    negatives: dict[int, list[Shot]] = defaultdict(list)
    prompted: list[str] = []
    proposer: Proposer | None = None
    for sample, negative in [
        *((sample, False) for sample in source.samples),
        *((sample, True) for sample in source.negatives),
    ]:
        image = source.images / sample.image
        if negative and sample.mask is None:
            pixels = as_bgr(image, None, inferencer.grey_values)
            if image.suffix.lower() == '.png' and set(np.unique(pixels)) <= {0, 1, UNKNOWN}:
                raise ValueError(
                    f'{image} looks like a mask, and there is no image of its name beside it; add '
                    'the image, or remove the mask'
                )
            masks: dict[int, Any] = {sample.class_id: None}
        elif sample.mask is not None and sample.mask.suffix.lower() == PROMPT:
            proposer = proposer or Proposer(inferencer, checkpoint)
            prompt = read_prompt(sample.mask)
            try:
                pixels = as_bgr(image, None, inferencer.grey_values)
                masks = {sample.class_id: proposer.propose(pixels, prompt)}
            except ValueError as error:
                raise ValueError(f'prompt {sample.mask} of {image}: {error}') from error
            prompted.append(str(image))
        else:
            masks = _masks(sample, source)
        if not masks:
            raise ValueError(
                f'no class is marked in {image}; mark one, or take the image out of the folder'
            )
        for class_id, mask in masks.items():
            given, size, resize = (image, mask), inferencer.image_size, inferencer.resize
            how = size, str(image), resize, inferencer.grey_values
            if negative:
                item = given if mask is not None else image
                negatives[class_id].append(make_negative(item, *how))
            else:
                shots[class_id].append(make_shot(given, *how))
    empty = [name for c, name in enumerate(names, 1) if c not in shots]
    if empty:
        raise ValueError(
            f'{len(empty)} classes of {path} have no image: {listed(empty)}; add a marked image of '
            f'each{" (those in its folder not are none)" if negatives else ""}, or remove the class'
        )
    ordered = {name: tuple(shots[c]) for c, name in enumerate(names, 1)}
    others = {name: tuple(negatives[c]) for c, name in enumerate(names, 1) if c in negatives}
    return SupportSet(ordered, inferencer.image_size, inferencer.resize, others), prompted


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


def _check_no_odd_one(source: Source) -> None:
    """In masks of two values 1 is the object and 255 unknown, or 255 is the object. Where some of
    a folder have both, one with 255 alone would be read as object and may mean unknown."""
    found = []
    for sample in (*source.samples, *source.negatives):
        if sample.class_id and sample.mask is not None and sample.mask.suffix.lower() != PROMPT:
            counts = np.bincount(read_mask(sample.mask).ravel(), minlength=256)
            found.append((sample.mask, set(np.flatnonzero(counts).tolist())))
    if any({1, UNKNOWN} <= values for _, values in found):
        odd = [file for file, values in found if UNKNOWN in values and 1 not in values]
        if odd:
            raise ValueError(
                f'255 means unknown in some masks, as they have 1 too, but {len(odd)} masks have '
                f'255 and no 1: {listed(odd)}; mark their object with 1'
            )


# ---------------------------------------------------------------------------------- the picture
PANEL = 176
CAPTION = 24
WIDTH = 1280
MAX_SHOTS = 20
MAX_CLASSES = 60
BLACK = (0, 0, 0)


def draw_support(support: SupportSet) -> np.ndarray:
    """A row for each class, with its name, and in it each shot with its mask; below it one for its
    negatives, marked in black.

    Shots have the proportions of their original image, at most 176 pixels high and 352 wide. The
    object is tinted in the colour that the class has in predictions and outlined, unknown pixels
    are yellow. Rows are at most 1280 wide and wrap; the first 20 shots of the first 60 classes are
    drawn, and what is left out is said.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    colours = label_palette(len(support.shots))[1:]
    groups: list[tuple[str, list[np.ndarray]]] = []
    for label, (name, shots) in enumerate(list(support.shots.items())[:MAX_CLASSES], 1):
        for title, some, colour in (
            (f'{label}  {name}', shots, colours[label - 1]),
            (f'{label}  not {name}', support.negatives.get(name, ()), BLACK),
        ):
            panels = [_panel(shot, colour) for shot in some[:MAX_SHOTS]]
            left_out = len(some) - len(panels)
            count = f'{len(some)} image{"s" if len(some) > 1 else ""}'
            more = f', {left_out} of them not shown' if left_out else ''
            if some:
                groups.append((f'{title}  ({count}{more})', panels))
    if len(support.shots) > MAX_CLASSES:
        groups.append((f'+{len(support.shots) - MAX_CLASSES} classes that are not shown', []))
    rows: list[np.ndarray] = []
    for caption, panels in groups:
        rows.append(blank(CAPTION, WIDTH))
        write_text(rows[-1], caption, GAP + 2, CAPTION - 7, WIDTH - 2 * GAP, size=16)
        while panels:
            ends = GAP + np.cumsum([panel.shape[1] + GAP for panel in panels])
            fitting = max(1, int((ends <= WIDTH).sum()))
            rows.append(blank(max(p.shape[0] for p in panels[:fitting]) + GAP, ends[fitting - 1]))
            for panel, end in zip(panels[:fitting], ends - GAP):
                rows[-1][: panel.shape[0], end - panel.shape[1] : end] = panel
            panels = panels[fitting:]
    picture = stack_rows(rows)
    used = np.flatnonzero((picture != PAPER).any((0, 2)))[-1] + 1 + GAP
    return np.ascontiguousarray(picture[:, :used, ::-1])


def _panel(shot: Shot, colour: Sequence[int]) -> np.ndarray:
    """RGB, at the original proportions."""
    height, width = shot.shape
    scale = min(PANEL / height, 2 * PANEL / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if size[1] < shot.image.shape[0] else cv2.INTER_LINEAR
    image = np.ascontiguousarray(cv2.resize(shot.image, size, interpolation=how)[..., ::-1])
    return overlay_mask(image, shot.mask, colour, outline_width=2)
