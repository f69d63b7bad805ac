"""Every subcommand on a tiny model: what comes out, never how long it took."""

from __future__ import annotations

import argparse
import json
import sys

import pytest
import torch
from benchmark_cases import OPTIONS, write_config
from benchmarks import curves, runtimes, start, training
from benchmarks.cli import main
from benchmarks.subject import Subject, add_options, subject_of
from benchmarks.worker import in_process
from tiny_models import METHODS, TINY_DINO

from mmfss.methods.base import FewShotModel


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp('benchmark') / 'tiny.py')


@pytest.fixture
def run(config, tmp_path):
    def call(subcommand, *options):
        data = ['--data', str(tmp_path / 'data')]
        return main([subcommand, '--config', config, *OPTIONS, *data, *map(str, options)])

    return call


def here(job, **args):
    """What a process of its own does, in this one: importing everything takes seconds."""
    jobs = {
        'training': training.measured_step,
        'point': curves.measured_point,
        'start': start.measured_start,
        'runtimes': runtimes.measured_process,
    }
    return json.loads(json.dumps(jobs[job](**json.loads(json.dumps(args)))))


def medians(entries):
    return {name: entry['median'] for name, entry in entries.items()}


def test_episode_and_its_comparison(run, tmp_path, capsys):
    file = tmp_path / 'a.json'
    before = sys.getprofile()
    content = run('episode', '--shots', 2, '--json', file)
    assert sys.getprofile() is before
    assert json.loads(file.read_text()) == content
    results = content['results']
    seconds = medians(results['seconds'])
    bare = seconds['SAM 2 encoder'] + seconds['prior encoder']
    assert results['ratios']['episode / bare encoders'] == seconds['episode'] / bare
    naive = seconds['naive episode'] / seconds['episode']
    assert results['ratios']['naive episode / ours'] == naive
    assert results['images'] == 3
    assert results['images_per_second'] == 3 / seconds['episode']
    stages = results['stages']
    assert {'read + resize', 'SAM 2 encoder', 'prior encoder', 'memories', 'pointers',
            'prototypes, keys', 'prompts', 'refinement', 'attention', 'decoder',
            'resize + metric'} <= set(stages)  # fmt: skip
    assert stages['SAM 2 encoder']['flops'] > stages['read + resize']['flops'] == 0
    assert (
        0 < stages['read + resize']['held']['tensors'] < stages['SAM 2 encoder']['held']['tensors']
    )
    assert results['parameters']['prior encoder']['trainable'] == 0
    assert results['parameters']['all']['all'] > results['parameters']['all']['trainable'] > 0
    assert results['equal']['episodes'] == 1 and results['equal']['pixels'] == 4800
    assert {'commit', 'packages', 'machine'} <= set(content['environment'])
    assert content['command'][0] == 'episode' and len(content['load']['before']) == 3
    capsys.readouterr()
    run('episode', '--shots', 2, '--compare', file)
    assert '| ratios.episode / bare encoders' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run('episode', '--shots', 1, '--compare', file)
    assert 'shots: 2 there, 1 here' in capsys.readouterr().err


def test_episode_of_a_prior_encoder_that_reads_sam2(tmp_path):
    changes = dict(prior_encoder=dict(type='SAM2PriorEncoder'))
    config = write_config(tmp_path / 'config.py', **changes)
    results = main(['episode', '--config', config, *OPTIONS])['results']
    seconds = medians(results['seconds'])
    assert set(seconds) == {'episode', 'SAM 2 encoder', 'naive episode'}
    bare = results['ratios']['episode / bare encoders']
    assert bare == seconds['episode'] / seconds['SAM 2 encoder']


