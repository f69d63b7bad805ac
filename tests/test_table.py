"""``tools/test.py`` with folds, seeds and shots, through the real Runner on a tiny benchmark."""

from __future__ import annotations

import csv
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmseg.registry import HOOKS, MODELS
from tiny_runs import write_config, write_shapes

from mmfss.checkpoints import provenance
from mmfss.checkpoints.record import describe_run
from mmfss.commands import test as testing
from mmfss.datasets.folds import get_split
from mmfss.evaluation.counts import EpisodeCounts
from mmfss.evaluation.statistics import bootstrap_interval
from mmfss.files import locked


@HOOKS.register_module()
class CutTestHook(Hook):
    """Counts evaluations; the power fails before number ``at``."""

    started = 0

    def __init__(self, at: int = 0) -> None:
        self.at = at

    def before_test_epoch(self, runner):
        CutTestHook.started += 1
        if CutTestHook.started == self.at:
            raise RuntimeError('power cut')


@pytest.fixture(autouse=True)
def none_started(monkeypatch):
    CutTestHook.started = 0
    monkeypatch.setattr(provenance, 'commit', lambda: dict(sha='1' * 40, dirty=False))


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes', train=1, val=60)


@pytest.fixture(scope='module')
def weights(shapes, tmp_path_factory):
    """Folder with a checkpoint of folds 0 and 1 each, of random weights, chosen by some rule."""
    folder = tmp_path_factory.mktemp('weights')
    cfg = Config.fromfile(write_config(folder / 'weights.py', shapes))
    torch.manual_seed(0)
    for fold in (0, 1):
        model = MODELS.build(cfg.model)
        model.init_weights()
        chosen = dict(rule='held_out', classes=['disk'], figures={'mIoU': 50.5 + fold})
        split, arch = get_split('shapes-5i', fold), model.arch
        meta = describe_run(split, 'base', 1, arch, set(), chosen)
        (folder / f'fold{fold}').mkdir()
        content = dict(state_dict=model.state_dict(), meta=dict(epoch=7, iter=21, mmfss=meta))
        torch.save(content, folder / f'fold{fold}/best_epoch_{7 + fold}.pth')
    return folder


@pytest.fixture
def config(tmp_path, shapes, request, monkeypatch):
    monkeypatch.delenv('FOLD', raising=False)
    name = ''.join(c if c.isalnum() else '_' for c in request.node.name)
    (tmp_path / 'configs').mkdir()
    return write_config(tmp_path / f'configs/{name}.py', shapes)


@pytest.fixture
def run(config, weights, tmp_path):
    """Calls the tool; 'CHECKPOINTS' stands for the pattern that matches both folds."""

    def call(*args, options=(), tool=testing.main):
        pattern = str(weights / 'fold{fold}/best_*.pth')
        argv = [pattern if arg == 'CHECKPOINTS' else str(arg) for arg in args]
        options = ['default_hooks.cut.type=CutTestHook', *options]
        return tool([config, *argv, '--work-dir', str(tmp_path / 'logs'),
                     '--cfg-options', *options])  # fmt: skip

    return call


TABLE = ('--folds', 0, 1, '--seeds', 0, 1, '--shots', 1, 2, '--episodes', 12)


