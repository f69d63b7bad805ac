"""check_parity.py on the excerpt, on directories of other sizes, and on the whole reference."""

from __future__ import annotations

import json
import math
import os
import shutil

import forks
import numpy as np
import pytest
import torch
from parity_cases import add, check, edit_arrays, edit_index, one_row, run
from synthetic_reference import CLASSES, SIDE, WITHOUT_EPISODE, fssam, save_index, write

# ---------------------------------------------------------------- the excerpt


def test_excerpt_as_a_command(repo_root):
    argv = ['tools/analysis_tools/check_parity.py', 'tests/data/parity_small', '--quiet']
    done = forks.python(argv, repo_root, os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '13 of 13 stages within tolerance' in done.stdout  # metric
    assert '36 of 36 stages within tolerance' in done.stdout  # units
    assert 'FAILED' not in done.stdout


@pytest.mark.parametrize(
    ('name', 'key', 'change', 'row'),
    [
        ('units', 'attn.h2.s3.calibrated', add(1e-3), 'attn.h2.s3.calibrated'),
        ('units', 'wgap.out', add(1e-3), 'wgap.out'),
        ('units', 'dice.grad', add(1e-6), 'dice.grad'),
        ('units', 'prior_mem3', add(float('nan')), 'prior_mem3'),
        ('units', 'proto1.new', np.ones(3), 'proto1.new'),
        ('metric', 'union', add(1), 'union of each episode'),
        ('metric', 'expected.miou', add(1e-5), 'mIoU'),
        ('metric', 'expected.fg_bg_iou', add(1e-5), 'fg_bg_iou'),
        ('metric', '07.pred', lambda x: 1 - x, 'predictions that differ'),
        ('metric', '07.label', lambda x: x * 0, 'intersection of each episode'),
    ],
)
def test_a_changed_number_of_the_excerpt_fails(
    tool, repo_root, tmp_path, capsys, name, key, change, row
):
    root = shutil.copytree(repo_root / 'tests/data/parity_small', tmp_path / 'copy')
    edit_arrays(root, name, **{key: change})
    assert run(tool, root, '--quiet', '--cases', name) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if 'FAILED' in line]
    assert any(row in line for line in failed), failed


# ---------------------------------------------------------------- other sizes


def test_a_directory_of_other_sizes_passes(tool, synthetic, capsys):
    """128 pixels, 64 and 16 channels, 3 layers, 2 heads, 3 shots, base-plus, registers, SwiGLU."""
    assert run(tool, synthetic) == 0
    out = capsys.readouterr().out
    # 46 without layers and iterations; 3 for each of 3 layers and of 0 or 2 iterations
    stages = {'d_none': 46 + 9, 'e_train': 46 + 9 + 6 + 1}  # the last with its loss
    index = json.loads((synthetic / 'index.json').read_text())
    for name, case in index['cases'].items():
        if name == 'c_3shot_released':
            assert f'{name:24} left out' in out
            continue
        number = len(case['stages'])
        assert number == stages.get(name, 46 + 9 + 6), name
        if case['mode'] == 'train':
            number += 2 * len(case['grads']['names']) + 1
        assert f'{name:24} {number} of {number} stages within tolerance' in out
    assert f'{"constants":24} 6 of 6 stages within tolerance' in out
    assert f'{"metric":24} {8 + CLASSES} of {8 + CLASSES} stages within tolerance' in out
    assert f'{"units":24} left out: there is no {synthetic}/units.npz' in out
    assert f'prior.ae_{SIDE}' in out and 'attn.layer2.cross_attn' in out
    assert 'FAILED' not in out


def test_sam2_1(tool, tmp_path, capsys):
    cases = {'one': dict(shot=2, batch=1)}
    root = write(tool, tmp_path / 'newer', 'sam2.1_hiera_t.yaml', cases)
    keys = torch.load(root / 'sam2_random.pt', weights_only=True)['model']
    assert 'no_obj_embed_spatial' in keys
    assert run(tool, root, '--quiet') == 0
    # as 2.0 the weights do not fit
    edit_index(root, lambda index: index.update(sam2_base_config='sam2_hiera_t.yaml'))
    assert run(tool, root) == 2
    assert 'unexpected keys: no_obj_embed_spatial' in capsys.readouterr().err


@pytest.mark.parametrize('stage', ['refine.2.mem', 'attn.output', 'output', 'dec.final.best_idx'])
def test_a_perturbed_stage_fails(tool, copied, stage):
    index = json.loads((copied / 'index.json').read_text())
    entry = index['cases']['c_3shot_fixed']['stages'][stage]
    if entry['stored']:
        edit_arrays(copied, 'c_3shot_fixed', **{stage: add(1)})
    else:
        entry['stats']['mean'] += 1
        save_index(copied, index)
    row = one_row(tool, copied, 'c_3shot_fixed', stage)
    assert row.error == pytest.approx(1, abs=1e-2) and row.bound < 1e-3


def test_the_relative_bound_holds_too(tool, copied):
    def loosen(index):
        index['tolerances']['attn.memory'] = dict(atol=1e9, rl2=1e-5)

    edit_index(copied, loosen)
    edit_arrays(copied, 'a_1shot', **{'attn.memory': lambda x: x * 1.001})
    row = one_row(tool, copied, 'a_1shot', 'attn.memory')
    assert row.rl2 == pytest.approx(1e-3, rel=0.01) and row.error < row.bound


