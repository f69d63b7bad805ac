"""What a run logged: ``vis_data/scalars.json`` of all its starts, joined to one history."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCALARS = Path('vis_data') / 'scalars.json'
_PLACES = ('step', 'iter', 'epoch')  # entries that say where a line belongs

#: step -> value, in the order of the steps
Series = dict[int, float]


@dataclass(frozen=True)
class History:
    """Scalars of one run.

    Attributes:
        name: of the run.
        train: series of training by iteration: loss, lr, time, ...
        val: series of validation by epoch, or by iteration where training counts no epochs.
        val_unit: 'epoch' or 'iteration'.
        notes: what was odd about the files, for the user.
    """

    name: str
    train: Mapping[str, Series]
    val: Mapping[str, Series]
    val_unit: str
    notes: tuple[str, ...]


def find_scalars(work_dir: str | Path) -> list[Path]:
    """The scalar files of a run, oldest first.

    Args:
        work_dir: work directory with one time-stamped folder per start of the run, or one of these.

    Raises:
        FileNotFoundError: No such folder, or it holds no scalars.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise FileNotFoundError(f'{work_dir} is no folder; give the work directory of a run')
    own = work_dir / SCALARS
    found = [own] if own.is_file() else sorted(work_dir.glob(f'*/{SCALARS}'))
    if found:
        return found
    deeper = sorted({str(path.parents[2]) for path in work_dir.glob(f'*/*/{SCALARS}')})
    remedy = (
        f'it holds several runs; name them: {" ".join(deeper)}'
        if deeper
        else 'give the work directory of a training; LocalVisBackend writes the file, see '
        'visualizer.vis_backends in the config'
    )
    raise FileNotFoundError(f'{work_dir} has no {SCALARS} in it or in a folder of it; {remedy}')


def _lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The lines of a file; a last one that was cut off by the end of the run is left out."""
    texts = path.read_text(encoding='utf-8', errors='replace').splitlines()
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            if not isinstance(line, dict) or not isinstance(line.get('step'), int):
                raise ValueError('it is no {"name": value, ..., "step": number}')
        except ValueError as error:
            if number == len(texts):
                notes.append(f'{path}: the last line was cut off and is left out')
                break
            raise ValueError(
                f'{path}, line {number} cannot be read: {error}; delete the line'
            ) from error
        lines.append(line)
    return lines


def _cut(kept: dict[str, Series], start: int) -> None:
    """Forget what a later start of the run does again."""
    for series in kept.values():
        for step in [step for step in series if step >= start]:
            del series[step]


def _add(kept: dict[str, Series], step: int, line: Mapping[str, Any]) -> None:
    for key, value in line.items():
        if key not in _PLACES and isinstance(value, (int, float)) and not isinstance(value, bool):
            kept.setdefault(key, {})[step] = float(value)


def join(starts: Iterable[list[dict[str, Any]]], name: str, notes: Iterable[str] = ()) -> History:
    """Join the lines of all starts of a run.

    A resumed run begins again at its last checkpoint: from the first step of a later start on, what
    earlier ones logged is dropped, so that no step counts twice and no curve mixes two trainings.

    Args:
        starts: lines of each start, oldest first. Lines of training have ``iter``, those of
            validation have not.
        name: of the run.
        notes: see :class:`History`.
    """
    train: dict[str, Series] = {}
    val: dict[str, Series] = {}
    by_epoch = False
    for lines in starts:
        training = [line for line in lines if 'iter' in line]
        validation = [line for line in lines if 'iter' not in line]
        by_epoch = by_epoch or any('epoch' in line for line in training)
        if training:
            first = training[0]
            _cut(train, first['step'])
            _cut(val, first.get('epoch', first['step']))
        if validation:
            _cut(val, validation[0]['step'])
        for line in training:
            _add(train, line['step'], line)
        for line in validation:
            _add(val, line['step'], line)
    unit = 'epoch' if by_epoch or not train else 'iteration'
    for kept in (train, val):
        for key in list(kept):
            if series := kept.pop(key):
                kept[key] = dict(sorted(series.items()))
    return History(name, train, val, unit, tuple(notes))


def read_history(work_dir: str | Path, name: str | None = None) -> History:
    """Read and join all that a run logged.

    Args:
        work_dir: see :func:`find_scalars`.
        name: of the run; the folder's by default.

    Raises:
        FileNotFoundError: No folder, or no scalars in it.
        ValueError: A line (but the last) that is no JSON, or no line at all.
    """
    notes: list[str] = []
    starts = [_lines(path, notes) for path in find_scalars(work_dir)]
    if not any(starts):
        raise ValueError(f'{work_dir}: its {SCALARS} holds no whole line; the run logged nothing')
    return join(starts, name or Path(work_dir).resolve().name, notes)
