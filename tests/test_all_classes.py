"""FOLD=all: a training on every class, for labelling, that no evaluation of these classes takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from config_cases import LOADERS, load, write_prepared
from mmengine.runner import CheckpointLoader
from mmseg.registry import DATASETS
from PIL import Image
from tiny_runs import write_config, write_shapes

from mmfss.checkpoints.record import check_checkpoint, describe_run
from mmfss.commands import train as launch
from mmfss.commands.command_lines import DemoArguments, Request, TrainArguments
from mmfss.commands.demo import run as demo
from mmfss.commands.label import label
from mmfss.commands.test import evaluate
from mmfss.datasets.classes import COCO_CLASSES, SHAPES_CLASSES
from mmfss.datasets.folds import FoldSplit, get_split
from mmfss.datasets.shapes import render_sample

ARCH = dict(type='FSSAM')
SHORT = {'train_cfg.max_epochs': 1, 'val_dataloader.dataset.split': 'base'}


pytestmark = pytest.mark.usefixtures('no_variables')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config and checkpoint of a training of two iterations."""
    root = tmp_path_factory.mktemp('all_classes')
    config = write_config(root / 'of_all_classes.py', write_shapes(root / 'shapes'))
    work_dir = str(root / 'run')
    runner = launch.run(TrainArguments(config, fold='all', work_dir=work_dir, cfg_options=SHORT))
    episodes = runner.train_dataloader.dataset
    seen = {episodes.episode(i).class_id for i in range(200)}
    assert len(seen - set(get_split('shapes-5i', 0).base)) > 2  # classes that fold 0 holds out
    return config, root / 'run/epoch_1.pth'


def test_the_checkpoint_says_what_it_has_seen(trained):
    meta = CheckpointLoader.load_checkpoint(str(trained[1]), map_location='cpu')['meta']['mmfss']
    assert (meta['benchmark'], meta['fold'], meta['novel_classes']) == ('shapes-5i', 'all', [])
    assert meta['trained_classes'] == sorted(SHAPES_CLASSES)
    assert meta['selection']['rule'] == 'base'


@pytest.mark.parametrize('fold', range(4))
def test_no_fold_takes_it_for_a_test(trained, fold, tmp_path):
    config, checkpoint = trained
    with pytest.raises(ValueError) as error:
        evaluate(Request(config, [str(checkpoint)], fold=str(fold), work_dir=str(tmp_path)))
    text = str(error.value)
    assert 'epoch_1.pth was trained on all classes of shapes-5i, and its classes (' in text
    novel = ', '.join(get_split('shapes-5i', fold).novel_names)
    assert f'include novel classes of shapes-5i fold {fold} ({novel}): {novel}. ' in text
    assert f'It is for labelling: mmfss label --config CONFIG --weights FILE. For figures use a ' \
        f'checkpoint that was trained on fold {fold}' in text  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_figures_of_trained_classes_are_no_way_around(trained, tmp_path):
    options = {
        'test_dataloader.dataset.split': 'base',
        'default_hooks.fold_guard.allow_trained': True,
    }
    config, checkpoint = trained
    with pytest.raises(ValueError, match='include novel classes of shapes-5i fold 1'):
        request = Request(config, [str(checkpoint)], fold='1', cfg_options=options)
        evaluate(request)
    with pytest.raises(ValueError, match='FOLD=all holds no class out to test on: a model of all'):
        evaluate(Request(config, [str(checkpoint)], fold='all', cfg_options=options))


def test_label_takes_it(trained, tmp_path):
    config, checkpoint = trained
    for name in ('support/shape', 'images'):
        (tmp_path / name).mkdir(parents=True)
    image, mask = render_sample(0, 'train', 0, 64)
    Image.fromarray(image).save(tmp_path / 'support/shape/a.jpg')
    Image.fromarray(((mask > 0) * 255).astype(np.uint8)).save(tmp_path / 'support/shape/a.png')
    Image.fromarray(image).save(tmp_path / 'images/b.jpg')
    paths = [str(tmp_path / name) for name in ('support', 'images', 'out')]
    assert label([*paths, '--config', config, '--weights', str(checkpoint)]) == 0
    assert [p.name for p in Path(tmp_path / 'out/ann_dir').iterdir()] == ['b.png']


def test_what_may_start_from_what():
    whole, fold = get_split('coco-20i', 'all'), get_split('coco-20i', 0)
    assert whole.names('base') == COCO_CLASSES and whole.novel == whole.held_out('base') == ()
    assert FoldSplit.from_dict(whole.to_dict()) == whole
    of_all = describe_run(whole, 'base', 1, ARCH, set())
    of_fold = describe_run(fold, 'base', 1, ARCH, set())
    check_checkpoint(of_fold, whole, ARCH, resume=False)
    check_checkpoint(of_all, whole, ARCH, resume=True)
    with pytest.raises(ValueError, match='is of coco-20i fold 0; its training cannot be resumed'):
        check_checkpoint(of_fold, whole, ARCH, resume=True)
    for resume in (False, True):
        with pytest.raises(ValueError, match='was trained on all classes of coco-20i, and its cla'):
            check_checkpoint(of_all, fold, ARCH, resume)
    # classes are known by their names: COCO has all of PASCAL's
    with pytest.raises(
        ValueError, match=r'of pascal-5i fold 0 \(aeroplane, bicycle, bird, boat, b'
    ):
        check_checkpoint(of_all, get_split('pascal-5i', 0), ARCH, resume=False)
    check_checkpoint(of_all, get_split('shapes-5i', 0), ARCH, resume=False, tested=True)


@pytest.mark.parametrize('name', ['fss_sam2_pascal_1shot', 'sansa_coco_1shot', 'prepared'])
def test_configs_train_and_choose_on_all_classes(name, tmp_path, monkeypatch):
    monkeypatch.setenv('FOLD', 'all')
    if name == 'prepared':
        name = 'fss_sam2_prepared_1shot'
        monkeypatch.setenv('DATA_ROOT', write_prepared(tmp_path / 'mine'))
    cfg = load(f'{name}.py')
    assert cfg.work_dir.endswith('/foldall')
    assert [cfg[key].dataset.split for key in LOADERS] == ['base', 'base', 'novel']
    monkeypatch.setenv('SELECTION', 'held_out')  # chosen on a fifth of the classes, if asked for
    cfg = load(f'{name}.py')
    assert [cfg[key].dataset.split for key in LOADERS] == ['base_train', 'base_val', 'novel']


def test_nothing_is_chosen_on_novel_classes(monkeypatch):
    monkeypatch.setenv('FOLD', 'all')
    monkeypatch.setenv('SELECTION', 'novel')
    episodes = load('fss_sam2_pascal_1shot.py').val_dataloader.dataset
    with pytest.raises(
        ValueError, match='FOLD=all holds no class of pascal-5i out: there is nothi'
    ):
        DATASETS.build(episodes)


def test_the_demo_needs_a_fold(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('FOLD', 'all')
    with pytest.raises(ValueError, match='the demo tests on classes that it held out: FOLD=0..3'):
        demo(DemoArguments())
    assert not list(tmp_path.iterdir())