def counts_of(path):
    with open(path, newline='') as file:
        return [
            EpisodeCounts(
                int(row['episode']), int(row['class_id']),
                (int(row['intersection_bg']), int(row['intersection_fg'])),
                (int(row['union_bg']), int(row['union_fg'])), row['query'],
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def test_table_of_folds_seeds_and_shots(run, tmp_path, capsys, weights):
    out, episodes = tmp_path / 'out/table', tmp_path / 'csv'
    report = run('CHECKPOINTS', *TABLE, '--csv', episodes, '--out', f'{out}.json')
    assert CutTestHook.started == len(report.runs) == report.planned == 8
    assert 'FOLD' not in os.environ
    assert sorted(f.name for f in out.parent.iterdir()) == ['table.json', 'table.md', 'table.txt']

    # each run against the episodes that it wrote, counted anew
    miou, counts = {}, {}
    for made in report.runs:
        k, fold, seed = made.shots, made.fold, made.seed
        counts[k, fold, seed] = rows = counts_of(episodes / f'{k}shot_fold{fold}_seed{seed}.csv')
        assert [row.episode for row in rows] == list(range(12))
        ious = [
            100 * sum(r.intersection[1] for r in rows if r.class_id == c)
            / sum(r.union[1] for r in rows if r.class_id == c)
            for c in sorted({r.class_id for r in rows})
        ]  # fmt: skip
        miou[k, fold, seed] = np.mean(ious)
        assert made.metrics['mIoU'] == pytest.approx(miou[k, fold, seed])
        assert made.metrics['classes'] == len(ious) == 5 - len(made.left_out)
        assert made.metrics.get('mIoU (absent as 0)', np.mean(ious)) == pytest.approx(sum(ious) / 5)
        assert made.protocol['seed'] == seed and made.protocol['shots'] == k
    assert len({round(value, 6) for value in miou.values()}) == 8  # all of them differ

    # the table against them
    data = json.loads((tmp_path / 'out/table.json').read_text())
    for row, k in zip(data['rows'], (1, 2), strict=True):
        of_seeds = [np.mean([miou[k, fold, seed] for fold in (0, 1)]) for seed in (0, 1)]
        assert row['shots'] == k and row['mIoU'] == pytest.approx(np.mean(of_seeds))
        assert row['std'] == pytest.approx(abs(of_seeds[0] - of_seeds[1]) / 2**0.5)
        found = bootstrap_interval([[counts[k, f, s] for s in (0, 1)] for f in (0, 1)])
        assert row['interval'] == [found.low, found.high]
        for cell, fold in zip(row['folds'], (0, 1), strict=True):
            assert cell['fold'] == fold
            assert cell['mIoU of seeds'] == pytest.approx([miou[k, fold, s] for s in (0, 1)])
    assert data['folds'] == data['seeds'] == [0, 1] and data['finished'] == '8 of 8 runs'
    assert data['protocol']['episodes'] == 12 and 'seed' not in data['protocol']
    assert [c['path'] for c in data['checkpoints']] == [
        str(weights / f'fold{f}/best_epoch_{7 + f}.pth') for f in (0, 1)]  # fmt: skip

    # and what is printed
    printed = capsys.readouterr().out
    text = (tmp_path / 'out/table.txt').read_text()
    assert text in printed
    line = next(line for line in text.splitlines() if line.lstrip().startswith('2 '))
    assert [cell.rstrip('*') for cell in line.split()[1:4]] == [
        f'{np.mean([miou[2, f, s] for f in folds for s in (0, 1)]):.1f}'
        for folds in ([0], [1], [0, 1])
    ]  # fmt: skip
    assert 'held_out: mIoU 51.50' in text


def test_classes_without_episodes_count_as_zero(run, tmp_path):
    few = ('CHECKPOINTS', '--folds', 0, 1, '--episodes', 3, '--csv', tmp_path / 'csv')
    few += ('--out', tmp_path / 'table')
    zero = ['test_evaluator.absent_classes=zero']
    report = run(*few, options=zero)
    for made in report.runs:
        rows = counts_of(tmp_path / f'csv/1shot_fold{made.fold}_seed0.csv')
        split = get_split('shapes-5i', made.fold)
        total = 0.0
        for c in {row.class_id for row in rows}:
            mine = [row for row in rows if row.class_id == c]
            iou = sum(r.intersection[1] for r in mine) / sum(r.union[1] for r in mine)
            assert made.metrics[f'IoU/{split.name(c)}'] == pytest.approx(100 * iou)
            total += 100 * iou
        assert made.metrics['mIoU'] == pytest.approx(total / 5) and made.metrics['classes'] == 5
        absent = set(split.novel) - {row.class_id for row in rows}
        assert set(made.counted_zero) == set(map(split.name, absent)) and len(absent) >= 2
        assert made.left_out == () and made.protocol['absent_classes'] == 'zero'
    data = json.loads((tmp_path / 'table.json').read_text())
    assert data['protocol']['absent_classes'] == 'zero'
    for cell, made in zip(data['rows'][0]['folds'], report.runs, strict=True):
        assert cell['counted_zero'] == sorted(made.counted_zero) and cell['left_out'] == []
    text = (tmp_path / 'table.txt').read_text()
    assert 'protocol: absent_classes: zero' in text and 'absent as 0' not in text
    assert text.count('counted as IoU 0 in the mean (absent_classes: zero)') == 2

    run(*few, options=zero)  # the same rule: all there
    assert CutTestHook.started == 2
    left_out = run(*few, options=['test_evaluator.absent_classes=exclude'])
    assert CutTestHook.started == 4
    for one, other in zip(report.runs, left_out.runs, strict=True):
        assert other.left_out == one.counted_zero and other.counted_zero == ()
        assert other.metrics['mIoU (absent as 0)'] == one.metrics['mIoU']
        assert other.protocol == {**one.protocol, 'absent_classes': 'exclude'}


def test_one_run_of_the_table_is_that_of_a_single_call(run, monkeypatch):
    report = run('CHECKPOINTS', '--folds', 0, 1, '--seeds', 3, 4, '--shots', 2)
    monkeypatch.setenv('FOLD', '1')
    entries = [f'test_dataloader.dataset.{entry}' for entry in ('seed=4', 'shots=2')]
    single = run('CHECKPOINTS', options=entries, tool=testing.test)
    assert single == next(r for r in report.runs if (r.fold, r.seed) == (1, 4)).metrics
    assert os.environ['FOLD'] == '1'


def test_interrupted_table_goes_on(run, tmp_path, capsys):
    out = tmp_path / 'table'
    table = ('CHECKPOINTS', '--folds', 0, 1, '--seeds', 0, 1, '--out', out)
    with pytest.raises(RuntimeError, match='power cut'):
        run(*table, options=['default_hooks.cut.at=4'])
    first = json.loads((tmp_path / 'table.json').read_text())
    assert first['finished'] == '3 of 4 runs'
    (row,) = first['rows']
    assert row['mIoU'] is None and row['interval'] is None
    assert row['folds'][0]['mIoU'] > 0 and row['folds'][1]['mIoU'] is None
    assert not (tmp_path / 'table.md').exists()

    CutTestHook.started = 0
    report = run(*table)
    assert CutTestHook.started == 1 and len(report.runs) == 4
    assert '3 of 4 runs are there already' in capsys.readouterr().out
    data = json.loads((tmp_path / 'table.json').read_text())
    assert data['runs'][:3] == first['runs'] and data['finished'] == '4 of 4 runs'
    assert data['rows'][0]['interval'][0] < data['rows'][0]['mIoU'] < data['rows'][0]['interval'][1]

    run(*table)  # all there: no model is built
    assert CutTestHook.started == 1
    assert json.loads((tmp_path / 'table.json').read_text()) == data
    assert not (tmp_path / 'table.json.old').exists()


def test_other_settings_are_computed_anew(run, tmp_path, weights, capsys, monkeypatch):
    out = tmp_path / 'table'
    run('CHECKPOINTS', '--folds', 0, 1, '--out', out)
    before = json.loads((tmp_path / 'table.json').read_text())
    for change, started in (
        (('CHECKPOINTS', '--episodes', 6), 2),  # other episodes
        ((weights / 'fold0/best_epoch_7.pth', '--episodes', 6, '--folds', 0), 1),  # another label
    ):
        CutTestHook.started = 0
        run(*change, *([] if '--folds' in change else ['--folds', 0, 1]), '--out', out)
        assert CutTestHook.started == started
        assert 'it is kept as' in capsys.readouterr().out
        if started == 2:
            assert json.loads((tmp_path / 'table.json.old').read_text()) == before
    # what was kept stays
    assert json.loads((tmp_path / 'table.json.old').read_text()) == before
    assert (tmp_path / 'table.json.old1').exists()
    # another commit
    monkeypatch.setattr(provenance, 'commit', lambda: dict(sha='2' * 40, dirty=True))
    CutTestHook.started = 0
    run(*change, '--out', out)
    assert CutTestHook.started == 1
    assert f'commit: {"2" * 40} (changed)' in (tmp_path / 'table.txt').read_text()
    # other weights under the same name
    path = tmp_path / 'best_epoch_7.pth'
    content = torch.load(weights / 'fold0/best_epoch_7.pth', weights_only=True)
    content['meta']['iter'] = 22
    torch.save(content, path)
    CutTestHook.started = 0
    run(path, '--folds', 0, '--episodes', 6, '--out', out)
    assert CutTestHook.started == 1
    torch.save(dict(content, meta=dict(content['meta'], iter=23)), path)
    capsys.readouterr()
    run(path, '--folds', 0, '--episodes', 6, '--out', out)
    said = ', 1-shot, fold 0, seed 0: run again, as the weights are others'
    assert said in capsys.readouterr().out and CutTestHook.started == 2


def test_other_source_under_the_same_commit_is_computed_anew(run, tmp_path, capsys, monkeypatch):
    """Two edits of a changed checkout have one commit, and both are "changed"."""
    monkeypatch.setattr(provenance, 'commit', lambda: dict(sha='1' * 40, dirty=True))
    for started, digest in ((1, 'a'), (1, 'a'), (2, 'b')):
        monkeypatch.setattr(provenance, 'source_digest', lambda digest=digest: digest * 64)
        run('CHECKPOINTS', '--folds', 0, '--out', tmp_path / 'table')
        assert CutTestHook.started == started
        said = ', 1-shot, fold 0, seed 0: run again, as other'
        assert (f'{said} environment: source' in capsys.readouterr().out) == (started == 2)


def test_source_digest_is_that_of_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, 'compat', SimpleNamespace(__file__=str(tmp_path / 'a.py')))
    (tmp_path / 'sub').mkdir()
    digests = [provenance.source_digest()]
    for name, text in (('a.py', 'x = 1'), ('a.py', 'x = 2'), ('sub/b.py', ''), ('notes.txt', 'n')):
        (tmp_path / name).write_text(text)
        digests.append(provenance.source_digest())
    assert len(set(digests[:4])) == 4 and digests[4] == digests[3]


def test_csv_of_another_checkpoint_is_not_taken_for_that_of_the_run(run, weights, tmp_path):
    """Two tables that write their episodes to one folder; the first is asked for again."""
    other = tmp_path / 'last.pth'
    content = torch.load(weights / 'fold0/best_epoch_7.pth', weights_only=True)
    key = 'sam2.memory_encoder.out_proj.bias'
    content['state_dict'][key] = content['state_dict'][key] + 1
    torch.save(content, other)
    csv_file = tmp_path / 'csv/1shot_fold0_seed0.csv'
    table = ('--folds', 0, '--csv', csv_file.parent, '--out')
    run('CHECKPOINTS', *table, tmp_path / 'one')
    first = csv_file.read_text()
    run(other, *table, tmp_path / 'two')
    assert csv_file.read_text() != first and CutTestHook.started == 2
    run('CHECKPOINTS', *table, tmp_path / 'one')
    assert csv_file.read_text() == first and CutTestHook.started == 3
    run('CHECKPOINTS', *table, tmp_path / 'one')
    assert CutTestHook.started == 3


def test_figures_that_were_changed_on_the_disk_are_computed_anew(run, tmp_path, capsys):
    table = ('CHECKPOINTS', '--folds', 0, 1, '--out', tmp_path / 'table')
    run(*table)
    file = tmp_path / 'table.json'
    whole = json.loads(file.read_text())
    changes = (
        lambda one: one['metrics'].update(mIoU=one['metrics']['mIoU'] + 0.5),
        lambda one: one['episodes']['query'].__setitem__(0, one['episodes']['query'][0] ^ 1),
        lambda one: one.pop('digest'),
    )
    for change in changes:
        data = json.loads(json.dumps(whole))
        change(data['runs'][1])
        file.write_text(json.dumps(data))
        CutTestHook.started = 0
        run(*table)
        assert CutTestHook.started == 1
        said = capsys.readouterr().out
        assert '1 of 2 runs are there already' in said
        assert ('fold 1, seed 0: what is stored does not fit its checksum; it is run' in said) == (
            'digest' in data['runs'][1]
        )
        assert json.loads(file.read_text()) == whole


def test_two_tables_into_one_file_are_refused(run, tmp_path):
    with (
        locked(tmp_path / '.table.lock', 'is testing into it'),
        pytest.raises(
            ValueError,
            match=rf'another run \(process {os.getpid()}\) is testing into .*/table; wait',
        ),
    ):
        run('CHECKPOINTS', '--folds', 0, '--out', tmp_path / 'table')
    assert CutTestHook.started == 0
    run('CHECKPOINTS', '--folds', 0, '--out', tmp_path / 'table')


def test_file_that_holds_something_else_is_kept(run, tmp_path):
    (tmp_path / 'table.json').write_text('{"runs": [')
    run('CHECKPOINTS', '--folds', 0, '--out', tmp_path / 'table')
    assert (tmp_path / 'table.json.old').read_text() == '{"runs": ['
    assert json.loads((tmp_path / 'table.json').read_text())['finished'] == '1 of 1 runs'


def test_several_checkpoints_give_a_row_each(run, weights, tmp_path, capsys):
    other = tmp_path / 'last.pth'
    content = torch.load(weights / 'fold0/best_epoch_7.pth', weights_only=True)
    content['meta']['mmfss'].update(
        selection=dict(rule='novel', classes=['cross'], figures={'mIoU': 60.25})
    )
    key = 'sam2.memory_encoder.out_proj.bias'
    content['state_dict'][key] = content['state_dict'][key] + 1
    torch.save(content, other)
    report = run('CHECKPOINTS', other, '--folds', 0, '--out', tmp_path / 'table')
    assert [run.label for run in report.runs] == ['best_*.pth', 'last.pth']
    one, two = (run.metrics['mIoU'] for run in report.runs)
    text = capsys.readouterr().out
    assert one != two
    assert 'best_*.pth (held_out)' in text and 'last.pth (novel)' in text
    assert 'novel: mIoU 60.25' in text


@pytest.mark.parametrize(
    'name, rule, classes',
    [
        ('best_mIoU_epoch_3.pth', 'held_out', ['disk']),
        ('best_novel_mIoU_epoch_3.pth', 'novel', ['cross', 'star']),
        ('epoch_3.pth', 'none', []),
        ('fold0.pth', 'held_out or novel', ['disk']),  # renamed: it may be any of them
    ],
)
def test_rule_of_a_checkpoint(name, rule, classes):
    """A training that watches the novel classes records one rule in all that it saves."""
    chosen = dict(rule='held_out', classes=['disk'], figures={'mIoU': 1.0, 'novel/mIoU': 2.0})
    meta = dict(selection=chosen, novel_classes=['cross', 'star'])
    expected = dict(rule=rule, classes=classes, figures=chosen['figures'])
    assert provenance.selection_of(f'runs/{name}', meta) == expected
    assert provenance.selection_of(f'runs/{name}', {}) is None
    chosen['figures'] = {'mIoU': 1.0}  # one rule alone
    if name == 'fold0.pth':
        assert provenance.selection_of(name, meta)['rule'] == 'held_out'


# ---------------------------------------------------------------------- refused before any run
@pytest.mark.parametrize(
    'args, error, message',
    [
        (['{w}/fold{fold}/none_*.pth', '--folds', 0, 1], FileNotFoundError,
         r'exactly one file per fold; fold 0: .*fold0/none_\*.pth matches no file; fold 1: '),
        (['{w}/*/best_*.pth', '--folds', 0], ValueError,
         r'fold 0: .* matches 2 files: .*fold0/best_epoch_7.pth, .*fold1/best_epoch_8.pth'),
        (['{w}/fold{fold}/best_epoch_7.pth', '--folds', 0, 1], FileNotFoundError,
         'fold 1: .*fold1/best_epoch_7.pth matches no file. Nothing was tested'),
        (['{w}/fold0/best_epoch_7.pth', '--folds', 0, 1], ValueError,
         'trained on shapes-5i fold 0.* include novel classes of shapes-5i fold 1'),
        (['CHECKPOINTS', 'CHECKPOINTS'], ValueError, 'each checkpoint may be given once, got'),
        (['CHECKPOINTS', '--folds', 0, 0], ValueError, '--folds must be different integers >= 0'),
        (['CHECKPOINTS', '--folds', 4], ValueError, r'0\.\.3'),
        (['CHECKPOINTS', '--seeds', -1], ValueError, r'--seeds must be .* >= 0, got \[-1\]'),
        (['CHECKPOINTS', '--shots', 0], ValueError, r'--shots must be .* >= 1, got \[0\]'),
        (['CHECKPOINTS', '--episodes', 0], ValueError, '--episodes must be >= 1, got 0'),
    ],
)  # fmt: skip
def test_bad_calls(args, error, message, run, weights, tmp_path):
    args = [str(arg).replace('{w}', str(weights)) for arg in args]
    with pytest.raises(error, match=message):
        run(*args, '--out', tmp_path / 'table')
    assert CutTestHook.started == 0 and not list(tmp_path.glob('table*'))
    assert 'FOLD' not in os.environ


@pytest.mark.parametrize(
    'option, entry',
    [
        (['--seeds', 1], 'seed=2'),
        (['--shots', 1], 'shots=1'),
        (['--episodes', 5], 'num_episodes=5'),
        (['--sampler', 'balanced'], 'sampler=uniform_class'),
    ],
)
def test_entry_that_is_set_twice_is_refused(option, entry, run):
    key = f'test_dataloader.dataset.{entry}'
    with pytest.raises(ValueError, match=f'{option[0]} and --cfg-options {key} both set the'):
        run('CHECKPOINTS', *option, options=[key])


def test_checkpoint_without_record_is_refused_for_all_folds_first(run, weights, tmp_path):
    for fold, path in enumerate(sorted(weights.glob('*/*.pth'))):
        content = torch.load(path, weights_only=True)
        if fold == 1:
            del content['meta']['mmfss']
        torch.save(content, tmp_path / f'{fold}.pth')
    with pytest.raises(ValueError, match='1.pth does not say .*allow_unverified=True'):
        run(tmp_path / '{fold}.pth', '--folds', 0, 1)
    assert CutTestHook.started == 0
    allowed = ['default_hooks.fold_guard.allow_unverified=True']
    report = run(tmp_path / '{fold}.pth', '--folds', 0, 1, options=allowed)
    assert [run.checkpoint['trained_on'] is None for run in report.runs] == [False, True]


def test_outputs_that_cannot_be_written_are_found_first(run, tmp_path):
    (tmp_path / 'file').write_text('')
    for option in ('--csv', '--out'):
        with pytest.raises(ValueError, match=f'{option}: .*cannot be written'):
            run('CHECKPOINTS', '--folds', 0, option, tmp_path / 'file/x')
    with pytest.raises(ValueError, match='2 runs would write their episodes to one csv_file'):
        run('CHECKPOINTS', '--folds', 0, 1, options=[f'test_evaluator.csv_file={tmp_path}/e.csv'])
    assert CutTestHook.started == 0


def test_seeds_of_frozen_episodes_are_refused(run):
    frozen = ['test_dataloader.dataset.episodes_file=episodes.json']
    for option in (('--seeds', 0, 1), ('--sampler', 'balanced')):
        with pytest.raises(ValueError, match=f'{option[0]} has no effect on the frozen episodes'):
            run('CHECKPOINTS', '--folds', 0, *option, options=frozen)


def test_metric_must_be_there(run):
    with pytest.raises(ValueError, match='must have one FewShotIoUMetric, .* got 0'):
        options = ['test_evaluator.type=IoUMetric', 'test_evaluator._delete_=True']
        run('CHECKPOINTS', '--folds', 0, options=options)


def test_images_that_do_not_do_are_found_before_the_first_episode(run):
    with pytest.raises(
        ValueError, match='none of the novel classes: 50-shot .* 51 images .*val.txt'
    ):
        run('CHECKPOINTS', '--folds', 0, 1, '--shots', 1, 50)
    with pytest.raises(ValueError, match='2 1-shot episodes for test have none of .*--sampler bal'):
        options = ['test_evaluator.absent_classes=error']
        run('CHECKPOINTS', '--folds', 0, 1, '--episodes', 2, options=options)
    assert CutTestHook.started == 0


def test_what_an_episode_costs(run, tmp_path, weights):
    """Counted on the model with nothing kept; a table without it is run again."""
    table = (
        'CHECKPOINTS',
        '--folds',
        0,
        '--seeds',
        0,
        1,
        '--episodes',
        12,
        '--out',
        tmp_path / 'a',
    )
    assert run(*table).runs[0].cost == {}
    first, second = run(*table, '--cost').runs
    assert CutTestHook.started == 4
    state = torch.load(next(weights.glob('fold0/*.pth')), weights_only=True)['state_dict']
    assert first.cost['parameters'] <= sum(value.numel() for value in state.values())
    assert 0 < first.cost['trained'] < first.cost['parameters']
    assert first.cost['gflop'] == second.cost['gflop'] > 0 < first.cost['ms']
    assert first.cost['memory'] > 2**25
    assert run(*table, '--cost').runs[1].cost == second.cost and CutTestHook.started == 4
    (more,) = run(*table[:3], '--shots', 3, '--episodes', 12, '--cost').runs
    assert more.cost['gflop'] > 1.5 * first.cost['gflop']  # 4 images in the place of 2
