"""Classes and plain attributes of modules: what determines their output beside weights."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# where weights came from is not what they are
_IGNORED = frozenset(dir(nn.Module())) - {'training'} | {'init_cfg', '_is_init', 'checkpoint'}
_BY_REPR = (torch.dtype, torch.device, torch.memory_format, bytes, complex, range, slice)
_NOTHING = object()


def settings_of(modules: Mapping[str, nn.Module]) -> list[list[Any]]:
    """[name, class, extra_repr, {attribute: value}] of each submodule, of JSON types.

    An attribute counts if it is a plain value, a tensor or array, a class, a function with its
    defaults and what it closes over, or a list, dict or dataclass of these; other objects count by
    their class alone. Dicts that are empty or whose keys are no strings are taken for caches, which
    fill while a module runs.
    """
    found = []
    for name, module in sorted(modules.items()):
        for path, part in module.named_modules(prefix=name, remove_duplicate=False):
            kind = f'{type(part).__module__}.{type(part).__qualname__}'
            values = {
                key: plain
                for key, value in vars(part).items()
                if key not in _IGNORED and (plain := _plain(value)) is not _NOTHING
            }
            found.append([path, kind, part.extra_repr(), values])
    return found


def _plain(value: Any) -> Any:
    """``value`` in JSON types, so that different values give different results."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, _BY_REPR):
        return repr(value)
    if isinstance(value, Tensor | np.ndarray):
        return _of_array(value)
    if isinstance(value, Mapping):
        return _of_mapping(value)
    if isinstance(value, list | tuple):
        return [None if (plain := _plain(item)) is _NOTHING else plain for item in value]
    if isinstance(value, set | frozenset):
        return sorted(str(_plain(item)) for item in value)
    return _of_object(value)


def _of_mapping(value: Mapping) -> Any:
    if not value or not all(isinstance(key, str) for key in value):
        return _NOTHING
    return {key: plain for key, item in value.items() if (plain := _plain(item)) is not _NOTHING}


def _of_array(value: Tensor | np.ndarray) -> Any:
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        content = repr(value.tolist()).encode()
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return [str(value.dtype), list(value.shape), digest]


def _of_object(value: Any) -> Any:
    if isinstance(value, functools.partial):
        return ['partial', *_plain([value.func, value.args, value.keywords])]
    if isinstance(value, FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        line = value.__code__.co_firstlineno
        # of functions that it holds the names, as two may hold each other
        held = [_name_of(one) if isinstance(one, FunctionType) else one for one in held]
        return [_name_of(value), line, *_plain([value.__defaults__, value.__kwdefaults__, held])]
    if isinstance(value, Enum):
        return [_name_of(type(value)), value.name]
    if is_dataclass(value) and not isinstance(value, type):
        items = [[field.name, _plain(getattr(value, field.name, None))] for field in fields(value)]
        return [_name_of(type(value)), [item for item in items if item[1] is not _NOTHING]]
    if hasattr(value, '__qualname__'):  # of C, methods, classes
        return _name_of(value)
    return _name_of(type(value))


def _name_of(value: Any) -> str:
    return f'{getattr(value, "__module__", "")}.{value.__qualname__}'
