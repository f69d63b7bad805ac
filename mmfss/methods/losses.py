"""Loss of FSSAM."""

from __future__ import annotations

from mmseg.registry import MODELS
from torch import Tensor, nn

from mmfss.functional import squared_dice_loss


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
