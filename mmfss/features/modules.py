"""What decides, beside weights, what modules give: source text, classes, plain attributes.

A process goes on with the code that it imported, whatever becomes of the files meanwhile. So a file
counts as it was when it was asked for first: those of encoders while these are imported.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_INSTALLED = [Path(sysconfig.get_path(kind)) for kind in ('purelib', 'platlib', 'stdlib')]
_PACKAGES = frozenset(('site-packages', 'dist-packages'))
"""Folders of installed packages wherever they lie: one's own, the system's, a borrowed one."""
_MET: dict[str, tuple[Any, str | None, tuple[str, ...]]] = {}
"""Spec of a module, which is another one when it is loaded again; digest of its file; imports."""


def code_of(
    modules: Mapping[str, nn.Module], classes: Iterable[type] = (), alone: Iterable[str] = ()
) -> dict[str, str]:
    """What the outputs of modules depend on: :func:`code_behind` the classes that are not torch's,
    and their bases.

    Args:
        modules: whose submodules' classes count.
        classes: that count as well.
        alone: see :func:`code_behind`.
    """
    kinds = {type(part) for module in modules.values() for part in module.modules()}
    return code_behind({base.__module__ for k in {*kinds, *classes} for base in k.__mro__}, alone)


def code_behind(names: Iterable[str], alone: Iterable[str] = ()) -> dict[str, str]:
    """{Python module: digest of its source, package: version} of modules, and from there on of
    every file of code that is in no installed package (one's own, or a checkout's) and is imported,
    be it in a function. Of an installed package, and where there is no source, the version tells;
    it is always taken too.

    Args:
        names: of the modules.
        alone: names of modules that count without what they import.
    """
    found, todo = set[str](), set(names)
    while todo:
        todo = {name for name in todo if not _is_given(name)} - found
        found |= todo
        own = [name for name in todo if not _is_installed(name)]
        todo = {used for name in own for used in _source(name)[1] if not _is_installed(used)}
    found |= set(alone)
    packages = {name.partition('.')[0] for name in found}
    versions = {f'package {name}': _version(name) for name in packages}
    return versions | {name: digest for name in found if (digest := _source(name)[0])}


def _is_given(name: str) -> bool:
    """Whether a module belongs to torch, whose version is known, or to Python."""
    package = name.partition('.')[0]
    return package == 'torch' or package in sys.stdlib_module_names and package != '__main__'


def _is_installed(name: str) -> bool:
    """Whether a module belongs to an installed package, or has no source."""
    file = _file_of(name)
    return file is None or _is_in_packages(file)


@functools.cache
def _is_in_packages(file: Path) -> bool:
    """Whether a file lies in a folder of installed packages; asked hundreds of times by a run."""
    parents = set(file.parents)
    return not _PACKAGES.isdisjoint(file.parts) or not parents.isdisjoint(_INSTALLED)


def _file_of(name: str) -> Path | None:
    """The source file of a module, imported or not; nothing is run to find it."""
    if name in sys.modules:
        file = getattr(sys.modules[name], '__file__', None)
        return Path(file) if file and file.endswith('.py') else None
    first, *rest = name.split('.')
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    places = spec.submodule_search_locations if spec else None
    files = [Path(place, *rest, '__init__.py') for place in places or ()]
    files += [file.parent.with_suffix('.py') for file in files if rest]
    if spec and spec.has_location and not rest:
        files.append(Path(spec.origin or ''))
    return next((file for file in files if file.suffix == '.py' and file.is_file()), None)


def _source(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Digest of a module's file, None where it has no source, and names that it imports: of
    ``from a import b`` both a and a.b."""
    spec = getattr(sys.modules.get(name), '__spec__', None)
    if name not in _MET or _MET[name][0] is not spec:
        file, text = _file_of(name), None
        if file is not None and file.is_file():  # an archive has files that are none
            text = file.read_bytes()
        if file is None or text is None:
            _MET[name] = spec, None, ()
        else:
            package = name if file.name == '__init__.py' else name.rpartition('.')[0]
            _MET[name] = spec, hashlib.sha256(text).hexdigest(), tuple(_imports(text, package))
    return _MET[name][1:]


def _imports(text: bytes, package: str) -> Iterator[str]:
    with suppress(SyntaxError, ValueError, ImportError):  # somebody is writing it just now
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from (alias.name, alias.name.partition('.')[0])
            elif isinstance(node, ast.ImportFrom):
                start = importlib.util.resolve_name('.' * node.level + (node.module or ''), package)
                yield from (start, *(f'{start}.{alias.name}' for alias in node.names))


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
