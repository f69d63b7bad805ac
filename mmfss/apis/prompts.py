"""Prompts on support images: box, points and scribbles become a mask, by SAM 2's own prompt encoder
and mask decoder.

::

    proposer = Proposer(inferencer)
    proposal = proposer.propose('cup.jpg', Prompt(box=(40, 30, 210, 160)))
    cv2.imwrite('look.png', proposal.draw('cup.jpg'))                # before it is used
    inferencer.set_support({'cup': [('cup.jpg', proposal)]})

As in ``SAM2ImagePredictor`` of the sam2 package a box is two points, the image is brought to the
model's square, one point gives three candidates and more points, or a box, give one mask.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from mmfss.apis.images import ImageInput, as_bgr, to_model_size
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.marks import Prompt, read_prompt
from mmfss.apis.nway import as_input
from mmfss.checkpoints.official import OFFICIAL, WEIGHTS, local_file
from mmfss.encoders.sam2.model import build_sam2
from mmfss.encoders.sam2.prompts import PromptHeads, prompt_heads
from mmfss.functional import bfloat16
from mmfss.methods.base import FewShotModel, Prompter
from mmfss.visualization.overlays import overlay_labels

__all__ = ['Prompt', 'Proposal', 'Proposer', 'read_prompt']
_OFFICIAL_SIDE = 1024
_SIZES = ('small', 'base_plus', 'tiny', 'large')  # which is taken of those that are at hand
PROMPT_WEIGHTS = 'prompts.pth'
"""File of tools/train_prompts.py; taken by itself where it lies beside a model's weights."""
_MASK, _YES, _NO, _BOX = (255, 144, 30), (60, 200, 20), (40, 40, 230), (0, 220, 255)  # BGR


