"""Losses of the methods that are trained."""

from __future__ import annotations

import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class SquaredDiceLoss(nn.Module):
    """Dice on sigmoid probabilities, squared form, per sample over all pixels, mean over the batch.

    mmseg's ``DiceLoss`` is another one: it adds a smoothing term, and its ``ignore_index`` drops
    class channels. Here pixels labelled 255 count as background.

    Args:
        loss_weight: factor of the loss.
        loss_name: key in the dict of losses.
    """

    def __init__(self, loss_weight: float = 1.0, loss_name: str = 'loss_dice') -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, H, W) logits and labels {0, 1, 255} -> scalar, see :func:`squared_dice_loss`."""
        return self.loss_weight * squared_dice_loss(logits, target)


def squared_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss with squared sums in the denominator (method of the paper, section on training).

    Args:
        logits: (B, H, W) mask logits.
        target: (B, H, W) labels; 1 is foreground, everything else (0 and 255) background.

    Returns:
        Scalar: mean over the batch of ``1 - 2 sum(p t) / max(sum(p^2) + sum(t^2), 1e-8)``.
    """
    # p = sigmoid(z), in float32 under autocast too: the sums run over S^2 pixels
    prob = logits.float().sigmoid().flatten(1)
    truth = (target == 1).to(prob.dtype).flatten(1)
    # sum(p t) and sum(p^2) + sum(t^2), per sample: a small object counts as much as a large one
    overlap = (prob * truth).sum(1)
    total = (prob * prob).sum(1) + (truth * truth).sum(1)
    # L = mean_B(1 - 2 sum(p t) / max(sum(p^2) + sum(t^2), 1e-8))   (Dice, squared form)
    return (1 - 2 * overlap / total.clamp(min=1e-8)).mean()


@MODELS.register_module()
class BCEDiceLoss(nn.Module):
    """Binary cross entropy plus Dice, the loss of FS-SAM2. Pixels labelled 255 are background.

    Args:
        loss_weight: factor of the loss.
        loss_name: key in the dict of losses.
    """

    def __init__(self, loss_weight: float = 1.0, loss_name: str = 'loss_bce_dice') -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, H, W) logits and labels {0, 1, 255} -> scalar: see :func:`bce_and_dice`."""
        bce, dice = bce_and_dice(logits, target)
        return self.loss_weight * (bce + dice)


def bce_and_dice(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both terms, scalars, of (B, H, W) logits and labels, of which 1 is foreground: cross entropy
    as mean over all pixels of the batch, and the mean over the batch of
    ``1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)``."""
    # in float32 under autocast too: the sums run over S^2 pixels
    logits, truth = logits.float().flatten(1), (target == 1).float().flatten(1)
    bce = F.binary_cross_entropy_with_logits(logits, truth)
    prob = logits.sigmoid()
    # Dice with 1 added above and below: an empty mask of an empty label has none
    dice = 1 - (2 * (prob * truth).sum(1) + 1) / (prob.sum(1) + truth.sum(1) + 1)
    return bce, dice.mean()
