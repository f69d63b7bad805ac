"""Directories of reference tensors and how a stage of them is compared; knows no method.

A directory holds ``index.json`` and one ``.npz`` per case. The index has ``cases`` (name -> entry
with ``stages``: name -> full shape, slice, statistics) and ``tolerances``; ``method`` or ``set``
names it. A method is compared by a :class:`Comparer`, which computes the stages.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

NAN = float('nan')
#: arrays of a case that are no stages: its inputs, and what a method compares in its own way
OF_A_CASE = ('in.', 'grad.')
_READING = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Row:
    """One comparison: largest absolute error and relative L2 error against their bounds."""

    case: str
    stage: str
    error: float
    bound: float
    rl2: float = 0.0
    rl2_bound: float = 0.0
    note: str = ''
    broken: bool = False  # a file could not be read or does not go with the others

    @property
    def ok(self) -> bool:
        return not self.note and self.error <= self.bound and self.rl2 <= self.rl2_bound

    @classmethod
    def failed(cls, case: str, stage: str, note: str, broken: bool = False) -> Row:
        """A row of what was not compared."""
        return cls(case, stage, NAN, 0.0, NAN, 0.0, note, broken)


class Entry(dict):
    """A mapping of a file that says which file and entry lacks a key."""

    def __init__(self, content: Mapping, where: str) -> None:
        super().__init__(content)
        self.where = where

    def __missing__(self, key: str) -> Any:
        raise ValueError(f'{self.where} lacks {key!r}')


def _entries(value: Any, where: str) -> Any:
    """JSON in which every mapping is an :class:`Entry`."""
    if isinstance(value, dict):
        return Entry({k: _entries(v, f'{where}[{k!r}]') for k, v in value.items()}, where)
    return [_entries(item, where) for item in value] if isinstance(value, list) else value


class Reference:
    """A directory of reference tensors.

    Args:
        root: the directory.

    Raises:
        FileNotFoundError: it has no index.json.
        ValueError: index.json is damaged or of another form.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        file = self.root / 'index.json'
        if not file.is_file():
            raise FileNotFoundError(
                f'{self.root} has no index.json; give a directory of reference tensors, or one '
                'that holds such directories'
            )
        try:
            index = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f'{file} cannot be read: {error}') from error
        if not isinstance(index, dict) or not isinstance(index.get('cases'), dict):
            raise ValueError(f"{file} must be a mapping with a mapping 'cases', name -> entry")
        self.index = _entries(index, str(file))

    @property
    def name(self) -> str:
        """Method or set, as the index names it."""
        return str(self.index.get('method') or self.index.get('set') or self.root.name)

    @property
    def cases(self) -> list[str]:
        return list(self.index['cases'])

    def case(self, name: str) -> Entry:
        entry = self.index['cases'][name]
        if not isinstance(entry, dict):
            raise ValueError(f'{self.index["cases"].where}[{name!r}] must be a mapping')
        return entry

    def has(self, file: str) -> bool:
        return (self.root / file).is_file()

    def npz(self, file: str) -> Entry:
        """All arrays of a file, which is relative to the directory.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged.
        """
        path = self.root / file
        if not path.is_file():
            raise FileNotFoundError(f'{path} does not exist')
        try:
            with np.load(path) as content:
                return Entry(content, str(path))
        except (*_READING, AttributeError, TypeError) as error:  # the last two: a .npy file
            raise ValueError(f'{path} is damaged or no .npz file: {error}') from error

    @cached_property
    def inputs(self) -> Entry:
        """Photos and masks by number, read once."""
        return self.npz('inputs.npz')

    def one_file(self, pattern: str) -> str:
        """Path of the one file whose name fits.

        Raises:
            ValueError: there is none, or there are more.
        """
        found = sorted(self.root.glob(pattern))
        if len(found) != 1:
            names = [path.name for path in found]
            raise ValueError(f'{self.root}: expected one file {pattern}, got {names}')
        return str(found[0])

    def arrays(self, name: str) -> Entry:
        """Arrays of a case."""
        return self.npz(self.case(name).get('file', f'{name}.npz'))

    def tolerance(self, stage: str, meta: Mapping) -> Mapping | str | None:
        """``atol`` and ``rl2`` of a stage, or words; None where the index says nothing.

        A stage that is ``exact`` must be equal. Bounds at the stage itself come before those of
        ``tolerances``, which are by the whole name or, where there is a ``rule`` or ``default``,
        by the longest key that the name begins with.
        """
        if meta.get('exact'):
            return dict(atol=0.0, rl2=0.0)
        if 'atol' in meta:
            return meta
        known = self.index.get('tolerances') or {}
        if stage in known or not {'rule', 'default'} & set(known):
            return known.get(stage)
        if meta.get('dtype') == 'bool' and 'bool_not_exact' in known:
            return known['bool_not_exact']
        keys = [key for key in known if stage.startswith(key)]
        return known[max(keys, key=len)] if keys else known.get('default')


