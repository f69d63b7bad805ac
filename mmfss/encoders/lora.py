"""Low-rank adaptation (LoRA) of linear layers and convolutions (Hu et al., ICLR 2022).

A layer ``f`` becomes ``f(x) + (alpha / r) U(D(dropout(x)))``. It keeps its class, its weights and
their names; D and U are the parameters ``lora.down`` and ``lora.up`` below it, and a forward hook
adds what they give. U starts at zero, so that a network starts as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfss.arguments import integer

_NAME = 'lora'


class LoRA(nn.Module):
    """The low-rank update of one layer.

    Args:
        layer: a ``nn.Linear``, or a ``nn.Conv2d`` without groups that pads with zeros. In a
            convolution D has the kernel, stride, padding and dilation of the layer, U is 1 x 1.
        rank: r >= 1.
        alpha: of the factor ``alpha / r``.
        dropout: probability in 0..1 with which inputs of D are dropped in training.

    Attributes:
        down: D, (r, in) or (r, in, k, k); Kaiming-uniform with a = sqrt(5) at the start.
        up: U, (out, r) or (out, r, 1, 1); zero at the start.

    Raises:
        ValueError: another layer.
    """

    def __init__(
        self, layer: nn.Module, rank: int, alpha: float = 16.0, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.conv: dict[str, Any] | None = None
        if isinstance(layer, nn.Conv2d):
            if layer.groups != 1 or layer.padding_mode != 'zeros':
                raise ValueError(
                    'LoRA takes convolutions without groups that pad with zeros, got '
                    f'groups={layer.groups}, padding_mode={layer.padding_mode!r}'
                )
            names = ('stride', 'padding', 'dilation')
            self.conv = {name: getattr(layer, name) for name in names}
        elif not isinstance(layer, nn.Linear):
            raise ValueError(f'LoRA takes nn.Linear and nn.Conv2d, got {type(layer).__name__}')
        like = layer.weight
        self.down = nn.Parameter(torch.empty(rank, *like.shape[1:], device=like.device))
        ones = (1,) * (like.ndim - 2)
        self.up = nn.Parameter(torch.zeros(like.shape[0], rank, *ones, device=like.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the output of the layer for its input ``x``."""
        x = self.dropout(x)
        # (alpha / r) U D x
        if self.conv is None:
            return self.scale * F.linear(F.linear(x, self.down), self.up)
        return self.scale * F.conv2d(F.conv2d(x, self.down, **self.conv), self.up)

    def weight(self) -> Tensor:
        """What is the same as a change of the layer's weight: ``(alpha / r) U D``, of its shape."""
        return self.scale * (self.up.flatten(1) @ self.down.flatten(1)).unflatten(
            1, self.down.shape[1:]
        )


def _added(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Forward hook of a layer with LoRA."""
    lora = layer._modules.get(_NAME)
    return output if lora is None else output + lora(*inputs)


def add_lora(
    part: nn.Module,
    targets: Sequence[str],
    rank: int,
    alpha: float = 16.0,
    dropout: float = 0.1,
    name: str = 'the network',
) -> list[str]:
    """Give LoRA to layers of a network, in place.

    Args:
        part: the network.
        targets: which, by the end of their names, as in PEFT: ``'proj'`` is every layer of that
            name, ``'attn.proj'`` those in an ``attn``. ``*`` stands for anything. Each must hit
            a layer.
        rank, alpha, dropout: of :class:`LoRA`.
        name: of ``part``, for messages.

    Returns:
        The names of these layers in ``part``.

    Raises:
        ValueError: arguments out of range, a target that hits no layer that can have LoRA, or one
            that has it already.
    """
    integer(f'lora.{name}.rank', rank, 1)
    for what, value, good in (
        ('alpha', alpha, '> 0'),
        ('dropout', dropout, 'from 0 to below 1'),
    ):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not (value > 0 if what == 'alpha' else 0 <= value < 1):
            raise ValueError(f'lora.{name}.{what} must be a number {good}, got {value!r}')
    if isinstance(targets, str) or not all(isinstance(target, str) for target in targets):
        raise ValueError(
            f"lora.{name}.targets must be a list of names of layers, such as ['qkv', 'proj'], got "
            f'{targets!r}'
        )
    layers = {n: m for n, m in part.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    chosen: list[str] = []
    for target in targets:
        hit = [n for n in layers if fnmatchcase(n, target) or fnmatchcase(n, f'*.{target}')]
        if not hit:
            ends = sorted({n.rpartition('.')[2] for n in layers} - set('0123456789'))
            raise ValueError(
                f'lora.{name}.targets has {target!r}, and no linear layer or convolution of '
                f'{name} has that name; their names end in {", ".join(ends)}'
            )
        chosen += hit
    chosen = [n for n in layers if n in chosen]
    for one in chosen:
        layer = layers[one]
        if _NAME in layer._modules:
            raise ValueError(f'{name}.{one} has LoRA already')
        layer.add_module(_NAME, LoRA(layer, rank, alpha, dropout))
        layer.register_forward_hook(_added)
    return chosen


def layers_with_lora(network: nn.Module) -> dict[str, nn.Module]:
    """The layers of a network that have LoRA, by name."""
    return {n: m for n, m in network.named_modules() if isinstance(m._modules.get(_NAME), LoRA)}


@contextmanager
def without_lora(network: nn.Module) -> Iterator[None]:
    """Within, a network is as it was before :func:`add_lora`: its outputs, and the names of its
    state dict."""
    removed = [(layer, layer._modules.pop(_NAME)) for layer in layers_with_lora(network).values()]
    try:
        yield
    finally:
        for layer, lora in removed:
            layer.add_module(_NAME, lora)


@torch.no_grad()
def fold_lora(network: nn.Module) -> list[str]:
    """Add LoRA to the weights of its layers, in place, and take it away: in eval mode the same
    outputs up to rounding, without the cost.

    Returns:
        The names of these layers.
    """
    layers = layers_with_lora(network)
    for layer in layers.values():
        # W' = W + (alpha / r) U D
        layer.weight += layer._modules.pop(_NAME).weight()
    return list(layers)
