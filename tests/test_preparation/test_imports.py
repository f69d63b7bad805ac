"""Preparations ask for no deep-learning package: ``prepare.py --help`` is not to wait for one."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

LIGHT = {'isal', 'numpy', 'PIL', 'tqdm'}


def imported_at_the_top(file: Path) -> set[str]:
    """Dotted names that a file imports where it is loaded, not in its functions."""
    names: set[str] = set()
    todo: list[ast.AST] = [ast.parse(file.read_text(encoding='utf-8'))]
    for node in todo:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f'{node.module}.{alias.name}' for alias in node.names} | {f'{node.module}'}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING':
            todo += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)
    return names


def test_what_preparations_import(repo_root):
    """Through all modules of mmfss that they load; ``__init__`` files that list the parts apart."""
    files = list((repo_root / 'mmfss/datasets/preparation').glob('*.py'))
    others: dict[str, str] = {}
    for file in files:
        for name in imported_at_the_top(file):
            module = repo_root / f'{name.replace(".", "/")}.py'
            if name.startswith('mmfss.'):
                files += [module] if module.is_file() and module not in files else []
            elif name.partition('.')[0] not in sys.stdlib_module_names:
                others.setdefault(name.partition('.')[0], file.name)
    assert len(files) > 25, 'the modules of mmfss are followed'
    assert others.keys() == LIGHT, others
