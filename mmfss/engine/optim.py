"""Mixed precision as the method was published: bfloat16, on CPU and CUDA alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmseg.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Forward passes of training under bfloat16 autocast; weights and updates stay float32.

    bfloat16 has float32's range, so there is no loss scaler, and a checkpoint can be resumed
    with or without it. mmengine's ``AmpOptimWrapper`` always has a scaler and refuses the CPU.
    Takes the arguments of :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of the forward pass."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