class Comparer:
    """Computes the stages of a method for the cases of a directory; one subclass per method.

    Args:
        ref: the directory.
        device: where the method runs; its stages come back to the CPU. Another than the CPU is for
            those with ``any_device``.

    Attributes:
        method: its name, as reports print it.
        any_device: whether it runs elsewhere than on the CPU.
    """

    method: str
    any_device = False

    def __init__(self, ref: Reference, device: torch.device | str = 'cpu') -> None:
        self.ref, self.device = ref, torch.device(device)

    @classmethod
    def recognises(cls, index: Mapping) -> bool:
        """Whether a directory with this index is of the method."""
        raise NotImplementedError

    def left_out(self) -> dict[str, str]:
        """Cases that are no part of the method, with the reason; compared only where named."""
        return {}

    def run(self, name: str) -> tuple[dict[str, Tensor], list[Row]]:
        """Compute a case.

        Returns:
            All its stages whole, under the reference's names; further ones do no harm. And rows
            of what is compared in a way of its own.
        """
        raise NotImplementedError

    def parts(self) -> dict[str, Callable[[], list[Row]]]:
        """Files that are cases of their own, by the name of the case."""
        return {}


def check_case(comparer: Comparer, name: str) -> list[Row]:
    """All rows of a case, a failing one for each stage that was not compared."""
    ref = comparer.ref
    case, arrays = ref.case(name), ref.arrays(name)
    listed = case['stages']
    stages, more = comparer.run(name)
    rows = []
    unlisted = [key for key in arrays if key not in listed and not key.startswith(OF_A_CASE)]
    for stage, meta in {**listed, **dict.fromkeys(unlisted)}.items():
        if stage not in stages:
            rows.append(Row.failed(name, stage, 'not compared'))
            continue
        tolerance = ref.tolerance(stage, meta) if isinstance(meta, dict) else None
        if tolerance is None:
            rows.append(Row.failed(name, stage, 'no shape or tolerance in the index'))
            continue
        try:
            row = compare_stage(name, stage, stages[stage], meta, arrays.get(stage), tolerance)
        except (ValueError, IndexError, TypeError) as error:  # an entry that makes no sense
            row = Row.failed(name, stage, f'the index makes no sense here: {error}')
        rows.append(row)
    return rows + more


