"""tools/freeze_episodes.py, and a test on what it wrote."""

from __future__ import annotations

import json

import pytest
from tiny_runs import write_config, write_shapes

from mmfss.commands import freeze_episodes as freezing
from mmfss.commands.command_lines import Request
from mmfss.commands.evaluation_plan import read_configs
from mmfss.datasets.folds import get_split


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp('freeze')
    return write_config(root / 'freeze_shapes.py', write_shapes(root / 'shapes'))


def test_a_file_per_fold_and_shots(config, tmp_path):
    pattern = str(tmp_path / 'fold{fold}_{shots}.json')
    args = ['--folds', '0', '1', '--shots', '1', '2', '--episodes', '8', '--seed', '3']
    written = freezing.main([config, pattern, *args, '--sampler', 'balanced'])
    assert sorted(written) == sorted(
        str(tmp_path / f'fold{fold}_{shots}.json') for fold in (0, 1) for shots in (1, 2)
    )
    for fold in (0, 1):
        content = json.loads((tmp_path / f'fold{fold}_2.json').read_text())
        assert (content['fold'], content['shots'], len(content['episodes'])) == (fold, 2, 8)
        assert content['protocol']['sampler'] == 'balanced' and content['protocol']['seed'] == 3
        assert {row[0] for row in content['episodes']} <= set(get_split('shapes-5i', fold).novel)


def test_one_name_for_several_files_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match=r'2 sets of episodes .* put \{fold\} and \{shots\}'):
        freezing.main([config, str(tmp_path / 'all.json'), '--folds', '0', '1'])
    assert not list(tmp_path.iterdir())


def test_fold_of_the_environment(config, tmp_path, monkeypatch):
    monkeypatch.setenv('FOLD', '1')
    (path,) = freezing.main([config, str(tmp_path / 'e.json')])
    content = json.loads((tmp_path / 'e.json').read_text())
    assert path == str(tmp_path / 'e.json') and content['fold'] == 1
    assert len(content['episodes']) == 5  # of the config


def test_test_with_a_file_per_seed(config, tmp_path):
    """What one tool writes to {fold}, {shots} and {seed}, the other reads from there."""
    name = str(tmp_path / 'fold{fold}_{shots}_{seed}.json')
    for seed in ('0', '1'):
        freezing.main([config, name, '--folds', '0', '1', '--episodes', '4', '--seed', seed])
    request = Request(
        config=config,
        checkpoints=[],
        folds=[0, 1],
        seeds=[0, 1],
        cfg_options={'test_dataloader.dataset.episodes_file': name},
    )
    assert list(read_configs(request)) == [0, 1]
