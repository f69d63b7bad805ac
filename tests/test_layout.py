"""Imports between the packages of mmfss run one way.

Every import counts, wherever it stands: in a function, or for types alone. A reader of the file has
to know the other one either way, and an import for types is a circle that only waits to be run.
``__init__.py``, ``__main__.py`` and ``registered.py``, which names all that registers, are above.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ORDER = (
    'root',  # the modules of mmfss itself: helpers, and the mends of the stack
    'regions',
    'features',
    'datasets',
    'checkpoints',
    'encoders',
    'methods',
    'evaluation',
    'visualization',
    'apis',
    'export',
    'engine',
    'labelling',
    'webui',
    'serve',
    'commands',
)
"""From the bottom up: a package imports from those before it."""


def imported(file: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports; ``from a import b`` gives ``a.b``,
    be it a module or something in one."""
    place = file.relative_to(package.parent).with_suffix('').parts
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = place[: len(place) - node.level] if node.level else ()
            start = '.'.join((*above, *([node.module] if node.module else [])))
            yield from ((node.lineno, f'{start}.{alias.name}') for alias in node.names)


def part_of(name: str, package: Path) -> str | None:
    """Package of a dotted name, 'root' for a module of mmfss; None for what is not of mmfss."""
    first, _, rest = name.partition('.')
    if first != package.name:
        return None
    top = rest.partition('.')[0]
    return top if top and (package / top).is_dir() else 'root'


def arrows(package: Path) -> dict[tuple[str, str], list[str]]:
    """``{(importer, imported): where}`` between different packages, less what is above all."""
    found: dict[tuple[str, str], list[str]] = {}
    for file in sorted(package.rglob('*.py')):
        inside = file.relative_to(package).parts
        if inside in (('__init__.py',), ('__main__.py',), ('registered.py',)):
            continue
        source = inside[0] if len(inside) > 1 else 'root'
        for line, name in imported(file, package):
            target = part_of(name, package)
            if target not in (None, source):
                found.setdefault((source, target), []).append(f'{"/".join(inside)}:{line} {name}')
    return found


def told(pairs: dict[tuple[str, str], list[str]]) -> str:
    return '\n'.join(
        f'{source} -> {target}\n  ' + '\n  '.join(places)
        for (source, target), places in sorted(pairs.items())
    )


def upward(package: Path) -> str:
    """The imports from a package further up, as text."""
    place = {name: i for i, name in enumerate(ORDER)}
    return told({p: w for p, w in arrows(package).items() if place[p[0]] <= place[p[1]]})


def mutual(package: Path) -> str:
    """The packages that import each other, as text: the direction of fewer imports."""
    found = arrows(package)
    back = {(a, b): found.get((b, a), []) for a, b in found}
    return told(
        {p: w for p, w in found.items() if back[p] and (len(w), p) < (len(back[p]), p[::-1])}
    )


@pytest.fixture
def package(repo_root):
    return repo_root / 'mmfss'


def test_every_package_has_its_place(package):
    folders = {p.parent.relative_to(package).parts[0] for p in package.glob('*/*.py')}
    assert folders == set(ORDER) - {'root'}


def test_nothing_imports_from_further_up(package):
    assert not upward(package), f'imports from further up:\n{upward(package)}'


def test_no_two_packages_import_each_other(package):
    assert not mutual(package), f'packages that import each other:\n{mutual(package)}'


def test_the_package_imports_no_tools(package, repo_root):
    tools = {p.stem for p in (repo_root / 'tools').iterdir() if p.is_dir() or p.suffix == '.py'}
    tools -= {'test'}  # also a module of Python
    for file in package.rglob('*.py'):
        used = {name.partition('.')[0] for _, name in imported(file, package)}
        assert not used & {*tools, 'tools', 'tests'}, file


def test_the_check_sees_every_kind_of_import(tmp_path):
    """In functions, for types alone, relative, of packages and of modules."""
    package = tmp_path / 'mmfss'
    files = {
        '__init__.py': 'from . import apis, datasets',
        'files.py': 'import os',
        'datasets/__init__.py': 'from mmfss.files import x\nfrom .io import y',
        'datasets/io.py': 'def f():\n    from mmfss.apis import g\n',
        'apis/shots.py': 'from typing import TYPE_CHECKING\n'
        'if TYPE_CHECKING:\n    from ..engine.hooks import Hook\n',
        'engine/hooks.py': 'import mmfss\nimport mmfss.apis.shots as s\n'
        'from mmfss import datasets, files\n',
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert {pair: len(where) for pair, where in arrows(package).items()} == {
        ('datasets', 'root'): 1,
        ('datasets', 'apis'): 1,
        ('apis', 'engine'): 1,
        ('engine', 'apis'): 1,
        ('engine', 'datasets'): 1,
        ('engine', 'root'): 2,
    }
    assert upward(package) == (
        'apis -> engine\n  apis/shots.py:3 mmfss.engine.hooks.Hook\n'
        'datasets -> apis\n  datasets/io.py:2 mmfss.apis.g'
    )
    assert mutual(package) == 'apis -> engine\n  apis/shots.py:3 mmfss.engine.hooks.Hook'
