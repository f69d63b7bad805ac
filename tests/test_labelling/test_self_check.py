"""The self-check before a run: its lines, its thresholds, what is recorded, and going on."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from mmfss.apis import FewShotInferencer
from mmfss.commands.label import label
from mmfss.labelling.folder import known_check


@pytest.fixture
def arguments(case, tmp_path):
    """A command line without a threshold, of supports that give both classes one."""
    inferencer = FewShotInferencer(case.config, case.weights, 'cpu')
    inferencer.load_support(case.support)
    rng = np.random.default_rng(0)
    shots: dict[str, list] = {'disc': [], 'slab': []}
    for i in range(6):
        image = rng.integers(0, 120, (48, 64, 3)).astype(np.uint8)
        mask = np.zeros((48, 64), bool)
        mask[8 + i : 34, 10 : 40 + 4 * i] = True
        image[mask] = (200, 60, 20) if i % 2 else (30, 60, 210)
        shots[('disc', 'slab')[i % 2]].append((image, mask))
    inferencer.set_support(shots)
    inferencer.save_support(tmp_path / 'support.safetensors')

    def make(out, *more: str) -> list[str]:
        given = [tmp_path / 'support.safetensors', case.images, out, '--config', case.config]
        return [str(one) for one in (*given, '--weights', case.weights, '--device', 'cpu', *more)]

    make.inferencer = inferencer
    return make


def run_of(out) -> dict:
    return json.loads((out / 'run.json').read_text())


def test_a_line_per_class_and_its_thresholds(arguments, tmp_path, capsys):
    out, inferencer = tmp_path / 'out', arguments.inferencer
    found = inferencer.check()
    assert label(arguments(out)) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith(('disc:', 'slab:'))] == found.lines()
    run = run_of(out)
    assert run['info']['self_check'] == json.loads(json.dumps(found.record()))
    thresholds = found.thresholds(inferencer.threshold)
    assert any(one.threshold is not None for one in found.classes)
    assert run['settings']['thresholds'] == pytest.approx(list(thresholds.values()), abs=1e-6)


def test_given_thresholds_count_and_it_can_be_left_out(arguments, tmp_path, capsys):
    found = arguments.inferencer.check().thresholds(0.5)
    assert label(arguments(tmp_path / 'one', '--threshold', 'slab=0.25')) == 0
    expected = [found['disc'], 0.25]
    assert run_of(tmp_path / 'one')['settings']['thresholds'] == pytest.approx(expected, abs=1e-6)
    capsys.readouterr()
    assert label(arguments(tmp_path / 'none', '--no-self-check')) == 0
    run = run_of(tmp_path / 'none')
    assert run['settings']['thresholds'] == [0.5, 0.5] and 'self_check' not in run['info']
    assert 'disc:' not in capsys.readouterr().err


def test_a_run_that_goes_on_has_the_same_thresholds(arguments, tmp_path, files_of, monkeypatch):
    whole, part = tmp_path / 'whole', tmp_path / 'part'
    assert label(arguments(whole)) == 0
    shutil.copytree(whole, part)
    for path in sorted(part.glob('ann_dir/**/*.png'))[:4]:
        path.unlink()

    def fail(*args, **kwargs):
        raise AssertionError('checked again')

    monkeypatch.setattr(FewShotInferencer, 'check', fail)
    assert label(arguments(part)) == 0
    assert files_of(part) == files_of(whole)


def test_a_check_of_other_supports_does_not_count(arguments, tmp_path):
    out = tmp_path / 'out'
    assert known_check(out, 'x') is None
    assert label(arguments(out)) == 0
    digest = run_of(out)['settings']['support']
    assert known_check(out, digest) == run_of(out)['info']['self_check']
    assert known_check(out, 'x') is None
    (out / 'run.json').write_text('{')
    assert known_check(out, digest) is None
