"""Single functions against what the reference computed (excerpt in ``tests/data``)."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from mmfss.functional import logits_to_mask


@pytest.fixture(scope='module')
def excerpt(repo_root):
    return repo_root / 'tests/data/parity_small'


@pytest.fixture(scope='module')
def rows(repo_root, excerpt):
    sys.path.insert(0, str(repo_root / 'tools/analysis_tools'))
    try:
        from parity_fssam_units import check_units
    finally:
        sys.path.pop(0)
    return {row[0]: row[1:] for row in check_units(np.load(excerpt / 'units.npz'))}


UNITS = [
    'wgap.out',
    *(f'proto{k}.{kind}' for k in (1, 3) for kind in ('fg', 'bg', 'ae')),
    'prior_mem1',
    'prior_mem3',
    *(
        f'refine{k}.{version}.{i}.{what}'
        for k in (1, 3)
        for version in ('v1', 'v2')
        for i in (1, 2)
        for what in ('mem', 'prior_ae')
    ),
    'dice.loss',
    'dice.grad',
    *(f'attn.h{h}.s{k}.{kind}' for h in (1, 2) for k in (1, 3) for kind in ('plain', 'calibrated')),
    'self_attn.out',
]


@pytest.mark.parametrize('name', UNITS)
def test_unit(rows, name):
    error, atol, rl2, bound, note = rows[name]
    assert note == ''
    assert error <= min(atol, 1e-5) and rl2 <= bound


def test_no_other_unit(rows):
    assert sorted(rows) == sorted(UNITS)


def test_predictions_of_the_metric_episodes(excerpt):
    data = np.load(excerpt / 'metric.npz')
    names = sorted(key.split('.')[0] for key in data if key.endswith('.logits'))
    assert len(names) == 20
    for name in names:
        want = data[f'{name}.pred']
        got = logits_to_mask(torch.from_numpy(data[f'{name}.logits'])[None], want.shape)
        np.testing.assert_array_equal(got[0, 0].numpy(), want)
