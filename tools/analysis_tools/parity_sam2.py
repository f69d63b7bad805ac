"""SAM 2 as the index of a directory of reference tensors describes it: overrides of a YAML of the
sam2 package, and changes of single weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from omegaconf import OmegaConf
from parity_reference import Entry
from torch import Tensor


def arch_of(overrides: Iterable[str], ignored: Sequence[str]) -> dict[str, Any]:
    """The entries of an ``arch`` beside its base; without overrides that have an ignored word."""
    kept = [
        item.lstrip('+').removeprefix('model.')
        for item in overrides
        if not any(word in item for word in ignored)
    ]
    return OmegaConf.to_container(OmegaConf.from_dotlist(kept))


def without_dropout(arch: Mapping[str, Any]) -> dict[str, Any]:
    """An ``arch`` whose memory attention drops nothing."""
    changed = OmegaConf.create(dict(arch))
    for name in ('dropout', 'self_attention.dropout', 'cross_attention.dropout'):
        OmegaConf.update(changed, f'memory_attention.layer.{name}', 0.0)
    return OmegaConf.to_container(changed)


def change_weights(state: dict[str, Tensor], case: Entry) -> None:
    """What a case changes in a state dict, in place.

    Raises:
        ValueError: it names a parameter that there is not.
    """
    for what, change in (('weights_mul', torch.mul), ('weights_add', torch.add)):
        for key, value in (case.get(what) or {}).items():
            if key not in state:
                raise ValueError(f'{case.where}: {what} names {key!r}, no such parameter')
            state[key] = change(state[key], torch.tensor(value))
