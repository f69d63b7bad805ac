"""How much code the package is, and how much of it a reader meets: one column per checkout.

    python tools/analysis_tools/count_code.py . ../before --label

Counted in every ``.py`` file of ``CHECKOUT/mmfss``:

- code lines: those with anything but white space, comments and docstrings;
- private helpers: functions and methods with one leading underscore; one is used once where its
  name stands once outside its own body (in its file, else in the package);
- comments: lines with one, rules (``# ---``) and notes to tools (``# noqa``) apart.

``--label`` labels one image with ``tools/label.py`` and the tiny model of ``tests/tiny_runs.py`` of
each checkout, a second time after everything is imported, and counts the files and functions of
the package that are entered; comprehensions and module bodies are no functions.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import re
import runpy
import statistics
import subprocess
import sys
import tempfile
import threading
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_NO_COMMENT = re.compile(r'#\s*(noqa|type:|fmt:|yapf:|pragma|-{3,}|={3,})')
_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A file: its number of lines, of lines with code and with a comment, and its private helpers
    ``{name: uses}``."""

    lines: int
    code: int
    comments: int
    helpers: tuple[tuple[str, int], ...]
    names: Counter[str]


def read(file: Path) -> Source:
    """Count one file."""
    text = file.read_text(encoding='utf-8')
    tree = ast.parse(text)
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not _NO_COMMENT.match(token.string):
            comments.add(token.start[0])
        if token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    for docstring in _docstrings(tree):
        code.difference_update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    names = _names(tree)
    helpers = tuple(
        (function.name, names[function.name] - _names(function)[function.name])
        for function in _functions(tree)
        if re.match('_[^_]', function.name)
    )
    return Source(len(text.splitlines()), len(code), len(comments), helpers, names)


def _docstrings(tree: ast.AST) -> Iterator[ast.Expr]:
    """Strings that stand alone: docstrings, and those below an attribute."""
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield node


def _functions(tree: ast.Module) -> Iterator[Function]:
    """Functions of the module and methods of its classes, not those inside functions."""
    todo: list[ast.stmt] = list(tree.body)
    for node in todo:
        if isinstance(node, Function):
            yield node
        elif isinstance(node, ast.ClassDef):
            todo += node.body


def _names(tree: ast.AST) -> Counter[str]:
    """How often each name stands there, definitions and imports apart."""
    names: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names[node.id] += 1
        elif isinstance(node, ast.Attribute):
            names[node.attr] += 1
    return names


def count(package: Path, folders: Sequence[str] = ()) -> dict[str, Any]:
    """The numbers of a package, by what they count.

    Args:
        package: Its folder.
        folders: Those below it whose comments are counted; None for one that is not there.

    Raises:
        FileNotFoundError: No Python files there.
    """
    sources = {file: read(file) for file in sorted(package.rglob('*.py'))}
    if not sources:
        raise FileNotFoundError(f'{package} has no Python files; give the folder of a checkout')
    lines = sum(source.lines for source in sources.values())
    everywhere = sum((source.names for source in sources.values()), Counter[str]())
    uses = [
        number or everywhere[name] for source in sources.values() for name, number in source.helpers
    ]
    numbers: dict[str, Any] = {
        'files': len(sources),
        'lines': lines,
        'code lines': sum(source.code for source in sources.values()),
        'median file length': statistics.median(source.lines for source in sources.values()),
        'files over 400 lines': sum(source.lines > 400 for source in sources.values()),
        'private helpers': len(uses),
        'private helpers per 1,000 lines': round(1000 * len(uses) / lines, 1),
        'private helpers used once, %': round(100 * uses.count(1) / len(uses)) if uses else None,
    }
    for folder in folders:
        there = [source for file, source in sources.items() if (package / folder) in file.parents]
        comments = sum(source.comments for source in there)
        code = sum(source.code for source in there)
        numbers[f'{folder}: code lines'] = code or None
        numbers[f'{folder}: code lines per comment'] = round(code / comments) if comments else None
    return numbers


def entered(folder: Path, call: Callable[[], object]) -> tuple[int, int]:
    """How many files and functions below a folder a call enters, in all threads."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, arg: object) -> None:
        if event == 'call':
            seen.add(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    inside = [code for code in seen if folder in Path(code.co_filename).parents]
    functions = [c for c in inside if not c.co_name.startswith('<') or c.co_name == '<lambda>']
    return len({code.co_filename for code in functions}), len(functions)


def label(checkout: Path) -> tuple[int, int]:
    """Files and functions entered to label one image; to be called in a process of its own, in
    which the checkout and its tests come first on the path."""
    import numpy as np
    import tiny_runs
    import torch
    from mmengine.config import Config
    from mmseg.registry import MODELS
    from PIL import Image

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = tiny_runs.write_config(folder / 'tiny.py', folder / 'shapes')
        model = MODELS.build(Config.fromfile(config).model)
        torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'tiny.pth')
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        mask[16:48, 16:48] = 255
        for path, array in (('disc/a.jpg', image), ('disc/a.png', mask), ('images/b.png', image)):
            (folder / 'support' / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / 'support' / path)
        (folder / 'support/images').rename(folder / 'images')

        def run(out: str) -> None:
            sys.argv = ['label.py', *(str(folder / part) for part in ('support', 'images', out))]
            sys.argv += ['--config', config, '--weights', str(folder / 'tiny.pth')]
            try:
                with redirect_stdout(sys.stderr):
                    runpy.run_path(str(checkout / 'tools/label.py'), run_name='__main__')
            except SystemExit as end:
                if end.code:
                    raise RuntimeError(f'labelling ended with status {end.code}') from end

        run('first')  # imports are not what labelling takes
        return entered(checkout / 'mmfss', lambda: run('second'))


def labelled(checkout: Path) -> dict[str, int]:
    """What :func:`label` gives, from another process."""
    places = [str(checkout), str(checkout / 'tests')]
    done = subprocess.run(
        [sys.executable, __file__, str(checkout), '--inside'],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(places), 'CUDA_VISIBLE_DEVICES': '-1'},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f'{checkout} could not label an image:\n{done.stderr[-2000:]}')
    files, functions = json.loads(done.stdout.splitlines()[-1])
    return {'labelling one image: files': files, 'labelling one image: functions': functions}


def table(columns: dict[str, dict[str, Any]]) -> str:
    """Columns of numbers by name, as aligned text; '-' where there is none."""
    rows = [['', *columns]]
    for row in next(iter(columns.values())):
        numbers = [column[row] for column in columns.values()]
        rows.append([row, *('-' if number is None else f'{number:,}' for number in numbers)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return '\n'.join(
        '  '.join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
        for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkouts', nargs='+', type=Path, metavar='CHECKOUT')
    parser.add_argument('--folders', nargs='*', default=['methods', 'encoders'], metavar='NAME',
        help='folders of the package whose comments are counted (default: methods encoders)'
        )  # fmt: skip
    parser.add_argument('--label', action='store_true', help='label one image too')
    parser.add_argument('--inside', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    checkouts = [path.resolve() for path in args.checkouts]
    if args.inside:
        print(json.dumps(label(checkouts[0])))
        return
    columns = {}
    for given, checkout in zip(args.checkouts, checkouts):
        columns[str(given)] = count(checkout / 'mmfss', args.folders)
        if args.label:
            columns[str(given)] |= labelled(checkout)
    print(table(columns))


if __name__ == '__main__':
    main()
