"""GF-SAM against its reference tensors, where these are, and what fails if ours were otherwise."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from parity_cases import edit_arrays, edit_index, run

pytest.importorskip('transformers')
UNITS = ['many', 'few', 'flipped', 'fallback_best', 'fallback_rejected', 'points']


@pytest.fixture(scope='module')
def root(shared_dir):
    folder = shared_dir / 'parity/gf_sam'
    if not folder.is_dir():
        pytest.skip(f'no reference tensors at {folder}')
    return folder


def test_reference_tensors(tool, root):
    """The other episodes are other photos, and the resizing of one of them another."""
    cases = ['c_3shot', *(f'unit_{name}' for name in UNITS)]
    rows = tool.check(tool.METHODS['GF-SAM'](tool.Reference(root)), cases).rows
    bad = [row for row in rows if not row.ok]
    assert not bad, bad
    assert len(rows) == 37 + 11 + 11 + 3 * 10 + 6


@pytest.fixture
def copied(root, tmp_path):
    """The units alone."""
    shutil.copy(root / 'index.json', tmp_path)
    for name in UNITS:
        shutil.copy(root / f'unit_{name}.npz', tmp_path)
    edit_index(tmp_path, lambda index: index['cases'].clear())
    return tmp_path


def test_units_alone_and_what_is_changed_fails(tool, copied, capsys):
    assert run(tool, copied, '--quiet') == 0

    def other(points: np.ndarray) -> np.ndarray:
        points[0, 0] += 1
        return points

    edit_arrays(copied, 'unit_points', **{'points0.grid': other})
    edit_arrays(copied, 'unit_few', **{'consist.state': lambda state: 2 - state})
    edit_index(copied, lambda index: index['units']['few']['stages'].update(mine={}))
    assert run(tool, copied, '--quiet') == 1
    said = capsys.readouterr().out
    assert 'points0.grid' in said and 'consist.state' in said
    assert 'not compared' in said


def test_what_cannot_be_used(tool, root, copied, capsys):
    index = json.loads((root / 'index.json').read_text())
    edit_index(copied, lambda mine: mine['cases'].update(a_1shot=index['cases']['a_1shot']))
    shutil.copy(root / 'a_1shot.npz', copied)
    assert run(tool, copied, '--cases', 'a_1shot') == 2
    assert 'expected one file dinov2*.pth, got []' in capsys.readouterr().err
    edit_index(copied, lambda mine: mine['arch']['sam'].update(mask_threshold=0.5))
    assert run(tool, copied, '--cases', 'a_1shot') == 2
    assert 'mask_threshold is 0.5, and mmfss has 0.0 alone' in capsys.readouterr().err
