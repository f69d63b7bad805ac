"""Batches of features and of what parts of the model keep, whatever form it has.

What an attention or a prompt generator keeps of the supports is its own affair. All that is asked
of it: dataclasses, tuples, lists and dicts (in each other as they like) of tensors whose first axis
is the episode (of features: the image), and of ``None``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Kept = TypeVar('Kept')


def cat(parts: Sequence[Kept]) -> Kept:
    """Join states of one form along the episodes (features: images): B1, B2, ... give B1 + B2 + ...

    Args:
        parts: at least one; a single one is given back as it is, without a copy.

    Raises:
        ValueError: Something in them is no tensor, or they are not of one form.
    """
    return parts[0] if len(parts) == 1 else _mapped(lambda tensors: torch.cat(list(tensors)), parts)


def take(kept: Kept, rows: slice) -> Kept:
    """The episodes ``rows`` of a state, as views."""
    return _mapped(lambda tensors: tensors[0][rows], [kept])


def repeat_each(kept: Kept, times: int) -> Kept:
    """Episodes a, b as a, a, b, b: B become ``B times``. Of one episode these are views."""

    def repeated(tensors: Sequence[Tensor]) -> Tensor:
        (one,) = tensors
        return one.unsqueeze(1).expand(-1, times, *one.shape[1:]).flatten(0, 1)

    return _mapped(repeated, [kept])


def repeat_all(kept: Kept, times: int) -> Kept:
    """Episodes a, b as a, b, a, b: B become ``times B``; a view where ``times`` is 1."""

    def repeated(tensors: Sequence[Tensor]) -> Tensor:
        (one,) = tensors
        return one.unsqueeze(0).expand(times, *one.shape).flatten(0, 1)

    return _mapped(repeated, [kept])


def tensors_of(kept: Any) -> list[Tensor]:
    """The tensors of a state or of features, in a fixed order."""
    found: list[Tensor] = []

    def note(tensors: Sequence[Tensor]) -> Tensor:
        found.append(tensors[0])
        return tensors[0]

    _mapped(note, [kept])
    return found


def with_tensors(form: Kept, tensors: Sequence[Tensor]) -> Kept:
    """A state of the form of another one, made of what :func:`tensors_of` gives of it."""
    rest = iter(tensors)
    return _mapped(lambda _: next(rest), [form])


def walk(kept: Any, form: list[Any], tensors: list[Tensor]) -> bool:
    """Note the tensors of features, states and the like, in the order of
    :func:`tensors_of`, and in ``form`` what tells their form and shapes from others;
    False where there is something else in it."""
    if isinstance(kept, Tensor):
        tensors.append(kept)
        form += (kept.shape, kept.dtype)
        return True
    if kept is None:
        form.append(None)
        return True
    if isinstance(kept, (list, tuple)):
        entries: Any = kept
        form.append(len(kept))
    elif isinstance(kept, dict):
        entries = kept.values()
        form.append(tuple(kept))
    elif is_dataclass(kept) and not isinstance(kept, type):
        entries = [getattr(kept, field.name) for field in fields(kept)]
    else:
        return False
    form.append(type(kept))
    return all(walk(one, form, tensors) for one in entries)


def _alike(parts: Sequence[Any], form: Callable[[Any], Any], what: str) -> Sequence[Any]:
    """The parts, whose ``form`` must be one."""
    forms = [form(part) for part in parts]
    if any(one != forms[0] for one in forms):
        raise ValueError(
            f'what is kept of supports has the {what} {forms} in one place; a batch needs one form '
            'for all (classes with as many supports each)'
        )
    return parts


def _mapped(function: Callable[[Sequence[Tensor]], Tensor], parts: Sequence[Kept]) -> Kept:
    """A state of the form of ``parts``; each of its tensors is the function of theirs there."""
    first = parts[0]
    if any(type(part) is not type(first) for part in parts):
        kinds = sorted({type(part).__name__ for part in parts})
        raise ValueError(
            f'what is kept of supports has {" and ".join(kinds)} in one place; a batch needs one '
            'form for all (classes with as many supports each)'
        )
    made: Any
    if first is None:
        made = None
    elif isinstance(first, Tensor):
        made = function(cast('Sequence[Tensor]', parts))
    elif is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in fields(first)]
        made = type(first)(
            **{name: _mapped(function, [getattr(part, name) for part in parts]) for name in names}
        )
    elif isinstance(first, dict):
        same = _alike(parts, lambda part: sorted(part, key=str), 'keys')
        made = {key: _mapped(function, [part[key] for part in same]) for key in first}
    elif isinstance(first, (list, tuple)):
        same = _alike(parts, len, 'lengths')
        entries = [_mapped(function, group) for group in zip(*same)]
        made = type(first)(*entries) if hasattr(first, '_fields') else type(first)(entries)
    else:
        raise ValueError(
            f'what is kept of supports holds a {type(first).__name__}; for batches it must be made '
            'of tensors (B, ...), None, and dataclasses, tuples, lists and dicts of them'
        )
    return made
