"""Checkpoints of the trained weights alone: small, and the whole model again at every door."""

from __future__ import annotations

import os
import shutil

import pytest
import segmentor_cases
import torch
from mmengine.config import Config
from mmseg.apis import init_model
from mmseg.registry import MODELS
from tiny_runs import write_config, write_shapes
from torch import nn

from mmfss.apis.loading import load_model
from mmfss.checkpoints.trained_only import BASE
from mmfss.checkpoints.weights import check_state_dict
from mmfss.commands import test as testing
from mmfss.commands.train import train

OPTION = 'default_hooks.checkpoint.trained_only=True'
LEARNS = 'sam2.memory_encoder.'


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    """Config and options of a run that starts from files of weights."""
    folder = tmp_path_factory.mktemp('trained_only')
    config = write_config(folder / 'trained_only.py', write_shapes(folder / 'shapes'))
    torch.manual_seed(3)
    model = MODELS.build(Config.fromfile(config).model)
    torch.save({'model': model.sam2.state_dict()}, folder / 'sam2.pth')
    torch.save(model.prior_encoder.vit.state_dict(), folder / 'dino.pth')
    return config, [
        f'model.sam2.checkpoint={folder}/sam2.pth',
        f'model.prior_encoder.checkpoint={folder}/dino.pth',
        f"model.trainable=['{LEARNS[:-1]}']",
        'val_cfg=None', 'val_dataloader=None', 'val_evaluator=None',
    ]  # fmt: skip


def run(base, folder, *options, epochs=2, resume=False):
    config, common = base
    more = ['--resume'] if resume else []
    return train([config, '--work-dir', str(folder), *more, '--cfg-options', *common,
                  f'train_cfg.max_epochs={epochs}', *options])  # fmt: skip


def figures_of(base, path, folder, options):
    """Figures of a checkpoint."""
    argv = [base[0], str(path), '--work-dir', str(folder), '--cfg-options', *options]
    return testing.main(argv).runs[0].metrics


def content(folder, epoch=2):
    return torch.load(folder / f'epoch_{epoch}.pth', weights_only=False)


@pytest.fixture(scope='module')
def small(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp('small')
    run(base, folder, OPTION)
    return folder


@pytest.fixture(scope='module')
def whole(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    run(base, folder)
    return folder


def test_the_file_has_what_is_trained_and_a_digest(small, whole):
    mine, all_of_it = content(small)['state_dict'], content(whole)['state_dict']
    assert set(mine) == {key for key in all_of_it if key.startswith(LEARNS)} | {BASE}
    assert all(torch.equal(mine[key], all_of_it[key]) for key in mine if key != BASE)
    sizes = [os.path.getsize(folder / 'epoch_2.pth') for folder in (small, whole)]
    assert sizes[0] < 0.5 * sizes[1]


def test_every_door_has_the_whole_model_again(base, small, whole, tmp_path):
    config, options = base
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(
        {key: value for key, _, value in (o.partition('=') for o in options[:2])}
        | {'model.trainable': [LEARNS[:-1]]}
    )
    expected = content(whole)['state_dict']
    inferred = load_model(cfg, small / 'epoch_2.pth', 'cpu')
    own = {key: value for key, value in cfg.model.items() if key != 'data_preprocessor'}
    support = segmentor_cases.support(tmp_path / 'support')
    held = dict(type='FewShotSegmentor', model=own, support=support, threshold=0.0)
    inside = init_model(Config(dict(model=held, default_scope='mmseg')),
                        str(small / 'epoch_2.pth'), 'cpu').model  # fmt: skip
    for model in (inferred, inside):
        check_state_dict(expected, model.state_dict(), 'test')
        assert all(torch.equal(value, expected[k]) for k, value in model.state_dict().items())
    figures = [figures_of(base, folder / 'epoch_2.pth', tmp_path / folder.name, options[:3])
               for folder in (small, whole)]  # fmt: skip
    assert figures[0] == figures[1]


def test_a_run_may_go_on_with_whole_ones(base, small, whole, tmp_path):
    shutil.copytree(small, tmp_path / 'run')
    run(base, tmp_path / 'run', epochs=3, resume=True)
    state, before = content(tmp_path / 'run', 3)['state_dict'], content(whole)['state_dict']
    assert set(state) == set(before)
    frozen = [key for key in state if not key.startswith(LEARNS)]
    assert all(torch.equal(state[key], before[key]) for key in frozen)


def test_another_base_is_refused(base, small, tmp_path):
    config, options = base
    torch.manual_seed(4)
    other = MODELS.build(Config.fromfile(config).model).sam2
    torch.save({'model': other.state_dict()}, tmp_path / 'other.pth')
    changed = [f'model.sam2.checkpoint={tmp_path}/other.pth', *options[1:3]]
    message = (
        r'epoch_2.pth holds the \d+ trained tensors alone, and the other \d+ of this model are not '
        r'those that it was trained beside .*Set the checkpoint of each encoder'
    )
    with pytest.raises(ValueError, match=message):
        figures_of(base, small / 'epoch_2.pth', tmp_path, changed)
    gone = [f'model.sam2.checkpoint={tmp_path}/gone.pth', *options[1:3]]
    with pytest.raises(FileNotFoundError, match='gone.pth'):
        figures_of(base, small / 'epoch_2.pth', tmp_path, gone)


def test_frozen_weights_that_could_not_be_had_again_are_not_left_out(base, whole, tmp_path):
    message = r'leaves out the frozen weights of sam2, which are random \(model.sam2.checkpoint=N'
    with pytest.raises(ValueError, match=message):
        run(base, tmp_path / 'a', OPTION, 'model.sam2.checkpoint=None')
    moved = content(whole)
    moved['state_dict']['sam2.no_mem_embed'] += 1
    torch.save(moved, tmp_path / 'moved.pth')
    with pytest.raises(ValueError, match=r'those of .*moved.pth are not those of the encoders'):
        run(base, tmp_path / 'b', OPTION, f'load_from={tmp_path}/moved.pth')
    run(base, tmp_path / 'c', OPTION, f'load_from={whole}/epoch_2.pth', epochs=1)
    with pytest.raises(ValueError, match="trained_only must be True or False, got 'yes'"):
        run(base, tmp_path / 'd', 'default_hooks.checkpoint.trained_only=yes')


def test_buffers_of_what_learns_are_kept(base):
    model = MODELS.build(Config.fromfile(base[0]).model)
    model.extra = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.set_trainable(['extra'])
    assert model.trained_names() == {f'extra.{name}' for name in model.extra.state_dict()}
