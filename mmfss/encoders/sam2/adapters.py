"""Bottleneck adapters in the last stages of SAM 2's trunk (SANSA, section 2 of the method).

    out = y + mlp(norm2(y)) + adapter(y)        adapter(y) = 0.1 (U relu(D LN(y) + d) + u)

with ``y`` the activations of a Hiera block after its attention. sam2's blocks stay as they are: the
norm before the MLP hands on what it was given, and the MLP adds the adapter's output to its own.
Names of the official weights stay; those of an adapter are ``blocks.{i}.mlp.adapter.*``.

Shapes: N images, C channels, r = int(f C_in) with the width C_in of what goes into the block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import get_class
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.sam2_utils import MLP
from torch import Tensor, nn

from mmfss.encoders.efficientnet_lite import STAGES, EfficientNetLiteTrunk
from mmfss.encoders.kept_tables import KeptHiera

SCALE = 0.1
"""What an adapter's output is multiplied by."""


class Adapter(nn.Module):
    """``0.1 (U relu(D LN(y) + d) + u)`` over the last axis; zero when it is new.

    Args:
        width: C.
        bottleneck: r.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, bottleneck)  # D: Kaiming-uniform, a = sqrt 5, torch's default
        self.up = nn.Linear(bottleneck, width)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, y: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return SCALE * self.up(self.down(self.norm(y)).relu())


class _HandsOn(nn.LayerNorm):
    """The norm before an MLP, which also gives what it was given."""

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return y, super().forward(y)


class _MLPAndAdapter(MLP):
    """sam2's MLP, and an adapter parallel to it."""

    def __init__(self, mlp: MLP, adapter: Adapter) -> None:
        super().__init__(1, 1, 1, mlp.num_layers, sigmoid_output=mlp.sigmoid_output)
        self.layers, self.act = mlp.layers, mlp.act
        self.adapter = adapter

    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        y, normed = both
        return super().forward(normed) + self.adapter(y)


class AdaptedHiera(KeptHiera):
    """SAM 2's trunk with an adapter in each block of some stages.

    What comes before the first of them is frozen and without a graph: none of its activations are
    kept for the backward pass.

    Args:
        stages_with_adapters, channel_factor: of :func:`adapt_trunk`.
        *args, **kwargs: of :class:`sam2.modeling.backbones.hieradet.Hiera`.
    """

    def __init__(
        self,
        *args: Any,
        stages_with_adapters: Sequence[int],
        channel_factor: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        starts = [0, *(end + 1 for end in self.stage_ends)]
        for stage in checked_stages(stages_with_adapters, len(self.stage_ends)):
            for block in self.blocks[starts[stage] : starts[stage + 1]]:
                rank = bottleneck(channel_factor, block.dim)
                block.mlp = _MLPAndAdapter(block.mlp, Adapter(block.dim_out, rank))
                norm = _HandsOn(block.dim_out, block.norm2.eps)
                norm.weight, norm.bias = block.norm2.weight, block.norm2.bias
                block.norm2 = norm


class AdaptedLiteTrunk(EfficientNetLiteTrunk):
    """EfficientNet-Lite0 as trunk, with adapters behind its blocks: ``out = y + adapter(y)`` with
    ``y`` the block's output. Not published; for the small SAM 2 of Shapes-5i. Stages are those of
    strides 4, 8, 16, 32.

    Args:
        stages_with_adapters, channel_factor: of :func:`adapt_trunk`.
    """

    def __init__(self, stages_with_adapters: Sequence[int], channel_factor: float) -> None:
        super().__init__()
        starts = [0, *(last + 1 for last, _ in STAGES)]
        widths = [
            (block._block_args.input_filters, block._block_args.output_filters)
            for block in self.net._blocks
        ]
        self.adapters = nn.ModuleDict(
            {
                str(i): Adapter(widths[i][1], bottleneck(channel_factor, widths[i][0]))
                for stage in checked_stages(stages_with_adapters, len(STAGES))
                for i in range(starts[stage], starts[stage + 1])
            }
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, S, S) ImageNet-normalised -> maps of strides 4, 8, 16, 32."""
        return self._outputs(images)  # with a graph: adapters learn

    def _block(self, index: int, x: Tensor) -> Tensor:
        y = super()._block(index, x)
        if str(index) not in self.adapters:
            return y
        return y + self.adapters[str(index)](y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


TRUNKS: dict[type, type] = {Hiera: AdaptedHiera, EfficientNetLiteTrunk: AdaptedLiteTrunk}
"""Class of a trunk -> the one with adapters."""


def adapt_trunk(cfg: dict, adapters: Mapping[str, Any]) -> None:
    """Point a trunk's node of sam2's configuration at the class with adapters, in place.

    Args:
        cfg: the node.
        adapters: ``stages``, counted from 0, whose blocks get one; ``channel_factor`` f, the width
            of an adapter's bottleneck as a share of that of the block's input.

    Raises:
        ValueError: other entries, another trunk; see :func:`checked_stages`, :func:`bottleneck`.
    """
    options = {'stages', 'channel_factor'}
    if not isinstance(adapters, Mapping) or set(adapters) != options:
        got = dict(adapters) if isinstance(adapters, Mapping) else adapters
        raise ValueError(
            'model.sam2.adapters must be dict(stages=(2, 3), channel_factor=0.3), or None for no '
            f'adapters, got {got!r}'
        )
    trunk = get_class(cfg['_target_'])
    if trunk not in TRUNKS:
        raise ValueError(
            f'there are adapters for the trunks {[known.__name__ for known in TRUNKS]}, and '
            f'model.sam2.arch has {trunk.__name__}; leave out model.sam2.adapters'
        )
    mine = TRUNKS[trunk]
    cfg.update(
        _target_=f'{mine.__module__}.{mine.__name__}',
        stages_with_adapters=list(adapters['stages']),
        channel_factor=adapters['channel_factor'],
    )


def checked_stages(stages: Any, count: int) -> list[int]:
    """Numbers of stages, ascending.

    Raises:
        ValueError: not different numbers from 0 to ``count`` - 1, or none.
    """
    given = list(stages) if isinstance(stages, Sequence) and not isinstance(stages, str) else None
    whole = given and all(isinstance(one, int) and not isinstance(one, bool) for one in given)
    if not whole or len(set(given)) < len(given) or not set(given) <= set(range(count)):
        raise ValueError(
            f'model.sam2.adapters.stages must be different stages of the trunk, from 0 to '
            f'{count - 1}, such as (2, 3), got {stages!r}'
        )
    return sorted(given)


def bottleneck(channel_factor: Any, width: int) -> int:
    """``r = int(f C_in)``.

    Raises:
        ValueError: f is no number above 0, or so small that nothing is left.
    """
    number = isinstance(channel_factor, (int, float)) and not isinstance(channel_factor, bool)
    if not number or not 0 < channel_factor <= 16 or int(channel_factor * width) < 1:
        raise ValueError(
            'model.sam2.adapters.channel_factor must be a number above 0 that leaves each adapter '
            f'at least one of its channels (here of {width}), such as 0.3, got {channel_factor!r}'
        )
    return int(channel_factor * width)


def is_of_adapter(key: str) -> bool:
    """Whether a name in a SAM 2's state dict is of an adapter."""
    return '.mlp.adapter.' in key or '.trunk.adapters.' in key
