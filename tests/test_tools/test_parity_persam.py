"""PerSAM and PerSAM-F against their reference tensors, where these are."""

from __future__ import annotations

import shutil

import pytest
from parity_cases import add, edit_arrays, edit_index, run

pytest.importorskip('transformers')


@pytest.fixture(scope='module')
def root(shared_dir):
    folder = shared_dir / 'parity/persam'
    if not folder.is_dir():
        pytest.skip(f'no reference tensors at {folder}')
    return folder


def test_reference_tensors(tool, root):
    """Padding at the right and at the bottom, both brightnesses of masks, both methods."""
    comparer = tool.METHODS['PerSAM'](tool.Reference(root))
    rows = tool.check(comparer, ['b_persam_portrait', 'c_persam_mask_255', 'd_persam_f']).rows
    bad = [row for row in rows if not row.ok]
    assert not bad, bad
    assert len(rows) == 21 + 21 + 27


def test_what_is_changed_fails_and_what_cannot_be_used(tool, root, tmp_path, capsys):
    for path in root.iterdir():
        shutil.copy(path, tmp_path)
        (tmp_path / path.name).chmod(0o644)
    edit_arrays(tmp_path, 'c_persam_mask_255', attn_sim=add(1e-3))
    edit_index(tmp_path, lambda index: index['cases']['c_persam_mask_255'].update(mask_value=128))
    assert run(tool, tmp_path, '--cases', 'c_persam_mask_255', '--quiet') == 1
    said = capsys.readouterr().out
    assert 'support.mask_64 ' in said and 'attn_sim' in said
    edit_index(tmp_path, lambda index: index['cases']['a_persam'].update(variant='PerSAM-G'))
    assert run(tool, tmp_path, '--cases', 'a_persam') == 2
    message = "['variant'] must be 'PerSAM' or 'PerSAM-F, N epochs', got 'PerSAM-G'"
    assert message in capsys.readouterr().err
    edit_index(tmp_path, lambda index: index['arch']['sam'].update(pixel_mean=[1, 2, 3]))
    assert run(tool, tmp_path, '--cases', 'b_persam_portrait') == 2
    assert 'pixel_mean is [1, 2, 3], and mmfss has [123.675' in capsys.readouterr().err
