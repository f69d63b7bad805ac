"""What determines the output of modules beside weights: their code, and their plain attributes."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmfss.files import sha256_of

_INSTALLED = [Path(sysconfig.get_path(kind)) for kind in ('purelib', 'platlib', 'stdlib')]


def code_of(modules: Mapping[str, nn.Module], classes: Sequence[type] = ()) -> dict[str, str]:
    """What the outputs depend on: {Python module: digest of its source, package: version}.

    For each class that is not torch's, with its bases: the file that defines it, and from there on
    every file of code that is in no installed package (one's own, or a checkout's) and defines
    functions and classes which are named. Of an installed package, and where there is no source,
    the version tells; it is always taken too.

    Args:
        modules: whose submodules' classes count.
        classes: that count as well; of these the defining file alone.
    """
    names: set[str] = set()
    kinds = {type(part) for module in modules.values() for part in module.modules()}
    todo = {base.__module__ for kind in kinds for base in kind.__mro__}
    while todo:
        todo = {name for name in todo if not _is_given(name)} - names
        names |= todo
        todo = {used for name in todo if not _is_installed(name) for used in _used_by(name)}
    names |= {kind.__module__ for kind in classes if not _is_given(kind.__module__)}
    packages = {name.partition('.')[0] for name in names}
    versions = {f'package {name}': _version(name) for name in packages}
    return versions | {name: text for name in names if (text := _source_digest(name))}


def _is_given(name: str) -> bool:
    """Whether a module belongs to torch, whose version is known, or to Python."""
    package = name.partition('.')[0]
    return package == 'torch' or package in sys.stdlib_module_names and package != '__main__'


def _used_by(name: str) -> Iterable[str]:
    """Modules in no installed package that define functions and classes which a module names."""
    for value in list(vars(sys.modules.get(name, ModuleType(name))).values()):
        origin = value.__name__ if inspect.ismodule(value) else getattr(value, '__module__', None)
        if isinstance(origin, str) and origin in sys.modules and not _is_installed(origin):
            yield origin


def _is_installed(name: str) -> bool:
    """Whether a module belongs to an installed package, or has no file."""
    file = getattr(sys.modules.get(name.partition('.')[0]), '__file__', None)
    return file is None or any(place in Path(file).parents for place in _INSTALLED)


def _source_digest(name: str) -> str | None:
    module = sys.modules.get(name)
    try:
        file = inspect.getsourcefile(module) if module is not None else None
        return sha256_of(file) if file else None
    except (OSError, TypeError):
        return None  # compiled, or typed at a prompt


def _version(package: str) -> str:
    """Version of a package; many have the name of their distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(package), '__version__', None))


# where weights came from is not what they are
_IGNORED = frozenset(dir(nn.Module())) - {'training'} | {'init_cfg', '_is_init', 'checkpoint'}
_BY_REPR = (torch.dtype, torch.device, torch.memory_format, bytes, complex, range, slice)
_NOTHING = object()


def settings_of(modules: Mapping[str, nn.Module]) -> list[list[Any]]:
    """[name, class, extra_repr, {attribute: value}] of each submodule, of JSON types.

    An attribute counts if it is a plain value, a tensor or array, a function or a class, or a
    list, dict or dataclass of these; other objects count by their class alone. Dicts that are
    empty or whose keys are no strings are taken for caches, which fill while a module runs.
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
        return ['partial', *(_plain(part) for part in (value.func, value.args, value.keywords))]
    if isinstance(value, Enum):
        return [_name_of(type(value)), value.name]
    if is_dataclass(value) and not isinstance(value, type):
        items = [[field.name, _plain(getattr(value, field.name, None))] for field in fields(value)]
        return [_name_of(type(value)), [item for item in items if item[1] is not _NOTHING]]
    if hasattr(value, '__qualname__'):  # functions, methods, classes
        return _name_of(value)
    return _name_of(type(value))


def _name_of(value: Any) -> str:
    return f'{getattr(value, "__module__", "")}.{value.__qualname__}'
