from __future__ import annotations

import json

import numpy as np
import pytest

from mmfss.evaluation.counts import EpisodeCounts
from mmfss.evaluation.report import Report, Run
from mmfss.evaluation.report_text import markdown, table, table_lines, text, to_json
from mmfss.evaluation.statistics import bootstrap_interval

HEADER = dict(
    benchmark='pascal-5i',
    role='novel',
    config='config.py',
    cfg_options={'a.b': '1'},
    environment=dict(
        commit=dict(sha='c' * 40, dirty=True), python='3.11', packages=dict(torch='2.13'),
        machine=dict(cpu='x', gpu=None),
    ),
)  # fmt: skip
MIOU = {(0, 0): 50.0, (0, 1): 52.0, (1, 0): 61.0, (1, 1): 60.0}


def made(fold, seed, label='best', shots=1, left_out=()):
    rng = np.random.default_rng([fold, seed])
    counts = tuple(
        EpisodeCounts(i, 1 + i % 2, (5, int(rng.integers(20, 40))), (9, 50), f'{i}.jpg')
        for i in range(12)
    )
    metrics = {'mIoU': MIOU[fold, seed], 'FB-IoU': 80.0 + seed, 'IoU/cat': 40.0 + seed,
               'classes': 5 - len(left_out), 'episodes': 12}  # fmt: skip
    if left_out:
        metrics['mIoU (absent as 0)'] = 30.0
    checkpoint = dict(path=f'{label}{fold}.pth', sha256='f' * 64, epoch=3, iter=None,
                      trained_on=None, selection=None)  # fmt: skip
    protocol = dict(sampler='image_list', episodes=12, seed=seed, shots=shots, data=f'd{fold}')
    return Run(
        label, shots, fold, seed, metrics, tuple(left_out), protocol, checkpoint, 's', counts
    )


def full(**options):
    runs = [made(fold, seed, **options) for fold in (0, 1) for seed in (0, 1)]
    return Report(HEADER, {'best': 'fold{fold}/best.pth'}, [1], [0, 1], [0, 1], runs)


@pytest.mark.parametrize('in_all, said', [(4, 'seeds 0, 1, 2 of 4 folds.'), (2, 'seeds 0, 1.')])
def test_a_table_of_some_folds_says_of_how_many(in_all, said):
    report = full()
    report.header = dict(HEADER, folds_in_all=in_all)
    for form in (text(report), markdown(report)):
        assert form.splitlines()[0].endswith(said) and 'folds_in_all' not in form
    assert report.to_dict()['folds_in_all'] == in_all


def test_a_table_says_whose_training_images_showed_novel_classes():
    report = full()
    assert 'novel classes, as background' not in text(report)
    for run in report.runs:
        run.checkpoint['trained_on'] = dict(benchmark='pascal-5i', novel_images='kept')
    for form in (text(report), markdown(report)):
        assert form.count('trained on images that show novel classes, as background: best.') == 1


def test_figures_of_a_row():
    report = full()
    row = report.to_dict()['rows'][0]
    of_seeds = [(50 + 61) / 2, (52 + 60) / 2]
    assert row['mIoU'] == sum(of_seeds) / 2 == 55.75
    assert row['std'] == pytest.approx(0.5 / 2**0.5)  # of 55.5 and 56
    assert row['FB-IoU'] == 80.5
    assert [fold['mIoU'] for fold in row['folds']] == [51, 60.5]
    assert row['folds'][1]['mIoU of seeds'] == [61, 60]
    assert row['folds'][0]['classes'] == {'cat': 40.5}
    found = bootstrap_interval([[made(f, s).counts for s in (0, 1)] for f in (0, 1)])
    assert row['interval'] == [found.low, found.high]
    assert table(report) == [
        ['shots', 'fold 0', 'fold 1', 'mean', 'std', '95 % interval', 'FB-IoU'],
        ['1', '51.0', '60.5', '55.8', '0.35', f'{found.low:.1f} .. {found.high:.1f}', '80.5'],
    ]


def test_one_seed_has_no_deviation():
    report = full()
    one = Report(HEADER, report.labels, [1], [0, 1], [1], [r for r in report.runs if r.seed == 1])
    assert table(one)[1][:5] == ['1', '52.0', '60.0', '56.0', '-']
    assert one.to_dict()['rows'][0]['std'] is None


def test_missing_runs_are_visible():
    report = full()
    del report.runs[-1]
    cells = table(report)[1]
    assert cells == ['1', '51.0', '-', '-', '-', '-', '-']
    for shown in (text(report), markdown(report)):
        assert 'UNFINISHED: 3 of 4 runs' in shown
    row = report.to_dict()['rows'][0]
    assert row['mIoU'] is row['std'] is row['interval'] is row['FB-IoU'] is None
    report.runs.append(made(1, 1))  # a row that was unfinished is not kept
    assert table(report)[1][3] == '55.8'


def test_classes_left_out_are_visible():
    report = full()
    report.runs[1] = made(0, 1, left_out=['dog', 'cow'])
    head, cells = table(report)
    assert head[-1] == 'absent as 0'
    assert cells[-1] == f'{((50 + 30) / 2 + 60.5) / 2:.1f}'  # mIoU where no class is absent
    assert cells[1] == '51.0*' and cells[2] == '60.5'
    for shown in (text(report), markdown(report)):
        assert '* 1-shot, best, fold 0: no episodes of cow, dog; left out of the mean' in shown
    folds = report.to_dict()['rows'][0]['folds']
    assert folds[0]['left_out'] == ['cow', 'dog'] and folds[1]['left_out'] == []
    assert folds[0]['mIoU (absent as 0)'] == 40