def test_a_method_without_baseline(tmp_path, capsys):
    encoder = dict(type='DINOv2', arch=TINY_DINO, image_size=70, checkpoint='official')
    preprocessor = dict(type='EpisodeDataPreprocessor')
    model = dict(type='PrototypeMatcher', encoder=encoder, image_size=64)
    config = tmp_path / 'prototype.py'
    config.write_text(f'model = {dict(model, data_preprocessor=preprocessor)!r}\n')
    options = ['--config', str(config), *OPTIONS]
    episode = main(['episode', *options])['results']
    seconds = medians(episode['seconds'])
    assert set(seconds) == {'episode', 'encoder'} and set(episode['parameters']) == {
        'encoder', 'all',
    }  # fmt: skip
    assert episode['ratios']['episode / bare encoders'] == seconds['episode'] / seconds['encoder']
    assert {'encoder', 'prototypes, keys', 'segment'} <= set(episode['stages'])
    evaluation = main(['evaluation', *options, '--shots', '1', '--batch', '1'])['results']
    entry = evaluation['shots']['1']
    assert list(entry['ways']) == ['no cache', 'cold cache', 'warm cache']
    target = entry['target']
    assert entry['ratios'] == {
        name: target['no cache'] / target[name] for name in ('cold cache', 'warm cache')
    }
    assert evaluation['equal']['1-shot, warm cache and cold cache']['max_logit_difference'] == 0
    for wrong, message in (
        (['training'], 'written for FSSAM alone'),
        (['episode', '--channels-last'], 'PrototypeMatcher has none'),
        (['episode', '--method', 'fssam'], 'does not read METHOD'),
    ):
        with pytest.raises(SystemExit):
            main([wrong[0], *options, *wrong[1:]])
        assert message in capsys.readouterr().err


def test_stages_of_sam2_memory(tmp_path):
    model = {**METHODS['SAM2Memory'], 'data_preprocessor': dict(type='EpisodeDataPreprocessor')}
    config = tmp_path / 'memory.py'
    config.write_text(f'model = {model!r}\n')
    found = main(['episode', '--config', str(config), *OPTIONS, '--shots', '2'])['results']
    stages = {name: entry['flops'] for name, entry in found['stages'].items()}
    for name in ('SAM 2 encoder', 'support memory', 'support pointer', 'attention', 'decoder'):
        assert stages[name] > 0, name
    assert set(medians(found['seconds'])) == {'episode', 'SAM 2 encoder'}
    assert Subject(str(config), image_size=96).side == 96


def test_methods_by_name():
    asked = argparse.ArgumentParser()
    add_options(asked)
    options = ['--method', 'pseudo-mask', '--arch', 'small', '--image-size', '64']
    subject = subject_of(asked.parse_args([*options, '--threads', '1']))
    cfg = subject.model_config()
    assert cfg['type'] == 'PseudoMask' and cfg['encoder']['type'] == 'EfficientNetLiteEncoder'
    assert subject.side == 64 and cfg['encoder']['image_size'] == 128
    with pytest.raises(ValueError, match="METHOD must be one of .*got 'nothing'"):
        Subject('fss', method='nothing').model_config()


def test_evaluation_of_more_shots_than_usual(run):
    """Each class has the K + 1 images that an episode takes."""
    options = ('--shots', 7, '--images', 9, '--episodes', 1, '--batch', 1, '--plain-episodes', 1)
    entry = run('evaluation', *options)['results']['shots']['7']
    assert entry['images'] == 8
    assert entry['ways']['cold cache']['cache']['misses'] == 8 * 2  # of each encoder


def test_compiled_evaluation_warms_up_under_its_autocast(run, monkeypatch):
    under = []

    def warm_up(*of):
        under.append(torch.is_autocast_enabled('cpu'))
        return 0.0

    monkeypatch.setattr(FewShotModel, 'warm_up', warm_up)
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda *_, **__: None)
    options = ('--shots', 1, '--episodes', 1, '--batch', 1)
    run('evaluation', *options, '--amp', '--compile')
    assert under and all(under)


def test_evaluation(run):
    content = run('evaluation', '--shots', 2, '--batch', 2, '--target', 12, 60)
    for shots in ('2',):
        entry = content['results']['shots'][shots]
        ways, target = entry['ways'], entry['target']
        assert list(ways) == [
            'naive',
            'no cache',
            'cold cache',
            'warm cache',
            'warm cache, batch 2',
        ]
        assert all(way['episodes'] == 6 for way in ways.values())
        assert target['naive'] == pytest.approx(60 * ways['naive']['episode_seconds'])
        assert entry['ratios']['warm cache'] == target['naive'] / target['warm cache']
        assert len({way['figures']['mIoU'] for way in ways.values()}) == 1
        calls = 6 * (int(shots) + 1) * 2  # of each encoder
        cold, warm = ways['cold cache']['cache'], ways['warm cache']['cache']
        assert cold['misses'] == entry['images'] * 2 == cold['written'] == 12
        assert warm['misses'] == 0 and warm['disk_hits'] >= 12
        assert warm['memory_hits'] + warm['disk_hits'] <= calls
        assert ways['no cache']['cache'] == {}
    assert content['results']['peak_bytes'] > 2**27
    equal = content['results']['equal']
    assert equal['2-shot, cold cache and no cache']['max_logit_difference'] == 0
    assert equal['2-shot, warm cache and cold cache']['different_pixels'] == 0
    assert set(equal) >= {
        '2-shot, no cache and naive',
        '2-shot, warm cache, batch 2 and warm cache',
    }


