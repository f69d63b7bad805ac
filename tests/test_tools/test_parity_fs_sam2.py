"""check_parity.py on FS-SAM2: the reference, and a directory of other sizes, ranks and layers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from parity_cases import add, edit_arrays, edit_index, run
from synthetic_reference import OVERRIDES, save_index

SIDE = 64
CASES = {
    'one': dict(query_index=[2, 0], support_index=[[0], [1]]),
    'four': dict(query_index=[1], support_index=[[0, 2, 3, 0]], image_size=2 * SIDE),
    'train': dict(mode='train', query_index=[3, 1], support_index=[[0, 2], [3, 0]]),
    'empty': dict(mode='evalloss', query_index=[3], support_index=[[0]], mask_override='empty'),
}
COMMON = dict(mode='eval', image_size=SIDE, lora='lora_3.pt')
LAYERS = {
    'image_encoder.trunk.blocks.1.attn.qkv': 3,
    'image_encoder.neck.convs.0.conv': 3,
    'memory_attention.layers.0.self_attn.q_proj': 2,
    'memory_encoder.out_proj': 5,
}


@pytest.fixture(scope='module')
def written(tool, tmp_path_factory):
    """By our own model."""
    from parity_fs_sam2 import FSSAM2

    root = tmp_path_factory.mktemp('fs_sam2_other')
    lora = {path: dict(rank=rank, alpha=2 * rank + 1) for path, rank in LAYERS.items()}
    stages = {'output': dict(full_shape=[])}
    index = dict(
        set='FS-SAM2, smaller',
        arch=dict(base='sam2.1 tiny yaml'),
        sam2_overrides=[f'model.{k}={json.dumps(v)}' for k, v in OVERRIDES.items()],
        weights=dict(base='sam2_tiny.pt', extra_keys_of_2_1={}),
        lora={'lora_3.pt': lora},
        inputs=dict(file='../elsewhere/photos.npz'),
        cases={name: {**COMMON, **case, 'stages': stages} for name, case in CASES.items()},
        tolerances={},
    )
    save_index(root, index)
    rng = np.random.default_rng(0)
    masks = rng.choice(np.array([0, 1, 255], np.uint8), (4, SIDE, SIDE), p=[0.5, 0.4, 0.1])
    images = rng.integers(0, 255, (4, 3, SIDE, SIDE), np.uint8)
    np.savez(root / 'photos.npz', images=images, masks=masks)
    comparer = FSSAM2(tool.Reference(root))
    torch.manual_seed(0)
    state = comparer.build(comparer.ref.case('one'), load=False).sam2.state_dict()
    state = {k: (v + 0.1 * torch.randn_like(v)).half() for k, v in state.items()}
    adapters = {k: v for k, v in state.items() if '.lora.' in k}
    assert {key.partition('.lora.')[0] for key in adapters} == set(LAYERS)
    torch.save(
        {'model': {k: v for k, v in state.items() if k not in adapters}}, root / 'sam2_tiny.pt'
    )
    torch.save(adapters, root / 'lora_3.pt')
    for name, case in index['cases'].items():
        if case['mode'] == 'train':
            case['grads'] = dict(names=sorted(adapters))
        save_index(root, index)
        stages = FSSAM2(tool.Reference(root)).run(name)[0]
        bound = dict(atol=1e-5, rl2=1e-5)
        case['stages'] = {k: dict(bound, full_shape=list(v.shape)) for k, v in stages.items()}
        np.savez(root / f'{name}.npz', **{k: v.numpy() for k, v in stages.items()})
    save_index(root, index)
    return root


@pytest.fixture
def mine(written, tmp_path):
    return shutil.copytree(written, tmp_path / 'copy')


def test_a_directory_of_other_sizes_passes(tool, written, capsys):
    assert run(tool, written) == 0
    out = capsys.readouterr().out
    assert f'{written}: FSSAM2' in out and 'FAILED' not in out
    for name, stages in dict(one=45, four=45, train=51, empty=48).items():
        assert f'{name:24} {stages} of {stages} stages within tolerance' in out


@pytest.mark.parametrize(
    ('case', 'stage'),
    [
        ('one', 'sup.enc.block1'),
        ('four', 'attn.memory'),
        ('train', 'grad.norms'),
        ('empty', 'loss'),
    ],
)
def test_a_changed_number_fails(tool, mine, capsys, case, stage):
    edit_arrays(mine, case, **{stage: add(0.1)})
    assert run(tool, mine, '--quiet', '--cases', case) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if 'FAILED' in line]
    assert len(failed) == 1 and f'{case:24} {stage}' in failed[0]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda i: i['cases']['one'].update(mode='test'),
            "mode must be one of ('eval', 'evalloss'",
        ),
        (lambda i: i['cases']['one'].update(image_size=96), 'image_size 96 does not go into 64'),
        (lambda i: i['cases']['one'].update(query_index=[9, 0]), 'images [9, 0, 0, 1] of 4'),
        (lambda i: i['cases']['one'].update(mask_override='half'), "must be 'empty' or 'tiny'"),
        (
            lambda i: i['cases']['one'].update(weights_add={'x': 1}),
            "weights_add names 'x', no such",
        ),
        (lambda i: i['arch'].update(base='SAM 1'), "no SAM 2 named in 'SAM 1'"),
        (
            lambda i: i['lora']['lora_3.pt']['image_encoder.neck.convs.0.conv'].update(rank=4),
            'mmfss has one rank for each of',
        ),
    ],
)
def test_cases_that_cannot_be_used(tool, mine, capsys, change, message):
    edit_index(mine, change)
    assert run(tool, mine, '--cases', 'one') == 2
    assert message in capsys.readouterr().err


def test_the_reference(tool, shared_dir, capsys):
    """Whole images and 256 px, 1 to 5 shots, unstable masks, losses and gradients."""
    root = shared_dir / 'parity/fs_sam2'
    if not root.is_dir():
        pytest.skip(f'no reference tensors at {root}')
    cases = ['b_1shot_b2', 'c_5shot_b2', 'd_unstable_b3', 'd_unstable_train_b3', 'f_empty_mask']
    assert run(tool, root, '--quiet', '--cases', *cases, 'units') == 0
    out = capsys.readouterr().out
    for name in cases:
        number = 48 if 'train' in name else 42
        assert f'{name:24} {number} of {number} stages within tolerance' in out
    assert 'units                    22 of 22 stages within tolerance' in out
