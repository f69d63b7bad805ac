"""Source text of modules' classes, so that a change of code is a change of the encoder."""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from torch import nn

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
