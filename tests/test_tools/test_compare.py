"""``mmfss compare`` on files of results: what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mmfss.commands import compare
from mmfss.commands import table as tables
from mmfss.commands.command_lines import Request, TableArguments, parse
from mmfss.commands.evaluation_results import _digest
from mmfss.evaluation.counts import EpisodeCounts, few_shot_iou, sum_per_class
from mmfss.evaluation.episode_csv import episodes_csv
from mmfss.evaluation.report import Run
from mmfss.evaluation.report_text import to_json

NAMES = {1: 'cat', 2: 'dog'}


def a_run(shift, fold=0, seed=0, label='epoch_5'):
    rng = np.random.default_rng(seed)
    inter = np.clip(rng.integers(20, 60, 30) + shift, 0, 100)
    counts = tuple(
        EpisodeCounts(i, 1 + i % 2, (900, int(n)), (1000 - int(n), 100), f'{i}.jpg', ('s.jpg',))
        for i, n in enumerate(inter)
    )
    ious, miou, fb = few_shot_iou(sum_per_class(counts))
    metrics = {'mIoU': miou, 'FB-IoU': fb, 'classes': 2}
    metrics |= {f'IoU/{NAMES[c]}': value for c, value in ious.items()}
    protocol = dict(sampler='balanced', fold=fold, seed=seed)
    return Run(label, 1, fold, seed, metrics, (), protocol, {}, 's', counts)


def write(path, runs, benchmark='shapes-5i'):
    data = [one.to_dict() for one in runs]
    for one in data:
        one['digest'] = _digest(one)
    path.write_text(to_json(dict(benchmark=benchmark, role='novel', runs=data)))
    return path


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as failure:
        compare.main([*map(str, arguments)])
    assert failure.value.code == 2
    return capsys.readouterr().err


def table(shift, **options):
    return [a_run(shift, fold, seed, **options) for fold in (0, 1) for seed in (0, 1)]


def test_two_files(tmp_path, capsys):
    one, other = write(tmp_path / 'new.json', table(6)), write(tmp_path / 'b.json', table(0))
    out = tmp_path / 'out/paper.tex'
    found = compare.main([str(one), f'base_line={other}', '--out', str(out), '--classes'])
    said = capsys.readouterr().out
    (mean,) = [d for d in found.differences if d.scope == 'mean']
    assert mean.value == pytest.approx(6.0) and mean.sure
    line = next(
        line for line in said.splitlines() if line.split()[1:2] == ['mean'] and '..' in line
    )
    assert line.split()[2:9] == ['new', '-', 'base_line', '+6.00', '+6.00', '..', '+6.00']
    assert line.endswith('new is better') and said.count('cat') == 2
    latex = out.read_text()
    best = found.figures('new', 1).mean
    assert rf'\textbf{{{best:.1f}}}' in latex and r'base\_line' in latex and '\\toprule' in latex
    assert latex.count('\\\\') == 3
    data = json.loads((tmp_path / 'out/paper.json').read_text())
    assert data['best'] == {'1': 'new'} and data['differences'][0]['value'] == mean.value
    assert (tmp_path / 'out/paper.md').read_text().startswith('| shots | method | fold 0 | fold 1')
    rows = list(csv.DictReader((tmp_path / 'out/paper.csv').read_text().splitlines()))
    assert [row['scope'] for row in rows] == [d.scope for d in found.differences]
    assert float(rows[0]['difference']) == mean.value
    assert (tmp_path / 'out/paper.txt').read_text() in said


def test_csv_files_are_compared_too(tmp_path):
    for name, shift in (('x', 0), ('y', 5)):
        (tmp_path / name).mkdir()
        for one in table(shift):
            text = episodes_csv(one.counts, NAMES.__getitem__)
            (tmp_path / name / f'1shot_fold{one.fold}_seed{one.seed}.csv').write_text(text)
    found = compare.main([str(tmp_path / 'x'), str(tmp_path / 'y')])
    assert found.differences[0].value == pytest.approx(-5.0)
    assert found.figures('x', 1).classes[0].keys() == {'cat', 'dog'}
    one = write(tmp_path / 'x.json', table(0))
    assert compare.main([f'a={one}', str(tmp_path / 'y')]).differences[0].one == 'a'


def test_trainings(tmp_path, capsys):
    """The same name again, or checkpoints of one file with --trainings, are one method."""
    first, second = write(tmp_path / '0.json', table(0)), write(tmp_path / '1.json', table(4))
    other = write(tmp_path / 'b.json', table(-6))
    found = compare.main([f'a={first}', f'a={second}', f'b={other}'])
    assert found.names == ('a', 'b') and found.differences[0].value == pytest.approx(8.0)
    assert found.figures('a', 1).of_trainings == pytest.approx(np.std([0, 4], ddof=1))
    both = write(tmp_path / 'both.json', table(0) + table(4, label='again'))
    given = [f'a={both}', f'b={other}']
    assert compare.main(given).names == ('a epoch_5', 'a again', 'b')
    again = compare.main([*given, '--trainings'])
    assert [vars(d) for d in again.differences] == [vars(d) for d in found.differences]
    assert '2.83' in capsys.readouterr().out  # deviation of 0 and 4


def test_a_part(tmp_path, capsys):
    one = write(tmp_path / 'a.json', table(0))
    other = write(tmp_path / 'b.json', [run for run in table(3) if run.fold == 0])
    said = fails(capsys, one, other)
    assert 'b was not tested on all that the others were: it lacks 1-shot fold 1 seed 0' in said
    assert 'compare a part with --shots, --folds, --seeds' in said
    assert compare.main([str(one), str(other), '--folds', '0', '--seeds', '1']).places == [
        (1, 0, 1)
    ]
    assert 'b.json has no run of the --shots, --folds and --seeds' in fails(
        capsys, one, other, '--folds', '1'
    )


def test_files_that_are_no_results(tmp_path, capsys):
    one = write(tmp_path / 'a.json', table(0))
    assert 'results not found' in fails(capsys, one, tmp_path / 'b.json')
    (tmp_path / 'b.json').write_text('{}')
    assert 'b.json is no file of results as tools/test.py --out' in fails(
        capsys, one, tmp_path / 'b.json'
    )
    data = json.loads(write(tmp_path / 'b.json', table(3)).read_text())
    data['runs'][0]['metrics']['mIoU'] += 1
    (tmp_path / 'b.json').write_text(json.dumps(data))
    assert '1 of 4 runs do not fit their checksum' in fails(capsys, one, tmp_path / 'b.json')
    write(tmp_path / 'b.json', table(3), 'pascal-5i')
    assert 'results of different benchmarks cannot be compared' in fails(
        capsys, one, tmp_path / 'b.json'
    )
    (tmp_path / 'x.csv').write_text('a,b\n')
    assert 'must be named as tools/test.py --csv names it' in fails(capsys, one, tmp_path / 'x.csv')
    (tmp_path / '1shot_fold0_seed0.csv').write_text('a,b\n1,2\n')
    assert 'is no list of episodes' in fails(capsys, one, tmp_path / '1shot_fold0_seed0.csv')
    assert 'two methods or more of different names, got a' in fails(capsys, one)


def test_table_tests_each_method_and_compares(tmp_path, capsys, monkeypatch):
    """Each in a process of its own; trainings of a method have a row together."""
    calls = []

    def run_process(command):
        calls.append(command[4:])
        out = command[command.index('--out') + 1]
        runs = table(0)
        if out.endswith('fssam'):
            runs = table(4) + table(6, label='again')
        write(tmp_path / f'{out}.json', [replace(one, cost=dict(ms=7.0)) for one in runs])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(tables.subprocess, 'run', run_process)
    out = tmp_path / 'results'
    options = ['--folds', '0', '1', '--benchmark', 'shapes_5i', '--cfg-options', 'x.y=3']
    methods = ['prototype', 'fssam=a.pth,b.pth', 'my/own.py=c.pth']
    tables.main(['fss', *methods, *options, '--out', str(out)])
    assert [call[0] for call in calls] == ['fss', 'fss', 'my/own.py']
    assert calls[1][1:3] == ['a.pth', 'b.pth'] and calls[2][1] == 'c.pth'
    assert '--method' in calls[0] and '--method' not in calls[2]
    request = parse(Request, calls[1])
    assert (request.method, request.folds, request.cost) == ('fssam', [0, 1], True)
    assert request.cfg_options == {'x.y': 3} and request.benchmark == 'shapes_5i'
    data = json.loads((out / 'table.json').read_text())
    assert data['trainings'] == dict(prototype=1, fssam=2, own=1)
    assert data['best'] == {'1': 'fssam'} and data['figures'][0]['cost'] == dict(ms=7.0)
    assert 'GFLOP (a product' in capsys.readouterr().out


@pytest.mark.parametrize('given, status, said', [
    (['prototype'], 2, "two methods or more of different names, got ['prototype']"),
    (['prototype', 'x/prototype.py'], 2, 'two methods or more of different names'),
    (['=a.pth', 'prototype'], 2, "a method is NAME or CONFIG.py, and =CHECKPOINT[,CHECKPOINT]"),
    (['prototype', 'density'], 7, 'error: the test of prototype failed, see above'),
])  # fmt: skip
def test_tables_that_fail(tmp_path, capsys, monkeypatch, given, status, said):
    monkeypatch.setattr(tables.subprocess, 'run', lambda command: SimpleNamespace(returncode=7))
    with pytest.raises(SystemExit) as failure:
        tables.run(parse(TableArguments, ['fss', *given, '--out', str(tmp_path / 'out')]))
    assert failure.value.code == status and said in capsys.readouterr().err