def compare_stage(
    case: str, stage: str, ours: Tensor, meta: Mapping, stored: Any, tolerance: Mapping | str
) -> Row:
    """Compare one stage: the stored excerpt, or statistics of the whole where none is stored.

    Raises:
        ValueError, IndexError, TypeError: what the index says of the stage makes no sense.
    """
    if list(ours.shape) != list(meta['full_shape']):
        note = f'shape {list(ours.shape)} instead of {meta["full_shape"]}'
        return Row.failed(case, stage, note)
    ours = ours.double().numpy()
    slack = 0.0
    if meta.get('stored', True):
        text = meta.get('slice', '[...]')
        packed = text == 'packbits' or 'packed' in meta
        got = ours if text == 'packbits' else ours[slice_of(text)]
        if stored is None:
            return Row.failed(case, stage, 'absent from the file')
        if packed:  # booleans, eight to a byte along the last axis
            stored = np.unpackbits(stored, axis=-1, count=got.shape[-1])
        want = np.asarray(stored, dtype=np.float64)
        want = want.reshape(got.shape) if got.size == want.size == 1 else want  # scalars as (1,)
        if want.shape != got.shape:
            return Row.failed(case, stage, f'stored as {want.shape}')
    else:
        got, want = _statistics(ours, meta)
        slack = 1e-6 * max(1.0, np.abs(want).max())  # the index prints seven digits
    if isinstance(tolerance, str):
        if 'same partition' not in tolerance:
            raise ValueError(f'tolerance {tolerance!r} is not known')
        got, want, tolerance = _first_seen(got), _first_seen(want), dict(atol=0.0, rl2=0.0)
    got, want = got.ravel(), want.ravel()
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        return Row.failed(case, stage, 'not finite')
    if 'pixels' in tolerance:
        return Row(case, stage, float(np.abs(got - want).sum()), tolerance['pixels'])
    return row_of(case, stage, got, want, tolerance['atol'] + slack, tolerance['rl2'] + slack)


def row_of(
    case: str, stage: str, got: np.ndarray, want: np.ndarray, atol: float, rl2_bound: float
) -> Row:
    """The row of two float64 arrays of one shape."""
    error = float(np.abs(got - want).max()) if got.size else 0.0
    rl2 = float(np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-12))
    return Row(case, stage, error, atol, rl2, rl2_bound)


def gradient_stages(grads: Sequence[Tensor]) -> dict[str, Tensor]:
    """Norms of gradients, and four values of each: first, at a third, in the middle, last."""
    flat = [grad.flatten() for grad in grads]
    samples = [grad[[0, len(grad) // 3, len(grad) // 2, len(grad) - 1]] for grad in flat]
    norms = torch.stack([grad.norm() for grad in flat])
    return {'grad.norms': norms, 'grad.samples': torch.cat(samples)}


def slice_of(text: str) -> tuple:
    """Python indexing written as text, e.g. ``[:, ::3, ...]``, without evaluating it.

    Raises:
        ValueError: it is something else.
    """
    if not re.fullmatch(r'\[[-\d:,.\s]+\]', str(text)):
        raise ValueError(f'{text!r} is no indexing such as [:, ::3, ...]')

    def part(item: str):
        item = item.strip()
        if item == '...':
            return Ellipsis
        if ':' in item:
            return slice(*(int(p) if p.strip() else None for p in item.split(':')))
        return int(item)

    return tuple(part(item) for item in text.strip()[1:-1].split(','))


def _statistics(ours: np.ndarray, meta: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Our statistics and the reference's, the L2 norms as shares of the latter."""
    kinds: dict[str, Callable[[np.ndarray], float]] = dict(
        mean=np.mean, std=np.std, min=np.min, max=np.max, sum=np.sum, l2=np.linalg.norm
    )
    told = dict(meta.get('stats') or {})
    if 'count_true' in meta:
        told['sum'] = meta['count_true']
    if not told or set(told) - set(kinds):
        raise ValueError(f'not stored, and statistics {sorted(told)}; known are {sorted(kinds)}')
    got = {kind: float(of(ours)) for kind, of in kinds.items() if kind in told}
    want = {kind: float(told[kind]) for kind in got}
    if 'l2' in want:
        scale = max(want['l2'], 1e-12)
        got['l2'], want['l2'] = got['l2'] / scale, want['l2'] / scale
    return np.array(list(got.values())), np.array(list(want.values()))


def _first_seen(labels: np.ndarray) -> np.ndarray:
    """Labels of a partition renamed by the order in which they come."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.float64)
