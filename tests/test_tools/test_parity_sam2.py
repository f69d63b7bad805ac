"""check_parity.py on SAM 2's video predictor: the reference, and directories of other sizes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from parity_cases import add, edit_arrays, edit_index, run
from synthetic_reference import OVERRIDES, save_index

SIDE = 96
CASES = {
    'one_v20': dict(query=2, support=[0], version='2.0'),
    'two_v21': dict(query=0, support=[2, 1], version='2.1'),
    'empty_v21': dict(query=1, support=[0], version='2.1', empty_support_mask=True),
}
ADDED = {'sam_mask_decoder.pred_obj_score_head.layers.2.bias': 50.0}


@pytest.fixture(scope='module')
def written(tool, tmp_path_factory):
    """A directory at 96 px with weights and an architecture of its own, by our own model."""
    from parity_sam2_baseline import SAM2Baseline

    root = tmp_path_factory.mktemp('sam2_other')
    cases = {}
    for name, case in CASES.items():
        stages = {'in.frames': dict(full_shape=[len(case['support']) + 1, 3, SIDE, SIDE])}
        cases[name] = dict(case, add_to_weights=ADDED, stages=stages)
    index = dict(
        method='SAM 2 as a video model: smaller',
        sam2_base_config='sam2_hiera_t.yaml',
        sam2_hydra_overrides=[f'model.{k}={json.dumps(v)}' for k, v in OVERRIDES.items()],
        weights={'sam2_tiny.pt': '', 'more_v21.pt': ''},
        cases=cases,
        tolerances=dict(rule='', default=dict(atol=1e-5, rl2=1e-5), bool_not_exact=dict(pixels=0)),
    )
    save_index(root, index)
    rng = np.random.default_rng(0)
    arrays = {}
    for i, (height, width) in enumerate([(60, 90), (50, 40), (SIDE, SIDE)]):
        arrays[f'image{i}'] = rng.integers(0, 255, (height, width, 3), np.uint8)
        arrays[f'mask{i}'] = np.zeros((height, width), np.uint8)
        arrays[f'mask{i}'][10 : 30 + 5 * i, 5:25], arrays[f'mask{i}'][-3:] = 1, 255
    np.savez(root / 'inputs.npz', **arrays)
    comparer = SAM2Baseline(tool.Reference(root))
    torch.manual_seed(0)
    newer = comparer.build(comparer.ref.case('two_v21'), load=False).sam2
    older = comparer.build(comparer.ref.case('one_v20'), load=False).sam2
    state = {k: (v + 0.1 * torch.randn_like(v)).half() for k, v in newer.state_dict().items()}
    torch.save({'model': {k: state[k] for k in older.state_dict()}}, root / 'sam2_tiny.pt')
    more = {k: v for k, v in state.items() if k not in older.state_dict()}
    assert more.keys() >= {'no_obj_embed_spatial', 'obj_ptr_tpos_proj.weight'}
    torch.save(more, root / 'more_v21.pt')
    for name in CASES:
        stages = comparer.run(name)[0]
        del stages['in.support_masks_512']
        data = {}
        for stage, value in stages.items():
            entry = dict(full_shape=list(value.shape), dtype='float32')
            data[stage] = value.numpy()
            if value.dtype == torch.bool:
                entry.update(dtype='bool', packed='np.packbits over the last axis')
                data[stage] = np.packbits(data[stage], axis=-1)
            index['cases'][name]['stages'][stage] = entry
        np.savez(root / f'{name}.npz', **data)
    save_index(root, index)
    return root


@pytest.fixture
def mine(written, tmp_path):
    return shutil.copytree(written, tmp_path / 'copy')


def test_a_directory_of_other_sizes_passes(tool, written, capsys):
    assert run(tool, written) == 0
    out = capsys.readouterr().out
    assert f'{written}: SAM2Memory' in out and 'FAILED' not in out
    for name in CASES:
        assert f'{name:24} 18 of 18 stages within tolerance' in out
    assert f'in.support_masks_{SIDE}' in out


@pytest.mark.parametrize('stage', ['support.memory', 'attn.pointers_pos', 'query.output'])
def test_a_changed_number_fails(tool, mine, capsys, stage):
    edit_arrays(mine, 'two_v21', **{stage: add(0.1)})
    assert run(tool, mine, '--quiet') == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if 'FAILED' in line]
    assert len(failed) == 1 and f'two_v21                  {stage}' in failed[0]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(version='2.2'), "version must be one of ['2.0', '2.1'], '2.2'"),
        (dict(add_to_weights={'none.bias': 1.0}), "add_to_weights names 'none.bias', no such"),
        (dict(support=[7]), "inputs.npz lacks 'image7'"),
        (dict(version='2.1'), None),
    ],
)
def test_cases_that_cannot_be_used(tool, mine, capsys, change, message):
    edit_index(mine, lambda index: index['cases']['one_v20'].update(change))
    status = run(tool, mine, '--cases', 'one_v20')
    if message is None:  # another version is another memory
        assert status == 1
        return
    assert status == 2 and message in capsys.readouterr().err


def test_weights_that_are_not_named(tool, mine, capsys):
    edit_index(mine, lambda index: index.update(weights='those of SAM 2'))
    assert run(tool, mine) == 2
    assert "no weights named in 'those of SAM 2'" in capsys.readouterr().err


def test_the_reference(tool, shared_dir, capsys):
    root = shared_dir / 'parity/sam2_baseline'
    if not root.is_dir():
        pytest.skip(f'no reference tensors at {root}')
    assert run(tool, root, '--quiet') == 0
    out = capsys.readouterr().out
    names = tool.Reference(root).cases
    assert len(names) >= 6
    for name in names:
        assert f'{name:24} 18 of 18 stages within tolerance' in out
