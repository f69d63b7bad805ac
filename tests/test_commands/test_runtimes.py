"""Options about what runs the encoders: what they make of a config, and what they refuse."""

from __future__ import annotations

import shutil

import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from tiny_runs import write_config, write_shapes

from mmfss.commands.command_lines import RunArguments, TableArguments, parse
from mmfss.commands.runtimes import set_runtime
from mmfss.commands.table import command_of, read_entry


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.delenv('MMFSS_RUNTIME', raising=False)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes', train=12, val=12)


@pytest.fixture
def cfg(tmp_path, shapes, monkeypatch):
    monkeypatch.delenv('FOLD', raising=False)
    return Config.fromfile(write_config(tmp_path / 'runtimes_cfg.py', shapes))


def given(**options) -> RunArguments:
    return RunArguments('cfg.py', **options)


def test_options_go_into_the_model(cfg):
    set_runtime(cfg, given())
    assert 'encoder_runtime' not in cfg.model
    set_runtime(cfg, given(runtime='openvino', precision='bf16'))
    assert cfg.model.encoder_runtime == dict(type='openvino', precision='bf16')
    set_runtime(cfg, given(runtime='torch'))
    assert cfg.model.encoder_runtime == dict(type='torch')


def test_int8_is_fitted_to_images_of_training_classes(cfg, shapes):
    set_runtime(cfg, given(precision='int8', calibration='base'))
    photos = cfg.model.encoder_runtime['calibration']
    assert photos and len(set(photos)) == len(photos)
    assert {p.rpartition('/')[2].partition('_')[0] for p in photos} == {'train'}
    set_runtime(cfg, given())  # a list in a config is looked at too
    assert cfg.model.encoder_runtime['calibration'] == photos


def test_photos_of_novel_classes_are_refused(cfg, shapes, tmp_path):
    folder = tmp_path / 'photos'
    folder.mkdir()
    for name in ('train_00000', 'train_00001'):
        shutil.copy(shapes / f'JPEGImages/{name}.png', folder)
    set_runtime(cfg, given(precision='int8', calibration=str(folder)))
    assert len(cfg.model.encoder_runtime['calibration']) == 2
    novel = DATASETS.build(cfg.test_dataloader.dataset).pool_files[0]
    shutil.copy(novel, folder / 'another_name.png')
    with pytest.raises(ValueError, match=r'another_name\.png are among the images of novel cl'):
        set_runtime(cfg, given(precision='int8', calibration=str(folder)))
    cfg.model.encoder_runtime = dict(precision='int8', calibration=[novel])
    with pytest.raises(ValueError, match='novel classes'):
        set_runtime(cfg, given())


def test_what_cannot_be_done_is_refused(cfg, tmp_path):
    with pytest.raises(FileNotFoundError):
        set_runtime(cfg, given(precision='int8', calibration=str(tmp_path / 'none')))
    with pytest.raises(ValueError, match='--calibration FOLDER'):
        set_runtime(cfg, given(precision='int8'))
    cfg.pop('train_dataloader')
    with pytest.raises(ValueError, match='has no train_dataloader'):
        set_runtime(cfg, given(precision='int8', calibration='base'))
    cfg.model = dict(type='EncoderDecoder')
    with pytest.raises(ValueError, match='EncoderDecoder has no encoder_runtime'):
        set_runtime(cfg, given(runtime='openvino'))


def test_a_table_tests_all_its_methods_by_it(tmp_path):
    argv = f'c.py a b --out {tmp_path} --precision int8 --calibration base --runtime openvino'
    args = parse(TableArguments, argv.split())
    words = ' '.join(command_of(args, read_entry('a')))
    assert '--runtime openvino --precision int8 --calibration base' in words