def test_training_and_fold(run, monkeypatch, tmp_path):
    monkeypatch.setattr(training, 'in_process', here)
    files = {name: tmp_path / f'{name}.json' for name in ('training', 'evaluation')}
    steps = run('training', '--checkpointing', '--json', files['training'])['results']
    ways = steps['ways']
    kinds = ('ours', 'naive', 'ours, features kept', 'ours, checkpointing')
    assert set(ways) == {f'{kind}, batch {batch}' for kind in kinds for batch in (1, 2)}
    ours, naive = ways['ours, batch 2'], ways['naive, batch 2']
    ratio = naive['seconds']['median'] / ours['seconds']['median']
    assert steps['ratios']['naive / ours, batch 2'] == ratio
    assert steps['ratios']['peak of ours, batch 2 / naive'] == (
        ours['peak_bytes'] / naive['peak_bytes']
    )
    parts = sum(part['median'] for part in ours['parts'].values())
    assert parts == pytest.approx(ours['seconds']['median'])  # of one repeat
    assert steps['gradients']['gradient'] < 1e-3
    run('evaluation', '--shots', 1, '--batch', 1, '--json', files['evaluation'])
    given = ('--from-training', files['training'], '--from-evaluation', files['evaluation'])
    fold = run('fold', '--epochs', 2, *given)['results']
    hours = fold['hours']
    assert hours['naive']['training'] == pytest.approx(
        2 * 526 * 8 * fold['episode_seconds']['naive'] / 3600
    )
    assert fold['ratios']['ours, cache in validation'] == (
        hours['naive']['all'] / hours['ours, cache in validation']['all']
    )
    cache = fold['validation_seconds']['cache']
    assert hours['ours, cache in validation']['validation'] == pytest.approx(
        (cache['first'] + 3 * cache['later']) / 3600
    )


def test_fold_refuses_parts_of_others(run, capsys, tmp_path, config):
    file = tmp_path / 'a.json'
    settings = dict(
        config=config, arch='full', image_size=None, threads=1, amp=False, compile=False,
        channels_last=None, device='cpu',
    )  # fmt: skip

    def refused(option, **changes):
        content = dict(format=1, subcommand='evaluation', settings=settings, results=dict(shots={}))
        file.write_text(json.dumps({**content, **changes}))
        with pytest.raises(SystemExit):
            run('fold', option, file, *other)
        return capsys.readouterr().err

    other = ()
    assert "is of 'evaluation', not of 'training'" in refused('--from-training')
    steps = tmp_path / 'b.json'
    steps.write_text(
        json.dumps(dict(format=1, subcommand='training', settings=settings, results=dict(ways={})))
    )
    other = ('--from-training', steps)
    assert 'has no 1-shot evaluation' in refused('--from-evaluation')
    said = refused('--from-evaluation', settings={**settings, 'threads': 9})
    assert "was measured with" in said and "'threads': 9" in said


def test_labelling(run):
    results = run('labelling', '--shots', 1, 3, '--classes', 1, 2)['results']
    seconds = medians(results['seconds'])
    assert set(seconds) == {'N=1, K=1', 'N=1, K=3', 'N=2, K=1'}
    assert results['ratios'] == pytest.approx({
        'K=1 to K=3, %': 100 * (seconds['N=1, K=3'] / seconds['N=1, K=1'] - 1),
        'N=1 to N=2, % per class': 100 * (seconds['N=2, K=1'] / seconds['N=1, K=1'] - 1),
    })  # fmt: skip
    assert results['images_per_second']['N=1, K=1'] == 1 / seconds['N=1, K=1']
    assert results['peak_bytes'] > 2**27  # torch alone is more


def test_serving(run):
    pytest.importorskip('uvicorn')
    pytest.importorskip('httpx')
    results = run('serving', '--shots', 2)['results']
    direct, served, seen, new = medians(results['seconds']).values()
    assert results['overhead_seconds'] == served - direct
    assert results['overhead_percent'] == pytest.approx(100 * (served / direct - 1))
    assert min(seen, new) > 0 and results['clients_per_second'] > 0


