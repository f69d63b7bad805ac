"""Which files are meant: one checkpoint per fold from a pattern such as
``work_dirs/run/fold{fold}/best_*.pth``, the latest one of a work folder."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log

from mmfss.safe_load import is_whole

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


# ------------------------------------------------------------------------------- of a training
def checkpoint_folder(cfg: Mapping[str, Any], work_dir: str) -> str:
    """Where a training keeps its checkpoints: its work folder, or what mmengine's CheckpointHook
    makes of ``out_dir``."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    out_dir = hook.get('out_dir')
    if not out_dir or os.path.abspath(out_dir) == os.path.abspath(work_dir):
        return work_dir
    return os.path.join(out_dir, os.path.basename(work_dir.rstrip(os.sep)))


def latest_checkpoint(work_dir: str, folder: str) -> str | None:
    """The checkpoint that a training in a work folder goes on from; None where it has none.

    It is the one that ``last_checkpoint`` names. mmengine notes the path there as it was at the
    time; of that only the name counts, so that a folder that was copied or moved goes on with its
    own files. A run that was killed may leave a later one that is whole and not noted yet, which
    is taken; or a noted one that is damaged or gone: then the last one that is whole is. Which one
    is taken instead of the noted one is said.

    Args:
        work_dir: The work folder; it need not exist.
        folder: Of its checkpoints, see :func:`checkpoint_folder`.

    Raises:
        FileNotFoundError: The one that is noted is not there, and no other.
        ValueError: None of those that are there is whole.
    """
    note = os.path.join(work_dir, 'last_checkpoint')
    numbered = sorted(
        (
            (int(found[1]), os.path.join(folder, name))
            for name in (os.listdir(folder) if os.path.isdir(folder) else ())
            if (found := re.fullmatch(r'(?:epoch|iter)_(\d+)\.pth', name))
        ),
        reverse=True,
    )
    noted, order = '', [path for _, path in numbered]
    if os.path.isfile(note):
        with open(note, encoding='utf-8') as file:
            noted = file.read().strip()
    if noted:
        named = os.path.join(folder, re.split(r'[\\/]', noted)[-1])
        written = os.path.getmtime(note)
        numbered_later = order[: order.index(named)] if named in order else order
        later = [path for path in numbered_later if os.path.getmtime(path) > written]
        order = list(dict.fromkeys([*later, named, *order]))
    damaged = []
    for path in order:
        if not os.path.isfile(path):
            damaged.append(f'{path} does not exist')
        elif not is_whole(path):
            damaged.append(f'{path} is damaged')
        else:
            if noted and path != named:
                why = '; '.join(damaged) or 'it was saved after that was written'
                print_log(
                    f'{note} names {noted}; {path} is taken ({why})', 'current', logging.WARNING
                )
            return path
    if not order:
        return None
    missing = noted and not os.path.isfile(named)
    raise (FileNotFoundError if missing else ValueError)(
        f'{f"{note} names {noted}, but " if noted else ""}{"; ".join(damaged)}. --resume takes '
        f'whole checkpoints of its own work folder: copy one there, or delete {note} and what is '
        'damaged to begin anew'
    )
