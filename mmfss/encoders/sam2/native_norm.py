"""SAM 2's norm over channels, run by torch's kernel for layer norms."""

from __future__ import annotations

import torch.nn.functional as F
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn


class NativeLayerNorm2d(LayerNorm2d):
    """The same parameters and, rounding apart, the same numbers in one pass instead of seven.

    Maps (N, C, H, W) come out with channels last in memory; those that come in so are not copied.

    Args:
        *args, **kwargs: of :class:`sam2.modeling.sam2_utils.LayerNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Each position of (N, C, H, W) over its C channels."""
        # gamma (x - mean_C) / sqrt(var_C + eps) + beta
        normed = F.layer_norm(
            x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps
        )
        return normed.permute(0, 3, 1, 2)


def use_native_norms(model: nn.Module) -> None:
    """Put :class:`NativeLayerNorm2d` in the place of each ``LayerNorm2d`` in ``model``, with its
    parameters; classes derived from it stay."""
    for module in list(model.modules()):
        for name, norm in module.named_children():
            if type(norm) is LayerNorm2d:
                native = NativeLayerNorm2d(len(norm.weight), norm.eps)
                native.weight, native.bias = norm.weight, norm.bias
                setattr(module, name, native.train(norm.training))
