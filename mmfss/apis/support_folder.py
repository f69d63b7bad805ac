"""A folder of marked images as a support set, and the picture of one.

::

    classes   DIR/<class>/x.jpg + x.png (a mask) or x.json (a prompt); or with images/ and masks/
    values    DIR/images/x.jpg + DIR/masks/x.png of class values + DIR/classes.txt
    coco      DIR/images/x.jpg + DIR/annotations.json

These and all other layouts of ``tools/prepare.py folder`` (docs/datasets/folder.md) are read, by
its reader, with prompts added.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log

from mmfss.apis.box_masks import BoxMasks
from mmfss.apis.images import as_bgr
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.marks import Prompt, read_prompt
from mmfss.apis.support import Shot, SupportSet, check_classes, make_negative, make_shot
from mmfss.apis.support_annotations import AnnotatedSupports, note_how
from mmfss.datasets.account import Account, Reason
from mmfss.datasets.class_index import label_counts
from mmfss.datasets.preparation.folder_layouts import (
    PROMPT,
    VALUES,
    Sample,
    Source,
    find_source,
)
from mmfss.datasets.preparation.folder_masks import check_palette
from mmfss.datasets.preparation.frames import note_frame, read_frame, upright_mask
from mmfss.datasets.preparation.mask_files import (
    MaskContent,
    check_palettes,
    content_of,
    object_value,
    read_labels,
    read_values,
)
from mmfss.visualization.episodes import GAP, PAPER, blank, stack_rows
from mmfss.visualization.overlays import class_colours, overlay_mask
from mmfss.visualization.text import write_text
from mmfss.words import listed

UNKNOWN = 255
_ReadMasks = Callable[[Sample], dict[int, np.ndarray]]
UNMARKED = Reason(
    'image in which no class is marked: left out',
    'mark one; or put it into a folder "not" of a class that it does not show',
)


@dataclass(frozen=True)
class Reading:
    """How a folder of supports is read: the options of ``tools/prepare.py folder``.

    Args:
        layout: One of its layouts, or 'auto'.
        images, annotations: Where these are, if not to be found in the folder.
        object_value: Of masks of two values: 0, 1 or 255; None: as the masks say.
        exif: Which pixels of photos that EXIF turns are marked: 'upright' or 'stored'; None: as
            sizes say, else upright.
        crowd: COCO's annotations of iscrowd 1 are: 'object' or 'ignored'.
        units: Of annotations: 'pixels', 'percent' or 'relative'; None: pixels.
    """

    layout: str = 'auto'
    images: Path | None = None
    annotations: Path | None = None
    object_value: int | None = None
    exif: str | None = None
    crowd: str = 'object'
    units: str | None = None


def read_support(
    path: str | os.PathLike,
    inferencer: FewShotInferencer,
    checkpoint: str | None = None,
    reading: Reading = Reading(),
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
        reading: How a folder is read.

    Returns:
        The support set, and the images whose mask came from a prompt.

    Raises:
        FileNotFoundError: There is no such file or folder, or a part of it is missing.
        ValueError: No known layout, a class without an image, an image without mask or prompt, and
            what :meth:`SupportSet.build` and :meth:`SupportSet.load` refuse.
    """
    if not os.path.isdir(path):
        return SupportSet.load(path), []
    source, names, masks_of = _found(path, reading)
    account = Account()
    account.merge(source.account)
    shots: dict[int, list[Shot]] = defaultdict(list)
    negatives: dict[int, list[Shot]] = defaultdict(list)
    prompted: list[str] = []

    @lru_cache(1)
    def proposer() -> BoxMasks:
        return BoxMasks(inferencer, checkpoint)

    @lru_cache(1)  # once for a prompt and for all classes of a photo
    def pixels_of(photo: Path) -> np.ndarray:
        return as_bgr(photo, None, inferencer.grey_values)

    annotated = (
        AnnotatedSupports(source, reading.exif, reading.units, account, proposer, pixels_of)
        if source.labels
        else None
    )
    for sample, negative in [
        *((sample, False) for sample in source.samples),
        *((sample, True) for sample in source.negatives),
    ]:
        image = source.images / sample.image
        file = next(iter(sample.masks.values()), None)
        if negative and file is None:
            pixels = pixels_of(image)
            if image.suffix.lower() == '.png' and set(np.unique(pixels)) <= {0, 1, UNKNOWN}:
                raise ValueError(
                    f'{image} looks like a mask, and there is no image of its name beside it; add '
                    'the image, or remove the mask'
                )
            masks: dict[int, Any] = {sample.class_id: None}
        elif file is not None and file.suffix.lower() == PROMPT:
            prompt = read_prompt(file)
            made = proposer()
            try:
                proposal = made.propose(pixels_of(image), prompt)
                masks = {sample.class_id: proposal}
            except ValueError as error:
                raise ValueError(f'prompt {file} of {image}: {error}') from error
            note_how(account, proposal, names[sample.class_id - 1], file.name, image)
            prompted.append(str(image))
        elif annotated is not None:
            found, proposed = annotated.masks(sample.image)
            masks = {**found}
            if proposed:
                prompted.append(str(image))
        else:
            photo, masks = read_frame(image), {}
            for class_id, mask in masks_of(sample).items():
                name = f'the mask of {image}'
                masks[class_id] = upright_mask(mask, photo, reading.exif, name)
                frame = photo.frame(mask.shape, reading.exif) or 'upright'
                note_frame(account, photo, frame, reading.exif, names[class_id - 1], sample.image)
        if not masks:
            account.add(UNMARKED, file=image)
        for class_id, mask in masks.items():
            pixels = pixels_of(image)
            how = inferencer.image_size, str(image), inferencer.resize
            if negative:
                item = pixels if mask is None else (pixels, mask)
                negatives[class_id].append(make_negative(item, *how))
            else:
                shots[class_id].append(make_shot((pixels, mask), *how))
    for line in (*source.remarks, *account.table()):
        print_log(f'{path}: {line}', 'current', logging.WARNING)
    empty = [name for c, name in enumerate(names, 1) if c not in shots]
    if empty:
        lost = account.of(empty).because()
        raise ValueError(
            f'{len(empty)} classes of {path} have no image: {listed(empty)}; add a marked image of '
            f'each{" (those in its folder not are none)" if negatives else ""}, or remove the class'
            f'{f". Left out: {lost}" if lost else ""}'
        )
    ordered = {name: tuple(shots[c]) for c, name in enumerate(names, 1)}
    others = {name: tuple(negatives[c]) for c, name in enumerate(names, 1) if c in negatives}
    size, resize = inferencer.image_size, inferencer.resize
    return SupportSet(ordered, size, resize, others, account), prompted


