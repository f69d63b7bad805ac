"""Tools that measure on labelled images of a benchmark, from end to end on a few scenes."""

from __future__ import annotations

import sys

import pytest
import tiny_runs

ROOT = tiny_runs.REPO / 'tools/analysis_tools'


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """60 scenes of 64 px; the tools import each other."""
    monkeypatch.setattr(sys, 'path', [str(ROOT), *sys.path])
    for name, value in dict(METHOD='prototype', BENCHMARK='shapes_5i', FOLD='0').items():
        monkeypatch.setenv(name, value)
    folder = tiny_runs.write_shapes(tmp_path / 'shapes', train=1, val=60, size=64)
    monkeypatch.setenv('DATA_ROOT', str(folder))
    return ['--min-area', '60']


@pytest.mark.parametrize('mark', ['look-alike', 'errors'])
def test_what_negatives_gain(shapes, mark, capsys):
    import negatives_gain

    line = [str(tiny_runs.REPO / 'configs/fss.py'), *shapes, '--shots', '1', '--negatives', '1']
    found = negatives_gain.main([*line, '--sets', '1', '--mark', mark, '--cfg-options',
                                 'model.image_size=64'])  # fmt: skip
    assert set(found) == {'1 | K = 1', '1 | K = 1, M = 1', '1 | K = 2'}
    plain, told, _ = found.values()
    assert plain['runs'] == told['runs'] >= 3
    assert told['precision'] > plain['precision'] + 1 and told['recall'] <= plain['recall']
    assert '| K = 1, M = 1 |' in capsys.readouterr().out


def test_object_scores(shapes, capsys):
    import object_scores

    line = [str(tiny_runs.REPO / 'configs/fss.py'), *shapes, '--shots', '1', '--sets', '1']
    line += ['--images', '30']
    found = object_scores.main(line)
    assert 0 < found['threshold'] < 1
    said = capsys.readouterr().out
    assert '| classes | K | images with / without |' in said and '| novel classes | K |' in said


def test_a_second_pass(shapes, capsys):
    import second_pass

    line = [str(tiny_runs.REPO / 'configs/fss.py'), *shapes, '--shots', '1', '--sets', '1']
    found = second_pass.main([*line, '--joined', '1'])
    assert set(found) == {'1 | first pass', '1 | 1 joined', '1 | 1 joined, true masks'}
    assert found['1 | first pass']['gain'] == [0, 0]
    for one in found.values():
        fixed, best = one['miou']
        assert 0 < fixed <= best < 100
    assert '| 1 | 5 | 1 joined |' in capsys.readouterr().out
