"""KEY=VALUE of command lines as mmengine reads them: numbers, lists, tuples, quotes; and, which
mmengine takes for texts, dict(...) and {...} in the place of a value or within a list."""

from __future__ import annotations

import argparse
import ast
import re
from typing import Any


def assigned(texts: list[str]) -> dict[str, Any]:
    """What KEY=VALUE ... say.

    Raises:
        ValueError: One of them is no assignment, or cannot be read.
    """
    wrong = [text for text in texts if '=' not in text]
    if wrong or not texts:
        raise ValueError(f'KEY=VALUE is needed, got {wrong[0] if wrong else "nothing"}')
    from mmengine.config import DictAction

    options: dict[str, Any] = {}
    for text in texts:
        key, value = text.split('=', maxsplit=1)
        try:
            options[key] = _with_dicts(value)
            continue
        except (SyntaxError, ValueError):
            pass
        found = argparse.Namespace()
        try:
            DictAction(['--cfg-options'], 'options')(None, found, [text])
        except AssertionError as error:  # brackets that do not match
            raise ValueError(str(error)) from error
        except RecursionError as error:
            raise ValueError(
                f"{text} cannot be read; write a dict as KEY=dict(type='NAME', other=1)"
            ) from error
        options.update(found.options)
    return options


def _with_dicts(text: str) -> Any:
    """A value that has dicts in it, written in Python; names without quotes are texts.

    Raises:
        SyntaxError, ValueError: It is no such value.
    """
    if not re.search(r'(^|[\[(,{:=\s])(dict\(|\{)', text):
        raise ValueError('no dict')

    def read(node: ast.expr) -> Any:
        called = isinstance(node, ast.Call) and getattr(node.func, 'id', None) == 'dict'
        if called and not node.args and all(keyword.arg for keyword in node.keywords):
            return {str(keyword.arg): read(keyword.value) for keyword in node.keywords}
        if isinstance(node, ast.Dict) and None not in node.keys:
            return {read(k): read(v) for k, v in zip(node.keys, node.values) if k is not None}
        if isinstance(node, ast.List):
            return [read(entry) for entry in node.elts]
        if isinstance(node, ast.Tuple):
            return tuple(read(entry) for entry in node.elts)
        if isinstance(node, ast.Name):
            return {'true': True, 'false': False}.get(node.id, node.id)
        return ast.literal_eval(node)  # numbers, texts; ValueError for all else

    found = read(ast.parse(text.strip(), mode='eval').body)
    if not isinstance(found, (dict, list, tuple)):
        raise ValueError('no dict')
    return found