def check_support(path: str | os.PathLike, reading: Reading = Reading()) -> None:
    """Look for what :func:`read_support` would refuse whatever the model, before one is loaded:
    layout, names, annotations, mask files.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_support`.
    """
    if not os.path.isdir(path):
        SupportSet.load(path)
    else:
        _found(path, reading)


def _found(folder: str | os.PathLike, reading: Reading) -> tuple[Source, list[str], _ReadMasks]:
    """What is in a folder, the names of its classes, and what reads its masks, once all that needs
    no model is known to be right."""
    source = find_source(
        Path(folder), reading.layout, reading.images, reading.annotations, True, reading.crowd
    )
    masks_of = _read_masks(source, reading.object_value)
    try:
        return source, check_classes(list(source.classes)), masks_of
    except ValueError as error:
        raise ValueError(f'{folder}: {error}') from error


def _read_masks(source: Source, asked: int | None) -> _ReadMasks:
    """What reads the masks of a sample, as ``{class id: uint8 (H, W) as as_mask reads it}``, once
    all mask files are known to agree.

    In masks of two values 1 is the object and 255 unknown, or 255 is the object. Where some have
    both, one with 255 alone would be read as object and may mean unknown.
    """

    def read(class_id: int, file: Path) -> np.ndarray:
        if class_id == VALUES and source.meaning is not None:
            return read_labels(file, source.meaning)
        return read_values(file, two=True)

    found: dict[bool, list[MaskContent]] = {False: [], True: []}
    for negative, samples in ((False, source.samples), (True, source.negatives)):
        for sample in samples:
            for class_id, file in sample.masks.items():
                if file.suffix.lower() == PROMPT:
                    continue
                content = content_of(file, class_id, read(class_id, file), source.meaning)
                if class_id != VALUES and asked is None:
                    check_palette(file, content.values)
                found[negative].append(content)
    every = found[False] + found[True]
    check_palettes(every, source.account)
    value = object_value(asked, found[False], source.classes, mixed=True)
    two = [mask for mask in every if mask.class_id != VALUES]
    odd = [mask.file for mask in two if UNKNOWN in mask.values and 1 not in mask.values]
    if odd and any({1, UNKNOWN} <= {*mask.values} for mask in two):
        raise ValueError(
            f'255 means unknown in some masks, as they have 1 too, but {len(odd)} masks have 255 '
            f'and no 1: {listed(odd)}; mark their object with 1'
        )

    def masks(sample: Sample) -> dict[int, np.ndarray]:
        marked = {}
        for class_id, file in sample.masks.items():
            values = read(class_id, file)
            if value == 0 or (class_id == VALUES and value == UNKNOWN):
                values = (values == value).astype(np.uint8)
            present = {*label_counts(values)}
            if class_id != VALUES:
                if not source.blank or present & {1, UNKNOWN}:
                    marked[class_id] = values
                continue
            unknown = np.where(values == UNKNOWN, UNKNOWN, 0).astype(np.uint8)
            for v in sorted(present - {0, UNKNOWN}):
                marked[v] = np.where(values == v, 1, unknown).astype(np.uint8)
        return marked

    return masks


