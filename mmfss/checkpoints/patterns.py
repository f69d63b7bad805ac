"""One checkpoint per fold from a pattern such as ``work_dirs/run/fold{fold}/best_*.pth``."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

_MAGIC = '*?['


def resolve(patterns: Sequence[str], folds: Sequence[int]) -> dict[tuple[str, int], str]:
    """The file of each pattern and fold.

    Args:
        patterns: paths in which ``{fold}`` stands for the fold and ``*``, ``?``, ``[...]`` and
            ``**`` are those of :mod:`glob`; addresses with a scheme are taken as they are.
        folds: numbers of the folds.

    Returns:
        ``{(pattern, fold): path}``.

    Raises:
        FileNotFoundError: no file for some fold.
        ValueError: several files for some fold (all of them are listed), or a pattern twice.
    """
    if len(set(patterns)) < len(patterns):
        raise ValueError(f'each checkpoint may be given once, got {list(patterns)}')
    found: dict[tuple[str, int], str] = {}
    problems: dict[type[Exception], list[str]] = {FileNotFoundError: [], ValueError: []}
    for pattern in patterns:
        for fold in folds:
            path = pattern.replace('{fold}', str(fold))
            matches = _matches(path)
            if len(matches) == 1:
                found[pattern, fold] = matches[0]
            elif matches:
                text = f'fold {fold}: {path} matches {len(matches)} files: {", ".join(matches)}'
                problems[ValueError].append(text)
            elif path == pattern and not any(sign in path for sign in _MAGIC):
                need_file(path)
            else:
                problems[FileNotFoundError].append(f'fold {fold}: {path} matches no file')
    both = [text for texts in problems.values() for text in texts]
    if both:
        kind = FileNotFoundError if problems[FileNotFoundError] else ValueError
        raise kind(
            f'a checkpoint pattern must match exactly one file per fold; {"; ".join(both)}. '
            'Nothing was tested. Train what is missing, or make the pattern narrower'
        )
    return found


def _matches(path: str) -> list[str]:
    path = path if '://' in path else os.path.expanduser(path)
    if '://' in path or os.path.isfile(path):  # a file may be called a[1].pth
        return [path]
    return sorted(p for p in glob.glob(path, recursive=True) if os.path.isfile(p))


def labels(patterns: Sequence[str]) -> dict[str, str]:
    """A short name for each pattern: its last part, where these differ, else all of it."""
    last = {pattern: os.path.basename(pattern) for pattern in patterns}
    return last if len(set(last.values())) == len(last) else {p: p for p in patterns}


def need_file(path: str) -> None:
    """Check that a checkpoint is there; addresses with a scheme pass.

    Raises:
        FileNotFoundError: no such file.
    """
    if '://' not in path and not os.path.isfile(path):
        raise FileNotFoundError(
            f'checkpoint {path} does not exist; tools/train.py leaves '
            'checkpoints in its work dir, work_dirs/CONFIG/foldF'
        )