@pytest.mark.parametrize(
    ('change', 'stage', 'note'),
    [
        (
            lambda case: case['stages'].update({'mem.new': dict(full_shape=[1])}),
            'mem.new',
            'not comp',
        ),
        (lambda case: case['stages']['output'].update(full_shape=[1, 9, 9]), 'output', 'shape '),
        (lambda case: case['stages'].pop('output'), 'output', 'no shape or tolerance in the index'),
    ],
)
def test_a_stage_that_cannot_be_compared_fails(tool, copied, change, stage, note):
    edit_index(copied, lambda index: change(index['cases']['d_none']))
    assert 'output' in np.load(copied / 'd_none.npz')
    row = one_row(tool, copied, 'd_none', stage)
    assert note in row.note and math.isnan(row.error)


def test_stored_arrays_that_are_absent_or_cut_fail(tool, copied):
    edit_arrays(copied, 'd_none', output=None)
    assert one_row(tool, copied, 'd_none', 'output').note == 'absent from the file'
    edit_arrays(copied, 'd_none', output=np.zeros(3))
    assert one_row(tool, copied, 'd_none', 'output').note == 'stored as (3,)'


def test_gradients_are_compared(tool, copied):
    edit_arrays(copied, 'e_train', **{'grad.norms': lambda x: x * 1.01})
    rows = check(tool, copied, ['e_train']).rows
    bad = [row.stage for row in rows if not row.ok]
    assert len(bad) > 150 and all(stage.startswith('grad.norm ') for stage in bad)

    def forget(index):
        index['cases']['e_train']['grads']['names'].pop()

    edit_arrays(copied, 'e_train', **{'grad.norms': lambda x: x / 1.01})
    edit_index(copied, forget)
    row = one_row(tool, copied, 'e_train', 'grad.none')
    assert row.note.startswith('gradient on [') and row.error == 1


def test_constants_are_compared(tool, copied):
    edit_arrays(copied, 'constants', **{'mem.pos': add(1e-3)})
    assert one_row(tool, copied, 'constants', 'mem.pos').error == pytest.approx(1e-3, rel=0.01)
    edit_arrays(copied, 'constants', **{'sam.new': np.ones(2)})
    assert one_row(tool, copied, 'constants', 'sam.new').note == 'not compared'


def test_released_cases_run_when_named(tool, synthetic):
    found = check(tool, synthetic, ['c_3shot_released'])
    assert len(found.rows) > 50 and all(row.ok for row in found.rows) and found.left_out == {}


def test_a_class_without_episodes_counts_as_zero(tool, copied):
    """As published code has it; the mean over the others alone is not what is expected."""
    rows = {row.stage: row for row in check(tool, copied, ['metric']).rows}
    assert all(row.ok for row in rows.values()) and rows[f'IoU/class{WITHOUT_EPISODE}'].error == 0
    assert len(rows) == 8 + CLASSES
    edit_arrays(copied, 'metric', **{'expected.miou': lambda x: x * CLASSES / (CLASSES - 1)})
    assert one_row(tool, copied, 'metric', 'mIoU').error > 0.04

    def foreign(array):
        array[WITHOUT_EPISODE] = 0.1
        return array

    edit_arrays(copied, 'metric', **{'expected.class_iou': foreign})
    row = one_row(tool, copied, 'metric', f'IoU/class{WITHOUT_EPISODE}')
    assert row.error == pytest.approx(0.1)


def test_arrays_of_the_metric_that_are_absent_or_unknown_fail(tool, copied):
    edit_arrays(copied, 'metric', **{'expected.piou': None, 'expected.dice': np.ones(1)})
    assert one_row(tool, copied, 'metric', 'piou').note == 'expected.piou is absent from the file'
    assert one_row(tool, copied, 'metric', 'expected.dice').note == 'not compared'


# ---------------------------------------------------------------- what cannot be used


def test_directory_without_an_index(tool, tmp_path, capsys):
    assert run(tool, tmp_path) == 2
    assert 'has no index.json; give a directory of reference tensors' in capsys.readouterr().err


def test_unknown_case_prints_the_names(tool, synthetic, capsys):
    assert run(tool, synthetic, '--cases', 'z_9shot') == 2
    assert "unknown cases ['z_9shot']" in (err := capsys.readouterr().err) and 'a_1shot' in err


def test_missing_weights_and_unknown_config(tool, copied, capsys):
    (copied / 'dino_random.pth').unlink()
    assert run(tool, copied, '--cases', 'd_none') == 2
    assert 'dino_random.pth' in capsys.readouterr().err
    edit_index(copied, lambda index: index.update(sam2_base_config='sam3.yaml'))
    assert run(tool, copied) == 2
    assert "no SAM 2 config named in 'sam3.yaml'" in capsys.readouterr().err


def test_nothing_to_compare_is_no_success(tool, tmp_path):
    (tmp_path / 'index.json').write_text(json.dumps(dict(cases={}, tolerances={})))
    assert run(tool, tmp_path) == 1


# ---------------------------------------------------------------- the reference itself


SHARED_CASES = [
    'a_1shot_b1',
    'c_5shot_b1_fixed',
    'd_v2_r1_b1',
    'e_train_b1',
    'f_edge_empty_support',
    'metric',
    'units',
    'constants',
]


def test_reference_tensors(tool, shared_dir):
    """The other cases of the directory are other batches and iterations of these."""
    root = shared_dir / 'parity/golden'
    if not root.is_dir():
        pytest.skip(f'no reference tensors at {root}')
    rows = check(tool, root, SHARED_CASES).rows
    bad = [row for row in rows if not row.ok]
    assert not bad, bad
    assert len(rows) == 61 + 61 + 55 + 480 + 61 + 13 + 36 + 10
    left_out = fssam(tool, root).left_out()
    assert list(left_out) == ['c_5shot_b1_released', 'c_5shot_b2_released']
