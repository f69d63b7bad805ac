"""Source text that what modules give depends on, so that a change of code is a change of the
encoder.

A process goes on with the code that it imported, whatever becomes of the files meanwhile. So a file
counts as it was when it was asked for first: those of encoders while these are imported.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

_INSTALLED = [Path(sysconfig.get_path(kind)) for kind in ('purelib', 'platlib', 'stdlib')]
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
    return file is None or any(place in file.parents for place in _INSTALLED)


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
