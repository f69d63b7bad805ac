"""Edges of the photo for masks that come from a coarse grid: GrabCut, as OpenCV has it.

    PhotoEncoder   keeps a small copy of each photo beside its features, through the same cache
    GrabCut        moves the border of a mask to the edges of that copy

C. Rother, V. Kolmogorov, A. Blake: "GrabCut": interactive foreground extraction using iterated
graph cuts, SIGGRAPH 2004. Of a coarse mask it takes the pixels that are surely one or the other,
learns their colours (mixtures of 5 Gaussians each), and cuts a graph of neighbouring pixels where
colours change.

Shapes: B queries, S side of the model's images, E side of the copies.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from mmfss.arguments import integer
from mmfss.encoders.base import Encoder

FEWEST = 32
"""Pixels of either kind below which there are no colours to learn; the mask is left as it is."""
CUTS = 'GrabCut cuts a graph of the pixels of each photo (model.refine=None leaves it out)'
"""Why a method that refines so is no static graph."""
_UNSURE = 0.1  # logit at the least, of the side on which a pixel comes to lie


class PhotoEncoder(Encoder):
    """A small copy of the photo, as another encoder of a model so that the cache keeps it.

    Args:
        side: E in pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.arch = dict(side=side)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """(n, 3, S, S) RGB 0..255 -> uint8 (n, 3, E, E), means over the pixels."""
        small = F.adaptive_avg_pool2d(images.float(), (self.side, self.side))
        return (small.round().clamp(0, 255).to(torch.uint8),)


@MODELS.register_module()
class GrabCut:
    """Refines logits by the colours of the photo; on the CPU, and the same at each call.

    Args:
        side: E in pixels at which it works; time goes with its square.
        iterations: of colours and cut in turn, >= 1.
        sure: logits of at least this size are taken for granted, > 0.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, side: int = 128, iterations: int = 1, sure: float = 2.0) -> None:
        self.side = integer('refine.side', side, 16)
        self.iterations = integer('refine.iterations', iterations, 1)
        if not sure > 0:
            raise ValueError(f'refine.sure must be > 0, got {sure!r}')
        self.sure = sure

    def __call__(self, logits: Tensor, photos: Tensor) -> Tensor:
        """Refine masks.

        Args:
            logits: (B, 1, h, w) float, any grid.
            photos: (B, 3, E, E) uint8 RGB, of :class:`PhotoEncoder`.

        Returns:
            (B, 1, E, E) float32: the logits at that size, those on the wrong side of the cut
            brought to +-0.1, so that the sign is that of the cut and the size how sure it was.
        """
        size = (self.side, self.side)
        fine = F.interpolate(logits.float(), size=size, mode='bilinear', align_corners=False)
        rows = []
        for row, photo in zip(fine[:, 0].cpu().numpy(), photos.cpu().numpy()):
            inside = self._cut(row, np.ascontiguousarray(photo.transpose(1, 2, 0)[..., ::-1]))
            moved = np.where(inside, np.maximum(row, _UNSURE), np.minimum(row, -_UNSURE))
            rows.append(torch.from_numpy(moved))
        return torch.stack(rows)[:, None].to(logits.device)

    def _cut(self, logits: np.ndarray, photo: np.ndarray) -> np.ndarray:
        """(E, E) bool of logits (E, E) and a BGR photo (E, E, 3)."""
        found = logits >= 0
        if min(found.sum(), (~found).sum()) < FEWEST:
            return found
        mask = np.where(found, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        mask[logits >= self.sure] = cv2.GC_FGD
        mask[logits <= -self.sure] = cv2.GC_BGD
        cv2.setRNGSeed(0)  # its k-means starts at random
        models = np.zeros((2, 1, 65))
        cv2.grabCut(photo, mask, None, *models, self.iterations, cv2.GC_INIT_WITH_MASK)
        return (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)


def build_refinement(cfg: dict | None) -> tuple[GrabCut | None, PhotoEncoder | None]:
    """What a method's ``refine`` says, and the encoder of the photos that it is called with.

    Raises:
        ValueError: another type than GrabCut.
    """
    if cfg is None:
        return None, None
    made = MODELS.build(cfg)
    if not isinstance(made, GrabCut):
        raise ValueError(f"model.refine must be None or dict(type='GrabCut', ...), got {cfg!r}")
    return made, PhotoEncoder(made.side)
