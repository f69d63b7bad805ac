"""What methods share in check_parity.py, on a made-up method, and the forms of all directories."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity_cases import add, edit_arrays, edit_index, run
from synthetic_reference import save_index


class Doubler:
    """A method whose only stages are its inputs, doubled; it has one entry and these functions."""

    def __init__(self, ref) -> None:
        self.ref = ref

    @classmethod
    def recognises(cls, index) -> bool:
        return index.get('method') == 'Doubler'

    def left_out(self):
        return {'b_old': 'records another version'}

    def run(self, name):
        from parity_reference import Row

        arrays = self.ref.arrays(name)
        stages = {
            k[3:]: torch.from_numpy(np.array(2 * arrays[k])) for k in arrays if k.startswith('in.')
        }
        return {**stages, 'mask': stages['x'] > 0}, [Row(name, 'own', 0.0, 1.0)]

    def parts(self):
        return {}


def stage(full_shape, **entry):
    return dict(full_shape=full_shape, **entry)


@pytest.fixture
def doubled(tool, tmp_path, monkeypatch):
    """A directory in the form of the newer ones: bounds by prefix, exact and packed stages."""
    monkeypatch.setitem(tool.METHODS, 'Doubler', Doubler)
    x = np.random.default_rng(0).normal(size=(1, 6, 10))
    labels = np.array([[0, 0, 3], [5, 3, 0]])
    data = {'in.x': x, 'in.labels': labels, 'in.count': np.array([3, 4]), 'in.one': np.array(1.5)}
    data.update({'x': 2 * x[:, ::2], 'mask': np.packbits(x > 0, axis=-1)})
    data['labels'] = np.array([[7, 7, 1], [2, 1, 7]])  # the same parts under other names
    data.update({'count': np.array([6, 8]), 'one': np.array([3.0])})
    np.savez(tmp_path / 'a.npz', **data)
    number = int((x > 0).sum())
    stages = {
        'x': stage([1, 6, 10], slice='[:, ::2]'),
        'mask': stage([1, 6, 10], packed='np.packbits over the last axis', dtype='bool'),
        'labels': stage([2, 3]),
        'count': stage([2], exact=True),
        'one': stage([], atol=1e-6, rl2=0),
    }
    whole = {'mask': stage([1, 6, 10], dtype='bool', stored=False, count_true=number - 2)}
    whole['x'] = stage([1, 6, 10], stored=False, stats=dict(mean=2 * x.mean(), max=2 * x.max()))
    np.savez(tmp_path / 'whole.npz', **{'in.x': x})
    tolerances = dict(rule='the longest key ...', default=dict(atol=1e-6, rl2=1e-6))
    tolerances.update(labels='same partition, names free', bool_not_exact=dict(pixels=2))
    cases = {'a': dict(stages=stages), 'whole': dict(stages=whole), 'b_old': {}}
    save_index(tmp_path, dict(method='Doubler', cases=cases, tolerances=tolerances))
    return tmp_path


def test_a_method_of_one_entry_is_compared(tool, doubled, capsys):
    assert run(tool, doubled) == 0
    out = capsys.readouterr().out
    assert f'{doubled}: Doubler' in out and f'{"a":24} 6 of 6 stages within tolerance' in out
    assert f'{"whole":24} 3 of 3 stages within tolerance' in out
    assert f'{"b_old":24} left out: records another version' in out


@pytest.mark.parametrize(
    ('name', 'key', 'change', 'error'),
    [
        ('a', 'x', add(1e-4), 1e-4),
        ('a', 'count', add(1), 1),
        ('a', 'one', add(1e-5), 1e-5),
        ('a', 'labels', np.array([[7, 7, 1], [2, 1, 1]]), 1),
        ('a', 'labels', np.array([[7, 7, 1], [7, 1, 7]]), 2),
        ('a', 'mask', lambda packed: packed ^ 128, 12),  # pixels 0 and 8 of each of six rows
    ],
)
def test_a_change_beyond_each_kind_of_bound_fails(tool, doubled, name, key, change, error):
    edit_arrays(doubled, name, **{key: change})
    rows = {row.stage: row for row in tool.check(Doubler(tool.Reference(doubled)), [name]).rows}
    assert [row.stage for row in rows.values() if not row.ok] == [key]
    assert rows[key].error == pytest.approx(error, rel=1e-3)


def test_bounds_that_words_or_nothing_give(tool, doubled):
    def change(index) -> None:
        index['tolerances'].update(labels='roughly', default=None)

    edit_index(doubled, change)
    rows = {row.stage: row for row in tool.check(Doubler(tool.Reference(doubled)), ['a']).rows}
    assert "tolerance 'roughly' is not known" in rows['labels'].note
    assert rows['x'].note == 'no shape or tolerance in the index'
    assert rows['mask'].ok and rows['count'].ok and rows['one'].ok


@pytest.mark.parametrize('name', ['fs_sam2', 'gf_sam', 'golden', 'insid3', 'matcher', 'persam',
                                  'sam2_baseline', 'sansa'])  # fmt: skip
def test_forms_of_all_reference_directories_are_read(tool, shared_dir, name):
    """Each stage has bounds, and its array is the excerpt of the full shape that the index says."""
    from parity_reference import compare_stage

    root = shared_dir / 'parity' / name
    if not root.is_dir():
        pytest.skip(f'no reference tensors at {root}')
    ref = tool.Reference(root)
    number = 0
    for case in ref.cases:
        arrays = ref.arrays(case)
        for key, meta in ref.case(case)['stages'].items():
            nothing = torch.zeros(meta['full_shape'])
            row = compare_stage(case, key, nothing, meta, arrays.get(key), ref.tolerance(key, meta))
            assert not row.note, row
            number += 1
    assert number > 50
