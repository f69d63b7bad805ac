"""METHOD, BENCHMARK, SHOTS and others, from the environment and as options of the tools."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
from config_cases import CONFIGS, VARIABLES, load
from mmengine.config import Config
from tiny_runs import write_shapes

from mmfss.commands import freeze_episodes as freezing
from mmfss.commands import test as testing
from mmfss.commands.command_lines import ConfigArguments
from mmfss.commands.train import train
from mmfss.commands.variables import check_values, check_variables, options_in_environment
from mmfss.datasets.folds import get_split

METHODS = re.escape(str(sorted(p.stem for p in (CONFIGS / '_base_/methods').glob('*.py'))))
FSS = str(CONFIGS / 'fss.py')


pytestmark = pytest.mark.usefixtures('no_variables')


@pytest.mark.parametrize(
    'name, value, message',
    [
        ('METHOD', 'protonet', rf"METHOD must be one of {METHODS} \(- is taken for _\), got 'pro"),
        ('METHOD', 'small/fssam', rf"METHOD must be one of {METHODS} .* got 'small/fssam'"),
        ('METHOD', '', rf"METHOD must be one of {METHODS} .* got ''"),
        ('BENCHMARK', 'pascal', r"BENCHMARK must be one of \['coco_20i', 'coco_20i_contiguous', "),
        ('BENCHMARK', 'data/mine', r"'shapes_5i'\] \(- is taken for _\), got 'data/mine'"),
        ('SHOTS', '0', "SHOTS must be a number of supports, 1 or more, got '0'"),
        ('SHOTS', 'five', "SHOTS must be a number of supports, 1 or more, got 'five'"),
        ('SELECTION', 'best', r"SELECTION must be one of \['base', 'both', .*\], got 'best'"),
        ('SAM2', 'small', r"SAM2 must be one of \['sam2.1_base_plus', .*\], got 'small'"),
    ],
)
def test_wrong_values_are_answered_with_the_allowed_ones(name, value, message, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        load('fss.py')


@pytest.mark.parametrize(
    'name, value, has',
    [
        ('METHOD', 'prototype', "'FSSAM'"),
        ('BENCHMARK', 'shapes_5i', "'pascal-5i'"),
        ('SHOTS', '1', '5'),
    ],
)
def test_a_config_that_reads_no_such_variable(name, value, has, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(
        ValueError,
        match=rf'{name}={value} is set, but this config does not read {name} \(it has {has}\). '
        f'Unset {name}, or use a config that does; see configs/fss.py',
    ):
        load('fss_sam2_pascal_5shot.py')


def test_a_config_of_coco_takes_no_other_benchmark(monkeypatch):
    monkeypatch.setenv('BENCHMARK', 'pascal_5i')
    with pytest.raises(ValueError, match=r"does not read BENCHMARK \(it has 'coco-20i'\)"):
        load('fss_sam2_coco_1shot.py')


@pytest.mark.parametrize('value', ['coco-20i-contiguous', 'coco_20i_contiguous'])
def test_both_spellings_are_one_benchmark(value, monkeypatch):
    monkeypatch.setenv('METHOD', 'all-foreground')
    monkeypatch.setenv('BENCHMARK', value)
    cfg = load('fss.py')
    assert cfg.test_dataloader.dataset.benchmark == 'coco-20i-contiguous'
    assert cfg.model.type == 'AllForeground'
    assert cfg.work_dir == 'work_dirs/fss_all_foreground_coco-20i-contiguous/fold0'
    monkeypatch.delenv('METHOD')
    assert load('fss_sam2_coco_5shot.py').work_dir == (
        'work_dirs/fss_sam2_coco_5shot_coco-20i-contiguous/fold0'
    )


def test_all_variables_are_in_the_work_dir(monkeypatch):
    given = dict(
        METHOD='fssam',
        SAM2='sam2_large',
        BENCHMARK='coco_20i',
        SHOTS='5',
        SELECTION='novel',
        NOVEL_IMAGES='kept',
        FOLD='3',
    )
    assert set(given) == {*VARIABLES} - {'DATA_ROOT'}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    name = 'fss_fssam_sam2_large_coco-20i_5shot_novel_novel_images_kept'
    assert load('fss.py').work_dir == f'work_dirs/{name}/fold3'


def test_names_are_those_beside_the_config(tmp_path, monkeypatch):
    """A copy of the configs with a method and a prepared dataset of its own."""
    shutil.copytree(CONFIGS, tmp_path / 'own')
    bases = tmp_path / 'own/_base_'
    shutil.copy(bases / 'methods/prototype.py', bases / 'methods/mine.py')
    (bases / 'benchmarks/birds.py').write_text("_base_ = 'prepared.py'\n")
    path = tmp_path / 'own/fss.py'
    monkeypatch.setenv('METHOD', 'mine')
    monkeypatch.setenv('BENCHMARK', 'birds')
    check_values(path)
    assert check_variables(Config.fromfile(path)) == ['mine', 'birds']
    with pytest.raises(ValueError, match="METHOD must be one of .* got 'mine'"):
        check_values(FSS)
    with pytest.raises(ValueError, match="METHOD must be one of .* got 'mine'"):
        check_values(tmp_path / 'elsewhere.py')  # the shipped ones


# ------------------------------------------------------------------------------------ options
def test_options_are_in_the_environment_until_the_end(monkeypatch):
    monkeypatch.setenv('FOLD', '3')
    monkeypatch.setenv('BENCHMARK', 'coco_20i')
    arguments = ConfigArguments('x', method='prototype', fold='1')
    with pytest.raises(KeyError), options_in_environment(arguments):
        assert [os.environ.get(name) for name in ('METHOD', 'BENCHMARK', 'FOLD')] == [
            'prototype',
            'coco_20i',
            '1',
        ]
        raise KeyError
    assert (os.environ['FOLD'], os.environ['BENCHMARK']) == ('3', 'coco_20i')
    assert 'METHOD' not in os.environ


@pytest.mark.parametrize('tool, rest', [(train, []), (testing.main, ['x.pth'])])
def test_options_are_checked_as_the_variables(tool, rest):
    for option, value in (('method', 'protonet'), ('benchmark', 'pascal'), ('fold', 'one')):
        with pytest.raises(ValueError, match=f"{option.upper()} must be .* got '{value}'"):
            tool([FSS, *rest, f'--{option}', value])
        assert option.upper() not in os.environ
    with pytest.raises(
        ValueError, match=r"fold of 'pascal-5i' must be an integer in 0..3, got '7'"
    ):
        tool([FSS, *rest, '--fold', '7'])


def test_fold_and_folds():
    with pytest.raises(ValueError, match='--fold 1 and --folds are both given; give one of them'):
        testing.main([FSS, 'x.pth', '--fold', '1', '--folds', '0', '1'])


def test_options_choose_what_is_frozen(tmp_path, monkeypatch):
    monkeypatch.setenv('DATA_ROOT', str(write_shapes(tmp_path / 'shapes', size=128)))
    monkeypatch.setenv('FOLD', '0')
    point = ['--method', 'all_foreground', '--benchmark', 'shapes_5i', '--fold', '1']
    options = ['test_dataloader.dataset.scarce_classes=drop']
    options += ['test_dataloader.dataset.class_index_file=None']
    file = tmp_path / 'episodes.json'
    (name,) = freezing.main(
        [FSS, str(file), *point, '--episodes', '6', '--shots', '2', '--cfg-options', *options]
    )
    content = json.loads(file.read_text())
    assert (name, content['fold'], len(content['episodes'])) == (str(file), 1, 6)
    assert {row[0] for row in content['episodes']} <= set(get_split('shapes-5i', 1).novel)
    assert os.environ['FOLD'] == '0' and 'METHOD' not in os.environ
