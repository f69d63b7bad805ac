"""The parts of a method as ``torch.export`` has them, one photo at a time.

Without a support set (:func:`parts_of`), K supports of one class:

    encoder            photo (1, 3, S, S)                      -> features
    support_encoder    the same, where supports have other encoders
    support            features of K, masks (1, K, S, S) uint8 -> state, prototypes (1, K, C)
    light              features, state, prototypes             -> logits (1, 1, S, S), scores (1, 1)

With one (:func:`whole_of`), N classes:

    image              photo (1, 3, S, S)                      -> logits (1, N, S, S), scores (1, N)

Photos are float32 RGB 0..255; normalisation is in the graphs. Features and states are what the
method made them, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmfss.apis.nway import ClassStates, encode_class, object_scores
from mmfss.batching import cat, repeat_each, tensors_of, with_tensors
from mmfss.methods.base import FewShotModel, check_shots


@dataclass(frozen=True)
class Graph:
    """One part.

    Attributes:
        name: what it is called in the module's docstring.
        program: as ``torch.export`` has it, of fixed sizes.
        given: tensors that it was traced with, by name, in order.
        gives: names of what comes out.
    """

    name: str
    program: torch.export.ExportedProgram
    given: dict[str, Tensor]
    gives: tuple[str, ...]


def check_static(model: FewShotModel, part: str = 'segment') -> None:
    """Make sure that a part of a method is a static graph.

    Raises:
        ValueError: it is not, in one sentence.
    """
    why = model.not_static().get(part)
    if why is not None:
        what = '' if part == 'segment' else ' of its supports'
        raise ValueError(f'{type(model).__name__} has no static graph{what}: {why}')


def parts_of(model: FewShotModel, shots: int) -> Iterator[Graph]:
    """Encoder, supports and light pass of a method; without ``support`` where it is not static.

    Args:
        model: in eval mode, on the CPU.
        shots: K.

    Raises:
        ValueError: the method's :meth:`~FewShotModel.segment` is not static, or it takes fewer
            supports.
    """
    check_static(model)
    check_shots(model, shots)
    side = model.image_size
    photo = dict(photo=torch.rand(1, 3, side, side) * 255)
    masks = torch.zeros(1, shots, side, side, dtype=torch.uint8)
    masks[..., side // 4 : side * 3 // 4, side // 4 : side * 3 // 4] = 1
    with torch.no_grad():
        query = model.encode_image(photo['photo'])
        shown = cat([model.encode_image(photo['photo'], 'support')] * shots)
        state = encode_class(model, shown, masks[0])
    kept = [*tensors_of(state.support), state.prototypes[None]]
    of_query, of_shown = _named('feature', query), _named('feature', shown)
    states = dict(_named('state', state.support), prototypes=kept[-1])

    yield _traced('encoder', _Encoder(model, 'query'), photo, tuple(of_query))
    if model.support_encoders != model.query_encoders:
        yield _traced('support_encoder', _Encoder(model, 'support'), photo, tuple(of_shown))
    if 'encode_support' not in model.not_static():
        yield _traced('support', _Support(model, shown), dict(of_shown, masks=masks), tuple(states))
    light = _Light(model, query, state.support)
    yield _traced('light', light, {**of_query, **states}, ('logits', 'scores'))


def whole_of(model: FewShotModel, states: ClassStates) -> Graph:
    """A method with the supports of N classes in it.

    Args:
        model: in eval mode, on the CPU.
        states: of :func:`~mmfss.apis.nway.encode_classes`.

    Raises:
        ValueError: the method's :meth:`~FewShotModel.segment` is not static.
    """
    check_static(model)
    side = model.image_size
    photo = dict(photo=torch.rand(1, 3, side, side) * 255)
    return _traced('image', _Whole(model, states), photo, ('logits', 'scores'))


def tensors_of_class(states: ClassStates) -> list[Tensor]:
    """What ``light`` takes of the supports of a single class."""
    (group,) = states.groups
    return [*tensors_of(group.support), group.prototypes]


def _named(what: str, kept: Any) -> dict[str, Tensor]:
    return {f'{what}_{i}': tensor for i, tensor in enumerate(tensors_of(kept))}


def _traced(name: str, part: nn.Module, given: dict[str, Tensor], gives: tuple[str, ...]) -> Graph:
    # copies: traced views of one tensor would be taken for one input
    given = {key: tensor.detach().clone() for key, tensor in given.items()}
    with torch.no_grad():
        program = torch.export.export(part.eval(), tuple(given.values()), strict=False)
    return Graph(name, program, given, gives)


class _Encoder(nn.Module):
    def __init__(self, model: FewShotModel, role: str) -> None:
        super().__init__()
        self.model, self.role = model, role

    def forward(self, photo: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensors_of(self.model.encode_image(photo, self.role)))


class _Support(nn.Module):
    """``shown`` has the form of the features of K supports; so below."""

    def __init__(self, model: FewShotModel, shown: Any) -> None:
        super().__init__()
        self.model, self.shown = model, shown

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        *features, masks = given
        found = encode_class(self.model, with_tensors(self.shown, features), masks[0])
        return (*tensors_of(found.support), found.prototypes[None])


class _Light(nn.Module):
    def __init__(self, model: FewShotModel, query: Any, support: Any) -> None:
        super().__init__()
        self.model, self.query, self.support = model, query, support

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        count = len(tensors_of(self.query))
        query = with_tensors(self.query, given[:count])
        support = with_tensors(self.support, given[count:-1])
        return _segmented(self.model, query, support, given[-1])


class _Whole(nn.Module):
    order: Tensor

    def __init__(self, model: FewShotModel, states: ClassStates) -> None:
        super().__init__()
        self.model, self.groups = model, states.groups
        for i, group in enumerate(self.groups):
            for j, tensor in enumerate([*tensors_of(group.support), group.prototypes]):
                self.register_buffer(f'state_{i}_{j}', tensor.contiguous().clone())
        order = [place for group in self.groups for place in group.members]
        self.register_buffer('order', torch.tensor(order).argsort())

    def forward(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        found: list[Sequence[Tensor]] = []
        features = self.model.encode_image(photo)
        for i, group in enumerate(self.groups):
            count = len(tensors_of(group.support))
            kept = [getattr(self, f'state_{i}_{j}') for j in range(count + 1)]
            support = with_tensors(group.support, kept[:-1])
            found.append(_segmented(self.model, features, support, kept[-1]))
        # groups are classes of as many supports; back into the order of the classes
        logits, scores = (torch.cat(some, 1)[:, self.order] for some in zip(*found))
        return logits, scores


def _segmented(
    model: FewShotModel, query: Any, support: Any, prototypes: Tensor
) -> tuple[Tensor, Tensor]:
    """What :func:`~mmfss.apis.nway.segment_classes` gives of one photo for n classes as one batch:
    logits (1, n, S, S) and scores (1, n)."""
    compared, count = model.compared(query).float(), len(prototypes)
    found = model.segment(repeat_each(model.encode_query(query), count), support)
    logits = found.logits[:, 0].float()[None]
    return logits, object_scores(compared, logits, prototypes)
