"""A mask from what a person marks, whatever the method: by heads for prompts where they give the
object in the box, else by OpenCV's GrabCut, else the box itself; and which of them it was.

``tools/analysis_tools/box_masks.py`` measures them.
"""

from __future__ import annotations

import os

import cv2
import numpy as np

from mmfss.apis.images import ImageInput, as_bgr
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.marks import Prompt
from mmfss.apis.prompts import Proposal, Proposer
from mmfss.checkpoints.official import OFFICIAL
from mmfss.regions import cropped

GRABCUT, BOX = 'GrabCut', 'box'
FITS, FITS_CLOSELY = 0.5, 0.7
"""Intersection over union from which on the box of a mask is the box that was drawn; the second of
heads that nobody asked for, which may never have seen a photo."""
_FILL = 0.4  # of the box, that such heads mark at least
_ITERATIONS = 5
_SIDE = 400  # of the part that GrabCut looks at, at most
_MARGIN = 0.5  # of the box, on each side: the background


class BoxMasks:
    """Makes masks from prompts.

    Args:
        inferencer: As for :class:`.prompts.Proposer`.
        checkpoint: Whose heads are used, as there. None also takes official weights of SAM 2 that
            are at hand, where the method has no heads of its own.

    Raises:
        FileNotFoundError, ValueError: A checkpoint is given and cannot be used.
    """

    def __init__(
        self, inferencer: FewShotInferencer, checkpoint: str | os.PathLike | None = None
    ) -> None:
        self._why, self._grey_values = '', inferencer.grey_values
        self._asked = checkpoint is not None
        self.heads: Proposer | None = None
        """What asks the heads for prompts; None where there are none."""
        try:
            self.heads = Proposer(inferencer, checkpoint)
        except ValueError as error:
            if checkpoint is not None:
                raise
            self._why = f'{error}'
        if self.heads is None:
            try:
                self.heads, self._asked = Proposer(inferencer, OFFICIAL), True
            except FileNotFoundError:
                self._why += '. A box does with every method'

    def propose(self, image: ImageInput, prompt: Prompt) -> Proposal:
        """The mask of the object that a prompt marks; :attr:`.Proposal.how` says how it was made.

        Args:
            image, prompt: As for :meth:`.prompts.Proposer.propose`.

        Raises:
            FileNotFoundError, ValueError: As there; or points and scribbles without a box where
                there are no heads.
        """
        if prompt.box is None:
            if self.heads is None:
                raise ValueError(self._why)
            return self.heads.propose(image, prompt)
        pixels = as_bgr(image, None, self._grey_values)
        height, width = pixels.shape[:2]
        prompt.check(width, height)
        if self.heads is not None:
            found = self.heads.candidates(pixels, prompt)
            if found and self._good(found[0].mask, prompt.box):
                return found[0]
        mask = grab_cut(pixels, prompt)
        if fits(mask, prompt.box):
            return Proposal(mask, 0.0, prompt, how=GRABCUT)
        return Proposal(box_mask(prompt.box, height, width), 0.0, prompt, how=BOX)

    def _good(self, mask: np.ndarray, box: tuple[float, float, float, float]) -> bool:
        if self._asked:
            return fits(mask, box)
        filled = mask.sum() >= _FILL * box_mask(box, *mask.shape).sum()
        return bool(filled) and fits(mask, box, FITS_CLOSELY)


def box_mask(box: tuple[float, float, float, float], height: int, width: int) -> np.ndarray:
    """The pixels of a box (x1, y1, x2, y2), at least one: bool (height, width)."""
    x1, y1, x2, y2 = (int(np.rint(value)) for value in box)
    mask = np.zeros((height, width), bool)
    x1, y1 = min(x1, width - 1), min(y1, height - 1)
    mask[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = True
    return mask


def fits(mask: np.ndarray, box: tuple[float, float, float, float], least: float = FITS) -> bool:
    """Whether a mask (H, W) reaches about as far as the box that was drawn around the object; a
    scrap, or what fills the image, does not."""
    if not mask.any():
        return False
    part, left, top = cropped(mask)
    height, width = part.shape
    own = box_mask((left, top, left + width, top + height), *mask.shape)
    drawn = box_mask(box, *mask.shape)
    return bool((own & drawn).sum() >= least * (own | drawn).sum())


def grab_cut(pixels: np.ndarray, prompt: Prompt) -> np.ndarray:
    """GrabCut (Rother et al., SIGGRAPH 2004) of a box: what is outside is background, points and
    scribbles are what they say.

    Args:
        pixels: uint8 (H, W, 3) BGR.
        prompt: With a box.

    Returns:
        bool (H, W), within the box; empty where nothing is around the box to compare with.
    """
    assert prompt.box is not None
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = prompt.box
    dx, dy = _MARGIN * (x2 - x1) + 1, _MARGIN * (y2 - y1) + 1
    left, top = max(int(x1 - dx), 0), max(int(y1 - dy), 0)
    right, bottom = min(int(np.ceil(x2 + dx)), width), min(int(np.ceil(y2 + dy)), height)
    scale = min(1.0, _SIDE / max(right - left, bottom - top))
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    part = cv2.resize(pixels[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)

    def at(x: float, y: float) -> tuple[int, int]:
        place = (
            int((x - left) * size[0] / (right - left)),
            int((y - top) * size[1] / (bottom - top)),
        )
        return min(max(place[0], 0), size[0] - 1), min(max(place[1], 0), size[1] - 1)

    state = np.full(size[::-1], cv2.GC_BGD, np.uint8)
    (u1, v1), (u2, v2) = at(x1, y1), at(x2 - 1e-6, y2 - 1e-6)
    state[v1 : v2 + 1, u1 : u2 + 1] = cv2.GC_PR_FGD
    found = np.zeros((height, width), bool)
    if (state == cv2.GC_PR_FGD).all() or not (state == cv2.GC_PR_FGD).any():
        return found
    for (x, y), label in zip(prompt.points, prompt.labels):
        if left <= x < right and top <= y < bottom:
            cv2.circle(state, at(x, y), 2, cv2.GC_FGD if label else cv2.GC_BGD, -1)
    for stroke in prompt.scribbles:
        line = np.array([at(x, y) for x, y in stroke], np.int32)
        cv2.polylines(state, [line], False, cv2.GC_FGD, 3)
    cv2.setRNGSeed(0)  # it begins with a k-means
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(part, state, None, *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
    inside = np.isin(state, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    whole = cv2.resize(inside, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)
    found[top:bottom, left:right] = whole > 0
    return found & box_mask(prompt.box, height, width)
