"""``benchmark.py gpu`` as a dry run on the CPU: all of it, and what becomes of parts that fail."""

from __future__ import annotations

import json

import pytest
import torch
from benchmark_cases import OPTIONS, write_config
from benchmarks import gpu, gpu_sections
from benchmarks.cli import main
from benchmarks.running import Outcome, difference, fault_of
from tiny_models import TINY_DINO

COMPILED = 'bf16, compiled'


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp('gpu') / 'tiny.py')


@pytest.fixture
def run(config, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda *_, **__: None)  # takes a minute

    def call(*options):
        """The record of the file, and with which words the command ended."""
        file, said = tmp_path / 'gpu.json', None
        more = ['--batch', '2', '--data', str(tmp_path / 'data'), '--json', str(file)]
        try:
            content = main(['gpu', '--config', config, *OPTIONS, *more, *map(str, options)])
        except SystemExit as end:
            said, content = end.code, None
        written = json.loads(file.read_text()) if file.exists() else None
        assert content is None or content == written
        assert not (tmp_path / 'gpu.json.part').exists()
        return written and written['results'], said

    return call


def test_all_sections(run, repo_root, capsys):
    switches = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    results, said = run('--references', repo_root / 'tests/data/parity_small')
    assert said is None and results['failed'] == results['left_out'] == {}
    assert set(gpu_sections.SECTIONS) == set(results['seconds']) <= set(results)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == switches

    for found in results['correctness']['episodes'].values():
        assert found['max_logit_difference'] == found['different_pixels'] == 0 < found['max_logit']
        assert found['episodes'] == 2
    (reference,) = results['correctness']['references'].values()
    assert reference['method'] == 'FSSAM' and reference['outside'] == {}
    assert reference['within'] == reference['stages'] == 49

    peaks = results['machine']['peaks']
    encoders, compiled = results['encoders'], results['compiled']
    works = [f'{n}, batch {b}' for b in (2, 1) for n in ('sam2', 'prior_encoder')]
    assert list(encoders) == list(compiled['encoders']) == works
    everywhere = {'fp32', 'bf16'}
    assert set(encoders['sam2, batch 2']) == {*everywhere, 'bf16, channels first'}
    assert set(encoders['prior_encoder, batch 2']) == everywhere
    for variants in (*encoders.values(), *compiled['encoders'].values()):
        for variant, entry in variants.items():
            speed = entry['batch'] / entry['seconds']['median']
            flops = entry['flops_per_second'] / speed
            assert entry['images_per_second'] == speed and flops > 1e5
            peak = peaks['fp32' if variant == 'fp32' else 'bf16']
            assert entry['share_of_peak'] == pytest.approx(speed * flops / peak)

    works = ['1-shot episode', 'a further image, 1 classes', 'a further image, 5 classes']
    assert list(results['episode']['timed']) == list(compiled['episode']['timed']) == works
    apart = {**results['episode']['apart'], **compiled['episode']['apart']}
    assert set(apart) == {'bf16', 'bf16, channels first', COMPILED}
    assert 0 < apart['bf16']['max_logit_difference'] == apart[COMPILED]['max_logit_difference']
    for section, variants in ((results, everywhere), (compiled, {COMPILED})):
        steps = section['training']['timed']
        assert {w: set(v) for w, v in steps.items()} == {
            f'step, batch {batch}': variants for batch in (1, 4)
        }
    evaluation = results['evaluation']
    ways = ['no cache', 'cold cache', 'warm cache', 'warm cache, batch 2']
    assert list(evaluation['ways']) == ways
    parts = evaluation['ways']['warm cache']['parts']
    read = parts['read + resize'] + parts['feature cache']
    share = evaluation['ways']['warm cache']['reading_share']
    assert share == pytest.approx(read / sum(parts.values())) and 0 < share < 1
    assert evaluation['equal']['1-shot, warm cache and cold cache']['max_logit_difference'] == 0
    assert evaluation['together']['episodes'] == 4

    targets = results['targets']
    assert len(targets) == 5 and {t['reached'] for t in targets} == {None}
    out = capsys.readouterr().out
    assert out.count('no judgement') == 5 and '| share of the bf16 peak, sam2, batch 2 ' in out