# ---------------------------------------------------------------------------------- the picture
PANEL = 176
CAPTION = 24
WIDTH = 1280
MAX_SHOTS = 20
MAX_CLASSES = 60
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
YELLOW, GREEN, RED = (255, 220, 0), (20, 200, 60), (230, 40, 40)


def draw_support(support: SupportSet) -> np.ndarray:
    """A row for each class, with its name, and in it each shot with its mask; below it one for its
    negatives, marked in black.

    Shots have the proportions of their original image, at most 176 pixels high and 352 wide. The
    object is tinted in the colour that the class has in predictions and outlined, unknown pixels
    are yellow. Rows are at most 1280 wide and wrap; the first 20 shots of the first 60 classes are
    drawn, and what is left out is said. Where a mask was made from a prompt, its box is yellow, its
    points and strokes are green on the object and red beside it.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    colours = class_colours(len(support.shots))[1:]
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
    panel = overlay_mask(image, shot.mask, colour, outline_width=2)
    for prompt in shot.prompts:
        _mark(panel, prompt, scale)
    return panel


def _mark(panel: np.ndarray, prompt: Prompt, scale: float) -> None:
    """Draw what a person marked into a picture, RGB, that is ``scale`` times the original."""

    def at(x: float, y: float) -> tuple[int, int]:
        return min(int(x * scale), panel.shape[1] - 1), min(int(y * scale), panel.shape[0] - 1)

    if prompt.box is not None:
        x1, y1, x2, y2 = prompt.box
        cv2.rectangle(panel, at(x1, y1), at(x2, y2), YELLOW)
    for stroke in prompt.scribbles:
        line = np.array([at(x, y) for x, y in stroke], np.int32)
        cv2.polylines(panel, [line], False, GREEN, 2)
    for (x, y), label in zip(prompt.points, prompt.labels):
        cv2.circle(panel, at(x, y), 4, WHITE, -1)
        cv2.circle(panel, at(x, y), 3, GREEN if label else RED, -1)