def test_loading(run):
    passes = run('loading', '--workers', 0, '--episodes', 3)['results']['passes']
    assert list(passes) == [
        'test, 80 x 60, 0 workers',
        'test, 80 x 60, deferred, 0 workers',
        'training, 80 x 60, 0 workers',
        'test, 320 x 240, 0 workers',
        'test, 320 x 240, deferred, 0 workers',
        'test, 320 x 240, reduced, 0 workers',
    ]
    for entry in passes.values():
        assert entry['episodes_per_second'] == 3 / entry['seconds']['median']


def test_start(run, monkeypatch):
    done = []  # once, for both: what is warm is not told apart here

    def once(job, **args):
        done[:] = done or [here(job, **args)]
        return done[0]

    monkeypatch.setattr(start, 'in_process', once)
    starts = run('start', '--images', 6)['results']['starts']
    for entry in starts.values():
        left_out = ('reading weights', 'imports')
        spent = sum(entry['stages'].get(name, 0.0) for name in left_out)
        assert entry['beyond'] == pytest.approx(entry['seconds'] - spent)
        assert {'building the model', 'class index', 'first episode'} <= set(entry['stages'])
        assert sum(entry['stages'].values()) <= entry['seconds']


def test_runtimes(run, monkeypatch, tmp_path):
    pytest.importorskip('openvino')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(runtimes, 'in_process', here)
    # the light pass takes long to be converted, and has tests of its own
    monkeypatch.setattr(runtimes.Runtimes, 'of_pass', lambda *given: None)
    content = run('runtimes', '--precisions', 'fp32', '--classes', 1)
    results = content['results']
    works = [
        '1-shot episode, cold', '2 1-shot episodes from kept features',
        'a further image, 1 classes', 'training step, batch 1',
    ]  # fmt: skip
    assert list(results['seconds']) == works
    for work in works:
        found = medians(results['seconds'][work])
        assert results['ratios'][work] == {n: found['torch'] / s for n, s in found.items()}
    assert results['apart']['torch'] == 0 < results['apart']['fp32'] < 1e-4
    process = results['processes']['fp32']
    assert process['peak_bytes'] > 0
    assert process['peak_bytes'] >= process['held']['labelled'].get('own', 0)


def test_curves(run, monkeypatch, tmp_path):
    monkeypatch.setattr(curves, 'in_process', here)
    figure = tmp_path / 'curves.png'
    options = ('--shots', 1, 2, '--classes', 1, '--sides', 64, 96, '--batches', 1, 2)
    found = run('curves', *options, '--figure', figure)['results']['curves']
    assert {name: [point['x'] for point in points] for name, points in found.items()} == dict(
        shots=[1, 2], classes=[1], sides=[64, 96], batches=[1, 2]
    )
    assert all(p['peak_bytes'] > 2**20 for points in found.values() for p in points)
    assert figure.read_bytes()[:4] == b'\x89PNG'


def test_profile(run):
    results = run('profile', '--top', 2)['results']
    assert sum(stage['share'] for stage in results['stages'].values()) == pytest.approx(1)
    attention = results['stages']['attention']
    assert len(attention['operators']) == 2
    assert attention['seconds'] == pytest.approx(attention['share'] * results['seconds'])


@pytest.mark.parametrize(
    ('subcommand', 'options', 'message'),
    [
        ('episode', ['--shots', 0], '--shots must be >= 1, got 0'),
        ('episode', ['--repeats', 0], '--repeats must be >= 1, got 0'),
        ('episode', ['--json', '.'], '--json: . cannot be written'),
        ('evaluation', ['--episodes', 0], '--episodes must be >= 1, got 0'),
        ('evaluation', ['--plain-episodes', 0], '--plain-episodes must be >= 1'),
        ('training', ['--batches', 0], '--batches must be >= 1'),
        ('fold', ['--epochs', 0], '--epochs must be >= 1'),
        ('labelling', ['--classes', 0], '--classes and --class-shots must be >= 1'),
        ('loading', ['--workers', -1], '--workers must be >= 0, got [-1]'),
        ('curves', ['--figure', 'a.txt'], '--figure must end in .png, .pdf or .svg'),
        ('profile', ['--top', 0], '--shots and --top must be >= 1'),
    ],
)
def test_bad_options(subcommand, options, message, run, capsys):
    with pytest.raises(SystemExit):
        run(subcommand, *options)
    assert message in capsys.readouterr().err


def test_a_process_that_fails_says_why():
    with pytest.raises(
        ValueError, match="job 'start' ended with status 1: (?s:.*)config no.py not found"
    ):
        in_process('start', threads=1, config='no.py', weights='no.pth')
