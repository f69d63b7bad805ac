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
class FocalDiceLoss(nn.Module):
    """Focal loss and Dice of episodes, as two entries of a dict of losses (SANSA, section 7).

    Pixels labelled 255 count as background.

    Args:
        alpha, gamma: of the focal loss.
        focal_weight, dice_weight: factors of the two.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        focal_weight: float = 1.0,
        dice_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.alpha, self.gamma = alpha, gamma
        self.focal_weight, self.dice_weight = focal_weight, dice_weight

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Logits and labels {0, 1, 255} (B, ...), of each episode all frames together -> two
        scalars: ``mean[a_t (1 - p_t)^g CE]`` with a_t = alpha on objects and 1 - alpha elsewhere,
        and ``1 - (2 sum(p y) + 1) / (sum p + sum y + 1)``, each averaged over the batch."""
        # float32 under autocast too: the sums run over F H W pixels
        z = logits.float().flatten(1)
        y = (target == 1).to(z.dtype).flatten(1)
        p = z.sigmoid()
        p_t = p * y + (1 - p) * (1 - y)
        a_t = self.alpha * y + (1 - self.alpha) * (1 - y)
        entropy = F.binary_cross_entropy_with_logits(z, y, reduction='none')
        # focal = mean[a_t (1 - p_t)^gamma CE]
        focal = (a_t * (1 - p_t) ** self.gamma * entropy).mean(1)
        return dict(
            loss_focal=self.focal_weight * focal.mean(),
            loss_dice=self.dice_weight * smooth_dice(p, y),
        )


@MODELS.register_module()
class BCEDiceLoss(nn.Module):
    """Binary cross entropy and Dice, as two entries of a dict of losses (FS-SAM2).

    Pixels labelled 255 count as background.

    Args:
        bce_weight, dice_weight: factors of the two.
    """

    def __init__(self, bce_weight: float = 1.0, dice_weight: float = 1.0) -> None:
        super().__init__()
        self.bce_weight, self.dice_weight = bce_weight, dice_weight

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """(B, H, W) logits and labels {0, 1, 255} -> two scalars: cross entropy as mean over all
        pixels of the batch, and :func:`smooth_dice`."""
        # float32 under autocast too: the sums run over H W pixels
        z = logits.float().flatten(1)
        y = (target == 1).to(z.dtype).flatten(1)
        bce = F.binary_cross_entropy_with_logits(z, y)
        dice = smooth_dice(z.sigmoid(), y)
        return dict(loss_bce=self.bce_weight * bce, loss_dice=self.dice_weight * dice)


def smooth_dice(p: Tensor, y: Tensor) -> Tensor:
    """Dice of probabilities and truth (B, n), mean over the batch; none where both are empty."""
    # dice = 1 - (2 sum(p y) + 1) / (sum p + sum y + 1)
    return (1 - (2 * (p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 1)).mean()
