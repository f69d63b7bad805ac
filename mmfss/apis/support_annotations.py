"""Masks of supports out of a file of annotations: read as ``tools/prepare.py folder`` reads it, and
where a class is marked by boxes alone, proposed from these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmfss.apis.box_masks import BOX as WHOLE_BOX
from mmfss.apis.box_masks import GRABCUT, BoxMasks
from mmfss.apis.marks import Prompt
from mmfss.apis.prompts import Proposal
from mmfss.datasets.account import Account, Reason
from mmfss.datasets.preparation.annotated import (
    Marked,
    Terms,
    annotated_masks,
    boxes_of,
    look_at_all,
)
from mmfss.datasets.preparation.folder_layouts import Source
from mmfss.datasets.preparation.own_coco import BOX

PROPOSED = Reason(
    'box without an outline: its mask is proposed from the box',
    'look at the picture of the supports, or draw the outline',
    lost=False,
)
GRABBED = Reason(
    'mask made from a box by GrabCut, as no weights for prompts give one: a rough one',
    '--prompt-weights official (mmfss weights fetch sam2_small), or draw the outline',
    lost=False,
)
FILLED = Reason(
    'box taken as the mask, as neither weights for prompts nor GrabCut give one',
    'draw the outline, or --prompt-weights official (mmfss weights fetch sam2_small)',
    lost=False,
)
_HOW = {GRABCUT: GRABBED, WHOLE_BOX: FILLED}


def note_how(
    account: Account, proposal: Proposal, class_name: str, what: str, image: str | Path
) -> None:
    """Tell the account of a mask that was not made by heads for prompts."""
    if proposal.how:
        account.add(_HOW[proposal.how], class_name, what, image)


@dataclass(frozen=True)
class Boxed:
    """A mask uint8 (H, W) made from boxes, which a support shows."""

    mask: np.ndarray
    prompts: tuple[Prompt, ...]


class AnnotatedSupports:
    """The photos of a source with annotations.

    Args:
        source: Of a layout with annotations.
        exif, units: See :class:`.annotated.Terms`.
        account: What is left out, or read otherwise, is added to it; it has that of the source.
        proposer: Makes what turns boxes into masks.
        pixels: Reads a photo for it.

    Raises:
        FileNotFoundError, ValueError: As :func:`.annotated.settle`.
    """

    def __init__(
        self,
        source: Source,
        exif: str | None,
        units: str | None,
        account: Account,
        proposer: Callable[[], BoxMasks],
        pixels: Callable[[Path], np.ndarray],
    ) -> None:
        terms = Terms(source.classes, source.labels, exif, units)
        photos = look_at_all(source.samples, source.images, terms, account)
        self._source, self._account = source, account
        self._proposer, self._pixels = proposer, pixels
        self._photos: dict[str, Marked] = {photo.image: photo for photo in photos}

    def masks(self, image: str) -> tuple[dict[int, np.ndarray | Boxed], bool]:
        """What a photo shows.

        Args:
            image: Its path in the image folder.

        Returns:
            ``{class id: uint8 (H, W) of 0, 1, 255 = unknown}`` of the upright photo, or
            :class:`Boxed`, and whether some of it was proposed.
        """
        photo, labels = self._photos[image], self._source.labels
        masks: dict[int, np.ndarray | Boxed] = {**annotated_masks(photo, labels)}
        proposed = False
        for class_id, boxes in boxes_of(photo, labels).items():
            path, name = self._source.images / image, self._source.classes[class_id - 1]
            try:
                pixels = self._pixels(path)
                found = [self._proposer().propose(pixels, Prompt(box=box)) for box in boxes]
            except ValueError as error:
                raise ValueError(f'a box of {name} in {path}: {error}') from error
            for one in found:
                note_how(self._account, one, name, 'box', image)
            mask = np.logical_or.reduce([one.mask for one in found]).astype(np.uint8)
            masks[class_id] = Boxed(mask, tuple(one.prompt for one in found))
            self._note(name, image)
            proposed = True
        return dict(sorted(masks.items())), proposed

    def _note(self, class_name: str, image: str) -> None:
        """Boxes that became masks are not lost."""
        rows = self._account.rows.get(BOX, [])
        made = [row for row in rows if (row.class_name, row.file) == (class_name, image)]
        for row in made:
            rows.remove(row)
            self._account.add(PROPOSED, row.class_name, row.what, row.file)
        if not rows:
            self._account.rows.pop(BOX, None)