def test_classes_counted_as_zero_are_visible():
    """Two of five classes without episodes: IoU 9/18 and 3/12 of the others, three times 0."""

    def run(seed, counted_zero, foreground):
        counts = tuple(
            EpisodeCounts(i, 1 + i, (0, inter), (0, union), f'{i}.jpg')
            for i, (inter, union) in enumerate(foreground)
        )
        miou = sum(100 * i / u for i, u in foreground) / 5
        metrics = {'mIoU': miou, 'FB-IoU': 70.0, 'IoU/cat': 50.0, 'classes': 5, 'episodes': 9}
        protocol = dict(seed=seed, shots=1, absent_classes='zero')
        made_as = made(0, seed)
        return Run('best', 1, 0, seed, metrics, (), protocol, made_as.checkpoint, 's', counts,
                   tuple(counted_zero))  # fmt: skip

    runs = [run(0, ['dog', 'cow', 'elk'], [(9, 18), (3, 12)]), run(1, [], [(1, 2)] * 5)]
    report = Report(HEADER, {'best': 'fold{fold}/best.pth'}, [1], [0], [0, 1], runs)
    assert runs[0].metrics['mIoU'] == 15 and runs[1].metrics['mIoU'] == 50
    head, cells = table(report)
    assert head[-1] == 'FB-IoU'  # mIoU is the mean with 0: no column of its own
    assert cells[1] == '32.5*' and cells[2] == '32.5'
    for shown in (text(report), markdown(report)):
        note = '* 1-shot, best, fold 0: no episodes of cow, dog, elk; counted as IoU 0 in the mean'
        assert f'{note} (absent_classes: zero).' in shown
        assert 'protocol: absent_classes: zero' in shown and 'left out' not in shown
    row = report.to_dict()['rows'][0]
    assert row['interval'] == [32.5, 32.5]  # one image a class: every draw is the same
    assert row['folds'][0]['counted_zero'] == ['cow', 'dog', 'elk']
    assert row['folds'][0]['left_out'] == [] and 'mIoU (absent as 0)' not in row
    kept = Run.from_dict(json.loads(to_json(report.to_dict()))['runs'][0])
    assert kept.counted_zero == ('dog', 'cow', 'elk') and kept.left_out == ()


def test_selection_is_said():
    runs = []
    for label, rule in (('a', 'held_out'), ('b', 'novel')):
        run = made(0, 0, label)
        run.checkpoint['selection'] = dict(rule=rule, figures={'mIoU': 1 / 3})
        runs.append(run)
    report = Report(HEADER, dict(a='a', b='b'), [1], [0], [0], runs)
    head, *rows = table(report)
    assert head[:2] == ['shots', 'checkpoint']
    assert [row[1] for row in rows] == ['a (held_out)', 'b (novel)']
    assert 'held_out: mIoU 0.33' in text(report) and 'novel: mIoU 0.33' in markdown(report)
    assert 'not recorded' in text(full())
    assert report.to_dict()['checkpoints'][0]['selection']['figures']['mIoU'] == 1 / 3


def test_protocol_and_provenance_are_said():
    report = full()
    assert report.protocol() == dict(sampler='image_list', episodes=12)  # data differ by fold
    for shown in (text(report), markdown(report)):
        for part in ('pascal-5i, novel classes', 'episode seeds 0, 1', 'protocol: episodes: 12',
                     'config: config.py', 'cfg_options: a.b 1', f'commit: {"c" * 40} (changed)',
                     'packages: torch 2.13', 'machine: cpu x, gpu none', 'best1.pth'):  # fmt: skip
            assert part in shown


def test_runs_survive_json_unrounded():
    report = full()
    report.runs[0].metrics['FB-IoU'] = float('nan')
    report.runs[1].metrics['mIoU'] = 100 / 3
    shown = to_json(report.to_dict())
    data = json.loads(shown)
    assert data['runs'][1]['metrics']['mIoU'] == 100 / 3
    for run, kept in zip(report.runs, map(Run.from_dict, data['runs']), strict=True):
        assert kept.counts == run.counts and kept.key == run.key
        assert to_json(kept.to_dict()) == to_json(run.to_dict())
    assert np.isnan(Run.from_dict(data['runs'][0]).metrics['FB-IoU'])
    assert 'NaN' not in shown
    assert '"episode": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]' in shown  # one line


def test_json_of_odd_values():
    for value in ({}, [], [[]], {'a': []}, [1, 'ü"\n'], {'x': [{'y': (1, 2)}, None, True]}):
        assert json.loads(to_json(value)) == json.loads(json.dumps(value))


def test_markdown_escapes_pipes():
    report = Report(HEADER, {'a|b': 'a|b'}, [1], [0], [0], [made(0, 0, 'a|b')])
    rows = [line for line in markdown(report).splitlines() if line.startswith('|')]
    assert any('a\\|b' in row for row in rows)


def test_table_lines():
    rows = [['mean', 'a|b'], ['-', 'first'], ['12.5', 'x']]
    assert table_lines(rows, in_markdown=True) == [
        '| mean | a\\|b |', '|---|---|', '| - | first |', '| 12.5 | x |']  # fmt: skip
    assert table_lines(rows, in_markdown=False) == ['mean  a|b', '   -  first', '12.5  x']
    assert table_lines([['head', 'x']], in_markdown=False) == ['head  x']  # no rows yet


def test_text_is_aligned():
    lines = text(full()).splitlines()
    assert lines[2] == 'shots  fold 0  fold 1  mean   std  95 % interval  FB-IoU'
    assert len(lines[2]) == len(lines[3])
