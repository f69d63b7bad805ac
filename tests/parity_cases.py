"""Cases of a synthetic directory of reference tensors, and what tests do to such directories."""

from __future__ import annotations

import json

import numpy as np
from synthetic_reference import fssam, save_index

CASES = {
    'a_1shot': dict(shot=1, batch=2),
    'c_3shot_fixed': dict(shot=3, batch=1, ver_refine='v2', five_shot_variant='fixed'),
    'c_3shot_released': dict(shot=3, batch=1, five_shot_variant='released'),
    'd_none': dict(shot=1, batch=1, num_refine=0),
    'e_train': dict(shot=2, batch=1, mode='train'),
    'f_empty': dict(shot=1, batch=1, support_mask_override='empty'),
    'f_some': dict(shot=2, batch=1, support_mask_override='some'),
}


def run(tool, *args) -> int:
    """Exit status of the command."""
    return tool.main([str(arg) for arg in args])


def check(tool, root, cases=None):
    return tool.check(fssam(tool, root), cases)


def edit_index(root, change) -> None:
    index = json.loads((root / 'index.json').read_text())
    change(index)
    save_index(root, index)


def edit_arrays(root, name: str, **changes) -> None:
    data = dict(np.load(root / f'{name}.npz'))
    for key, change in changes.items():
        data[key] = change(data[key].copy()) if callable(change) else change
        if data[key] is None:
            del data[key]
    np.savez(root / f'{name}.npz', **data)


def add(value: float):
    """A change of one element."""

    def change(array: np.ndarray) -> np.ndarray:
        array.flat[array.size // 2] += value
        return array

    return change


def one_row(tool, root, case: str, stage: str):
    rows = check(tool, root, [case]).rows
    bad = [row for row in rows if not row.ok]
    assert stage in {row.stage for row in bad}, bad
    return next(row for row in bad if row.stage == stage)
