"""What is converted, and run as one model: the first steps of an encoder, or a pass after them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmfss.encoders.base import Encoder, Step
from mmfss.features.modules import settings_of

from . import converted as openvino

_FAR = dict(fp32=1e-3, bf16=0.25, int8=1.0)
"""How far (relative L2, on noise) a converted encoder may be from torch's; what lies beyond is no
matter of rounding, but a fault of the conversion."""
_FAR_OF_PASS = 1e-3
"""How far any value of a pass may be from torch's, relative to the largest."""


@dataclass(frozen=True)
class Part(ABC):
    """Something of a model that is run as one, for inputs of one size.

    Attributes:
        name: in records.
        about: describes its weights and code, as :func:`mmfss.features.fingerprint.fingerprint`
            does.
        is_pass: whether it comes after the encoders: then it is run in fp32 always, what it gives
            is compared with torch's in each process, on what it is first given, and one that cannot
            be converted stays in torch.
    """

    name: str
    about: Callable[[], Mapping[str, Any]]
    is_pass = False

    @property
    @abstractmethod
    def place(self) -> Hashable:
        """What is decided and held by, in this process."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What a log calls it."""

    @property
    @abstractmethod
    def kind(self) -> type:
        """Class of what it belongs to."""

    @property
    @abstractmethod
    def made_of(self) -> dict[str, Any]:
        """What keys of models hold beside weights, code and versions; of JSON types."""

    @property
    @abstractmethod
    def settings(self) -> Any:
        """Settings of its modules, of JSON types, for keys of decisions."""

    @abstractmethod
    def given(self) -> tuple[Tensor, ...]:
        """What it is tried with."""

    def may_be_tried(self) -> bool:
        """Whether what it is tried with says anything of it."""
        return True

    @abstractmethod
    def module(self) -> nn.Module:
        """It in torch: takes tensors like these, gives a tuple of some."""

    @abstractmethod
    def check(self, found: Sequence[Tensor], truth: Sequence[Tensor], precision: str) -> str | None:
        """What is wrong with what a converted model gives, given torch's; None where nothing is."""

    @torch.no_grad()
    def in_torch(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What torch gives."""
        with torch.autocast('cpu', enabled=False):
            return self.module()(*given)


@dataclass(frozen=True)
class FirstSteps(Part):
    """The first steps of an encoder, for images of one size; see :meth:`.choice.Runtimes.of`.

    Attributes:
        device, autocast: where they are, and whether they are run under autocast.
    """

    encoder: Encoder
    steps: Sequence[Step]
    size: tuple[int, int]
    device: str
    autocast: bool

    @property
    def place(self) -> Hashable:
        return self.name, len(self.steps), self.size, self.device, self.autocast

    @property
    def title(self) -> str:
        return f'Encoder {self.name}'

    @property
    def kind(self) -> type:
        return type(self.encoder)

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum(p.numel() for p in parameters_of(self.steps))

    @property
    def made_of(self) -> dict[str, Any]:
        return dict(arch=self.encoder.arch, steps=len(self.steps), size=self.size)

    @property
    def settings(self) -> Any:
        modules = ((i, step.modules.items()) for i, step in enumerate(self.steps))
        return settings_of({f'{i}.{key}': module for i, some in modules for key, module in some})

    def given(self) -> tuple[Tensor, ...]:
        noise = torch.rand(1, 3, *self.size, generator=torch.Generator().manual_seed(0))
        return (255 * noise,)

    def module(self) -> nn.Module:
        return _Steps(self.encoder, self.steps)

    def check(self, found: Sequence[Tensor], truth: Sequence[Tensor], precision: str) -> str | None:
        far = openvino.far_from(found, truth)
        return None if far <= _FAR[precision] else f'relative L2 {far:.1e}'


class _Steps(nn.Module):
    """Steps as a module: all that they may read belongs to the encoder."""

    def __init__(self, encoder: nn.Module, steps: Sequence[Step]) -> None:
        super().__init__()
        self.encoder, self.steps = encoder, tuple(steps)
        self.training = False

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        levels: tuple[Tensor, ...] = (images,)
        for step in self.steps:
            levels = step.run(*levels)
        return levels


@dataclass(frozen=True)
class Pass(Part):
    """What comes after the encoders, or some of it; see :meth:`.choice.Runtimes.of_pass`."""

    owner: nn.Module
    run: nn.Module
    tensors: tuple[Tensor, ...]
    is_pass = True

    @property
    def place(self) -> Hashable:
        return self.run

    @property
    def title(self) -> str:
        return self.name.capitalize()

    @property
    def kind(self) -> type:
        return type(self.owner)

    @property
    def made_of(self) -> dict[str, Any]:
        kind = f'{self.kind.__module__}.{self.kind.__qualname__}'
        given = [[str(one.dtype), *one.shape] for one in self.tensors]
        return dict(light_pass=self.name, of=kind, given=given)

    @property
    def settings(self) -> Any:
        return self.about()['modules']

    def given(self) -> tuple[Tensor, ...]:
        # copies: views of one tensor would be taken for one input
        return tuple(one.detach().clone() for one in self.tensors)

    def may_be_tried(self) -> bool:
        # a decision is kept on disk, and NaN, of a broken photo or weights, is as far as a fault;
        # infinite values may be meant, as logarithms of nothing are
        return not any(bool(one.isnan().any()) for one in self.tensors)

    def module(self) -> nn.Module:
        return self.run

    def check(self, found: Sequence[Tensor], truth: Sequence[Tensor], precision: str) -> str | None:
        far = openvino.largest_gap(found, truth)
        return None if far <= _FAR_OF_PASS else f'{far:.1e} of the largest value'


def parameters_of(steps: Sequence[Step]) -> Iterator[Tensor]:
    """Of all modules of some steps."""
    return (p for step in steps for module in step.modules.values() for p in module.parameters())
