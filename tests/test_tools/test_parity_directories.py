"""check_parity.py on several directories, on other methods, and on damaged ones."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from parity_cases import add, check, edit_arrays, edit_index, one_row, run
from synthetic_reference import CLASSES, save_index

# ---------------------------------------------------------------- several directories


@pytest.fixture
def family(synthetic, tmp_path):
    """A folder with one directory of FSSAM, two of other methods, and one that is none."""
    parent = tmp_path / 'family'
    shutil.copytree(synthetic, parent / 'ours')
    edit_index(
        parent / 'ours', lambda index: index.update(cases=dict(d_none=index['cases']['d_none']))
    )
    for name, head in (('other', dict(method='Matcher')), ('third', dict(set='hsnet'))):
        (parent / name).mkdir()
        save_index(parent / name, dict(head, cases={'a_1shot': {}}, tolerances={}))
    (parent / 'notes').mkdir()
    return parent


def test_a_folder_of_directories(tool, family, capsys):
    assert run(tool, family, '--quiet') == 0
    out, err = capsys.readouterr()
    assert f'{family}/other: no such method: Matcher; there is FSSAM' in out
    assert f'{family}/third: no such method: hsnet; there is FSSAM' in out
    assert f'{family}/ours: FSSAM' in out and '55 of 55 stages within tolerance' in out
    assert f'{family}/notes: left out, it has no index.json' in out
    assert 'FAILED' not in out and err == ''


def test_a_case_that_is_asked_for_is_compared_or_fails(tool, family, capsys):
    assert run(tool, family, '--cases', 'd_none', '--quiet') == 0
    assert run(tool, family, '--cases', 'd_none', 'a_1shot', '--quiet') == 1
    assert "cases ['a_1shot'] were not compared: they are of methods" in capsys.readouterr().out


def test_directories_of_unknown_methods_alone_are_no_success(tool, family, capsys):
    assert run(tool, family / 'other', family / 'third') == 1
    out, err = capsys.readouterr()
    assert out.count('no such method') == 2 and err == 'check_parity: nothing was compared\n'


def test_on_another_device_methods_of_the_cpu_alone_are_left_out_by_name(tool, family, capsys):
    edit_index(family / 'other', lambda index: index.update(method='PerSAM'))
    assert run(tool, family / 'other', family / 'third', '--device', 'meta') == 1
    out, err = capsys.readouterr()
    left_out = 'PerSAM is left out: it is compared on the CPU alone; on meta there is FSSAM'
    assert f'{family}/other: {left_out}\n' in out and err == 'check_parity: nothing was compared\n'
    assert f'{family}/third: no such method: hsnet; there is' in out
    with pytest.raises(SystemExit) as end:
        run(tool, family, '--device', 'nowhere')
    assert end.value.code == 2 and '--device must be cpu, cuda or' in capsys.readouterr().err


def test_a_bad_case_of_one_directory_fails_all(tool, family, synthetic, capsys):
    edit_arrays(family / 'ours', 'd_none', output=add(1))
    args = (family / 'ours', family, synthetic, '--cases', 'd_none')  # one of them twice
    assert run(tool, *args) == 1
    out = capsys.readouterr().out
    assert out.count('54 of 55 stages within tolerance') == 1
    assert out.count('55 of 55 stages within tolerance') == 1


def test_directories_that_cannot_be_used_do_not_stop_the_others(tool, family, capsys):
    (family / 'other/index.json').write_text('{"method":')
    save_index(family / 'third', dict(set='hsnet', cases=[]))
    args = (family, family / 'notes', family / 'none', '--cases', 'd_none')
    assert run(tool, *args) == 2
    out, err = capsys.readouterr()
    assert '55 of 55 stages within tolerance' in out
    lines = err.splitlines()
    assert len(lines) == 4
    assert f'{family}/other/index.json cannot be read: Expecting value' in lines[0]
    assert f"{family}/third/index.json must be a mapping with a mapping 'cases'" in lines[1]
    for line, name in zip(lines[2:], ('notes', 'none'), strict=True):
        assert f'{family}/{name} has no index.json; give a directory' in line


def test_a_directory_is_known_by_name_or_form(tool, tmp_path):
    form = dict(sam2_base_config='', sam2_hydra_overrides=[], dino={})
    for head, known in (
        (dict(method='FSSAM'), 'FSSAM'),
        (dict(set='golden'), 'FSSAM'),
        (dict(set='held out', **form), 'FSSAM'),
        ({}, 'FSSAM'),  # the first of these directories may name nothing
        (dict(method='PerSAM and PerSAM-F'), 'PerSAM'),
        (dict(method='other', **form), None),
        (dict(set='fs_sam2', sam2_overrides=[]), 'FSSAM2'),
        (dict(set='matcher', sam2_overrides=[]), None),
    ):
        save_index(tmp_path, dict(head, cases={}))
        assert tool.method_of(tool.Reference(tmp_path)) == known, head


# ---------------------------------------------------------------- damaged directories


def cut(root, name: str) -> None:
    content = (root / name).read_bytes()
    (root / name).write_bytes(content[: len(content) // 2])


def of_case(name: str, **changes):
    """Damage to the entry of a case: a key set, or taken away with None."""

    def damage(root) -> None:
        def change(index) -> None:
            index['cases'][name].update(changes)
            for key in [key for key, value in changes.items() if value is None]:
                del index['cases'][name][key]

        edit_index(root, change)

    return damage


def take(name: str, key: str):
    return lambda root: edit_arrays(root, name, **{key: None})


DAMAGE = {
    'case file cut': (lambda r: cut(r, 'f_some.npz'), 'f_some', 'f_some.npz is damaged'),
    'case file missing': (lambda r: (r / 'f_some.npz').unlink(), 'f_some', 'f_some.npz does not'),
    'case file is text': (
        lambda r: (r / 'f_some.npz').write_text('none'), 'f_some', 'f_some.npz is damaged'),
    'case file is one array': (
        lambda r: np.save((r / 'f_some.npz').open('wb'), np.ones(3)), 'f_some', 'no .npz file'),
    'packed masks missing': (
        take('f_some', 'in.support_mask'), 'f_some', "f_some.npz lacks 'in.support_mask'"),
    'packed masks of another size': (
        lambda r: edit_arrays(r, 'f_some', **{'in.support_mask': np.ones((2, 4), np.uint8)}),
        'f_some', 'f_some.npz: in.support_mask unpacked is (2, 32)'),
    'gradients missing': (take('e_train', 'grad.norms'), 'e_train', "npz lacks 'grad.norms'"),
    'entry without mode': (
        of_case('f_some', mode=None), 'f_some', "index.json['cases']['f_some'] lacks 'mode'"),
    'entry without stages': (of_case('f_some', stages=None), 'f_some', "['f_some'] lacks 'stages'"),
    'entry without gradients': (of_case('e_train', grads={}), 'e_train', "['grads'] lacks 'names'"),
    'unknown mode': (of_case('f_some', mode='test'), 'f_some', "'train' or 'eval', got 'test'"),
    'unknown version': (
        of_case('f_some', ver_refine='v9'), 'f_some', "must be one of ['v1', 'v2'], got 'v9'"),
    'images that there are not': (
        of_case('f_some', query_index=[9]), 'f_some', "['f_some']: images [9, 2, 3] of 5"),
    'supports of another batch': (
        of_case('f_some', query_index=[0, 1]), 'f_some', 'support_index (B, K), got [0, 1]'),
    'an index that is no number': (
        of_case('f_some', query_index=['a']), 'f_some', 'f_some.npz with index.json cannot be'),
    'entry is no mapping': (
        lambda r: edit_index(r, lambda index: index['cases'].update(f_some=3)), 'f_some',
        "index.json['cases']['f_some'] must be a mapping"),
    'inputs missing': (lambda r: (r / 'inputs.npz').unlink(), 'all', 'inputs.npz does not exist'),
    'inputs without masks': (take('inputs', 'masks'), 'all', "inputs.npz lacks 'masks'"),
    'inputs of odd shapes': (
        lambda r: edit_arrays(r, 'inputs', images=lambda x: x[:, :, :64]), 'all',
        'inputs.npz: images must be (N, 3, S, S)'),
    'weights cut': (lambda r: cut(r, 'sam2_random.pt'), 'all', 'sam2_random.pt'),
    'weights missing': (lambda r: (r / 'sam2_random.pt').unlink(), 'all', 'sam2_random.pt'),
    'weights not named': (
        lambda r: edit_index(r, lambda index: index['weights'].pop('dino_random.pth')), 'all',
        "index.json['weights']: expected one weight file of dino, got []"),
    'head without dino': (
        lambda r: edit_index(r, lambda index: index.pop('dino')), 'all', "index.json lacks 'dino'"),
    'metric cut': (lambda r: cut(r, 'metric.npz'), 'metric', 'metric.npz is damaged'),
    'metric without a label': (take('metric', '07.label'), 'metric', "metric.npz lacks '07.label'"),
    'metric without an episode': (
        lambda r: edit_arrays(r, 'metric', **{
            f'07.{kind}': None for kind in ('logits', 'label', 'pred')}),
        'metric', 'got 102 and 103'),
    'labels of the metric': (
        lambda r: edit_arrays(r, 'metric', **{'07.label': lambda x: x + 3}), 'metric',
        'metric.npz with index.json cannot be used: ValueError: a truth mask may hold'),
    'constants cut': (lambda r: cut(r, 'constants.npz'), 'constants', 'constants.npz is damaged'),
    'constants named but missing': (
        lambda r: [(r / 'constants.npz').unlink(), edit_index(r, lambda i: i.update(constants={}))],
        'constants', 'constants.npz does not exist'),
    'units of another kind': (
        lambda r: np.savez(r / 'units.npz', **{'dice.logits': np.ones(3)}), 'units',
        'units.npz with index.json cannot be used'),
}  # fmt: skip


@pytest.mark.parametrize('damage, case, message', DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_and_the_others_are_compared(tool, copied, capsys, damage, case, message):
    damage(copied)
    model_case = 'd_none' if case in ('all', 'metric') else case
    assert run(tool, copied, '--cases', 'metric', model_case) == 2
    out, err = capsys.readouterr()
    assert message in err and str(copied) in err and 'Traceback' not in out + err
    broken = [line for line in out.splitlines() if 'FAILED' in line]
    assert {line.split()[0] for line in broken} == {'d_none' if case == 'all' else case}
    assert message in broken[0]
    name, number = ('d_none', 55) if case == 'metric' else ('metric', 8 + CLASSES)
    assert f'{name:24} {number} of {number} stages within tolerance' in out


@pytest.mark.parametrize(
    ('entry', 'note'),
    [
        (dict(slice='[::x]'), "'[::x]' is no indexing such as [:, ::3, ...]"),
        (dict(slice='[..., ::2, ::2, ::2, ::2, ::2]'), 'makes no sense here: too many indices'),
        (dict(slice='[:, 999]'), 'is out of bounds'),
        (dict(full_shape=None), "['output'] lacks 'full_shape'"),
        (dict(full_shape=3), 'makes no sense here'),
        (dict(stored=False, stats={}), 'not stored, and statistics []'),
        (dict(stored=False, stats=dict(median=0)), "statistics ['median']; known are ['l2', 'max'"),
        (dict(atol=1), "['output'] lacks 'rl2'"),
        (3, 'no shape or tolerance in the index'),
    ],
)
def test_an_entry_of_a_stage_that_makes_no_sense_is_a_failing_row(tool, copied, entry, note):
    def change(index) -> None:
        stages = index['cases']['d_none']['stages']
        if entry == 3:
            stages['output'] = 3
            return
        stages['output'].update(entry)
        for key in [key for key, value in entry.items() if value is None]:
            del stages['output'][key]

    edit_index(copied, change)
    rows = check(tool, copied, ['d_none']).rows
    assert len(rows) == 55 and sum(row.ok for row in rows) == 54
    assert note in one_row(tool, copied, 'd_none', 'output').note


def test_a_case_without_stages_is_no_success(tool, copied, capsys):
    edit_index(copied, lambda index: index['cases']['d_none'].update(stages={}))
    np.savez(copied / 'd_none.npz')
    assert run(tool, copied, '--cases', 'd_none', 'metric') == 1
    assert 'FAILED has nothing to compare' in capsys.readouterr().out


def test_debug_raises(tool, copied):
    cut(copied, 'd_none.npz')
    with pytest.raises(ValueError, match='d_none.npz is damaged'):
        run(tool, copied, '--debug', '--cases', 'd_none')