@dataclass(frozen=True)
class Proposal:
    """A mask that a prompt gave; it may stand in the place of a mask in ``set_support``.

    Attributes:
        mask: bool (H, W).
        score: its predicted IoU, 0..1.
        prompt: the prompt.
        others: the other candidates of a single point that are not empty, best first.
        how: what made it: '' the heads for prompts, or see :mod:`mmfss.apis.box_masks`.
    """

    mask: np.ndarray
    score: float
    prompt: Prompt
    others: tuple[Proposal, ...] = ()
    how: str = ''

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompt, as a support keeps what its mask was made from."""
        return (self.prompt,)

    def draw(self, image: ImageInput, opacity: float = 0.5) -> np.ndarray:
        """The image with the mask (blue), the prompt's box (yellow), its points and strokes on the
        object (green) and points off it (red): uint8 (H, W, 3) BGR.

        Raises:
            ValueError: An image of another size.
        """
        pixels = as_bgr(image)
        if pixels.shape[:2] != self.mask.shape:
            raise ValueError(
                f'the mask is {self.mask.shape}, the image {pixels.shape[:2]} (height, width); '
                'give the image that was prompted'
            )
        out = overlay_labels(pixels, self.mask.astype(np.uint8), ((0, 0, 0), _MASK), opacity)
        width = max(1, round(max(out.shape[:2]) / 400))
        if self.prompt.box is not None:
            x1, y1, x2, y2 = (round(v) for v in self.prompt.box)
            cv2.rectangle(out, (x1, y1), (x2 - 1, y2 - 1), _BOX, width)
        for stroke in self.prompt.scribbles:
            line = np.rint(np.array(stroke)).astype(np.int32)
            cv2.polylines(out, [line], False, _YES, 2 * width, cv2.LINE_AA)
        for (x, y), label in zip(self.prompt.points, self.prompt.labels):
            cv2.circle(out, (int(x), int(y)), 4 * width, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(out, (int(x), int(y)), 3 * width, _YES if label else _NO, -1, cv2.LINE_AA)
        return out


class Proposer:
    """Makes masks from prompts. The last image is kept encoded.

    Args:
        model: an inferencer, which is not changed, or its model.
        checkpoint: whose prompt encoder and mask decoder are used, since methods train the decoder
            for tracking: 'official', which works with every config: where the official heads are
            none for the model's own SAM 2, an official SAM 2 is loaded beside it; or a path of an
            official checkpoint for the model's arch, or a file of tools/train_prompts.py. None
            takes ``prompts.pth`` beside the inferencer's weights where there is one, else the heads
            of the model itself.

    Raises:
        FileNotFoundError, ValueError: the method takes no prompts, or see
            :func:`mmfss.encoders.sam2.prompts.prompt_heads`.
    """

    def __init__(
        self, model: FewShotInferencer | FewShotModel, checkpoint: str | os.PathLike | None = None
    ) -> None:
        beside = None
        if isinstance(model, FewShotInferencer):
            self._model, self._amp = model.model, model.amp
            self._grey_values = model.grey_values
            beside = model.weights and Path(model.weights).with_name(PROMPT_WEIGHTS)
        else:
            self._model, self._amp, self._grey_values = model, False, None
        if checkpoint is None and beside and beside.is_file():
            checkpoint = beside
        self._device = self._model.device
        self._side, self._resize = self._model.image_size, self._model.resize
        try:
            self._prompter: Prompter = self._model.prompter(
                None if checkpoint is None else str(checkpoint)
            )
        except (ValueError, FileNotFoundError):
            if checkpoint != OFFICIAL:
                raise
            self._prompter = _official_heads().to(self._device)
            self._side, self._resize = self._prompter.image_size, 'bilinear'
        self._kept: tuple[np.ndarray, Any] | None = None

    def propose(self, image: ImageInput, prompt: Prompt) -> Proposal:
        """The mask of the object that a prompt marks.

        Args:
            image: see :func:`mmfss.apis.images.as_bgr`; H x W pixels.
            prompt: in its pixels.

        Returns:
            The candidate of the best predicted IoU, (H, W).

        Raises:
            FileNotFoundError, ValueError: The image cannot be read, the prompt does not fit it (see
                :meth:`Prompt.check`), or its mask is empty.
        """
        found = self.candidates(image, prompt)
        if not found:
            raise ValueError(
                'the prompt gives an empty mask; draw a box close around the object, mark more '
                'points on it, or draw the mask itself'
            )
        first, *others = found
        return replace(first, others=tuple(others))

    @torch.no_grad()
    def candidates(self, image: ImageInput, prompt: Prompt) -> list[Proposal]:
        """As :meth:`propose`, all masks that are not empty, best first; maybe none."""
        pixels = as_bgr(image, None, self._grey_values)
        height, width = pixels.shape[:2]
        prompt.check(width, height)
        points, labels = prompt.tokens(width, height, self._side)
        features = self._encode(to_model_size(pixels, self._side, self._resize))
        coords, marks = (torch.from_numpy(x).to(self._device)[None] for x in (points, labels))
        with bfloat16(self._device, self._amp):
            logits, ious = self._prompter(features, coords, marks)
        full = F.interpolate(logits, (height, width), mode='bilinear', align_corners=False)
        masks = (full[0] > 0).cpu().numpy()
        order = ious[0].argsort(descending=True).tolist()
        return [Proposal(masks[i], float(ious[0, i]), prompt) for i in order if masks[i].any()]

    def _encode(self, image: np.ndarray) -> Any:
        kept = self._kept
        if kept is None or not np.array_equal(kept[0], image):
            with bfloat16(self._device, self._amp):
                kept = (image, self._prompter.encode(as_input(image, self._device)))
            self._kept = kept
        return kept[1]


def _official_heads() -> PromptHeads:
    """Heads and image encoder of a SAM 2 with official weights, of those that are at hand.

    Raises:
        FileNotFoundError: There are none; the message has the command that fetches them.
    """
    names = [f'{version}_{size}' for size in _SIZES for version in ('sam2', 'sam2.1')]
    arch = next((name for name in names if local_file(WEIGHTS[name])), names[0])
    sam2 = build_sam2(arch, _OFFICIAL_SIDE)
    sam2.load_pretrained()
    return prompt_heads(sam2.eval().requires_grad_(False))
