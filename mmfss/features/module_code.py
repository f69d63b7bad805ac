"""Source text of modules' classes, so that a change of code is a change of the encoder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from torch import nn

_HELPERS = (
    'mmfss.encoders.frozen',
    'mmfss.functional',
    'mmfss.methods.fssam.image_encoding',
    'mmfss.encoders.backbones',
    'mmfss.encoders.sam2.model',
)
"""Modules with functions through which images pass on their way to and from an encoder."""


def code_of(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """What the outputs depend on: {Python module: digest of its source, package: version}.

    For each class that is not torch's, with its bases: the file that defines it, and those of its
    package that define functions and classes it names. Where there is no source the version of
    the package alone tells; it is always taken too.
    """
    names: set[str] = set()
    for module in modules.values():
        for part in module.modules():
            names.update(base.__module__ for base in type(part).__mro__)
    names = {name for name in names if not _is_given(name)}
    names.update(_HELPERS, *(_used_by(name) for name in names))
    packages = {name.partition('.')[0] for name in names}
    versions = {f'package {name}': _version(name) for name in packages}
    return versions | {name: text for name in names if (text := _source_digest(name))}


def _is_given(name: str) -> bool:
    """Whether a module belongs to torch, whose version is known, or to Python."""
    package = name.partition('.')[0]
    return package == 'torch' or package in sys.stdlib_module_names and package != '__main__'


def _used_by(name: str) -> Iterable[str]:
    """Modules of the same package that define functions and classes which a module names."""
    package = name.partition('.')[0]
    for value in list(vars(sys.modules.get(name, ModuleType(name))).values()):
        origin = value.__name__ if inspect.ismodule(value) else getattr(value, '__module__', None)
        if isinstance(origin, str) and origin.partition('.')[0] == package:
            yield origin


def _source_digest(name: str) -> str | None:
    module = sys.modules.get(name)
    try:
        file = inspect.getsourcefile(module) if module is not None else None
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    except (OSError, TypeError):
        return None  # compiled, or typed at a prompt


def _version(package: str) -> str:
    """Version of a package; many have the name of their distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(package), '__version__', None))