def test_what_fails_is_recorded_and_the_rest_goes_on(run, monkeypatch, capsys, tmp_path):
    so_far = []

    def divide(session):
        so_far.append(json.loads((tmp_path / 'gpu.json.part').read_text()))
        return 1 / 0

    def refuse(*_, **__):
        raise RuntimeError('no compiler here')

    monkeypatch.setattr(torch.nn.Module, 'compile', refuse)
    monkeypatch.setitem(gpu_sections.SECTIONS, 'evaluation', divide)
    results, said = run('--only', 'evaluation', 'compiled')
    assert set(results['seconds']) == {'machine', 'evaluation', 'compiled'}
    assert so_far[0]['machine'] == results['machine']
    failed = results['failed']
    assert failed.pop('evaluation') == 'ZeroDivisionError: division by zero'
    assert len(failed) == 4 + 3 + 2 and 'encoders: sam2, batch 2, bf16, compiled' in failed
    assert set(failed.values()) == {'RuntimeError: no compiler here'}
    assert 'evaluation' not in results and results['compiled']['encoders'] == {}
    assert said.startswith('benchmark.py gpu: failed: evaluation, encoders: sam2, batch 2, bf16, ')
    assert 'ZeroDivisionError' in capsys.readouterr().out


def test_what_comes_too_late_is_left_out(run):
    results, said = run('--limit', 0)
    assert list(results['left_out']) == list(gpu_sections.SECTIONS) and results['failed'] == {}
    assert set(results['left_out'].values()) == {'it would have begun after --limit 0 seconds'}
    assert said == f'benchmark.py gpu: left out: {", ".join(gpu_sections.SECTIONS)}'
    assert [t['found'] for t in results['targets']] == [None, None]


def test_a_method_without_sam2_and_without_training(tmp_path):
    encoder = dict(type='DINOv2', arch=TINY_DINO, image_size=70, checkpoint=None)
    model = dict(type='PrototypeMatcher', encoder=encoder, image_size=64)
    model['data_preprocessor'] = dict(type='EpisodeDataPreprocessor')
    config = tmp_path / 'prototype.py'
    config.write_text(f'model = {model!r}\n')
    only = ['--only', 'training', 'correctness', '--batch', '1']
    results = main(['gpu', '--config', str(config), *OPTIONS, *only])['results']
    assert results['training'] == dict(timed={}, not_trained='PrototypeMatcher')
    assert set(results['correctness']['episodes']) == {'fp32', 'bf16'}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--amp'], 'gpu measures with and without --amp, --compile and --channels-last'),
        (['--batch', 0], '--batch must be >= 1, got 0'),
        (['--limit', -1], '--limit must be >= 0, got -1'),
    ],
)
def test_bad_options(run, capsys, options, message):
    assert run(*options) == (None, 2)
    assert message in capsys.readouterr().err


def test_targets():
    shares = {'fp32': 0.9, 'bf16': 0.3, COMPILED: 0.45}
    entries = {v: dict(encoder='sam2', batch=16, share_of_peak=s) for v, s in shares.items()}
    small = {'bf16': dict(encoder='sam2', batch=1, share_of_peak=0.8)}
    reading = {'cold cache': 0.9, 'warm cache': 0.2, 'warm cache, batch 16': 0.6}
    references = {'a': dict(stages=4, within=3), 'b': dict(left_out='it is')}
    found = gpu.targets_of(
        dict(
            encoders={'sam2, batch 1': small, 'sam2, batch 16': entries},
            evaluation=dict(ways={n: dict(reading_share=s) for n, s in reading.items()}),
            correctness=dict(references=references),
        ),
        16,
        on_gpu=True,
    )
    assert [(t['found'], t['by'], t['reached']) for t in found] == [
        (0.45, COMPILED, True),
        (0.2, 'warm cache', False),
        (0.6, 'warm cache, batch 16', True),
        (0.75, 'a', False),
    ]


def test_a_nan_is_a_difference_and_no_number_of_the_record():
    def outcome(*values):
        logits = [torch.full((1, 2, 2), value) for value in values]
        return Outcome(logits=logits, figures=dict(mIoU=1.0), counts=(0,) * len(values))

    nan = float('nan')
    found = difference(outcome(1.0, nan), outcome(1.0, 1.0))
    assert 'logits differ by nan' in fault_of(found)
    assert fault_of(difference(outcome(1.0, 2.0), outcome(1.0, 2.0))) is None
    assert gpu.finite(found)['max_logit_difference'] is None
    assert gpu.finite({'a': [1.5, float('inf')], 'b': 'nan'}) == {'a': [1.5, None], 'b': 'nan'}
