"""What the tools set, refuse and warn of before a run: messages name what to do."""

from __future__ import annotations

import pytest
from mmengine.config import Config, ConfigDict

from mmfss.checkpoints.official import WEIGHTS
from mmfss.commands import preparation
from mmfss.commands.preparation import (
    check_start,
    set_resume,
    warn_batch_size,
    warn_schedulers,
)

LOAD_FROM = 'work_dirs/first/fold2/epoch_12.pth'


# ------------------------------------------------------------------------------ checkpoints
def test_missing_start_names_the_file_and_the_command_that_makes_it(tmp_path):
    (tmp_path / 'ablations').mkdir()
    (tmp_path / 'first.py').touch()
    for config in (tmp_path / 'second.py', tmp_path / 'ablations/third.py'):
        with pytest.raises(FileNotFoundError) as error:
            check_start(Config(dict(load_from=LOAD_FROM)), str(config))
        text = str(error.value)
        assert text.startswith(f'{config} starts training from load_from={LOAD_FROM}, which does')
        assert text.endswith(f'FOLD=2 python tools/train.py {tmp_path}/first.py')


@pytest.mark.parametrize('path', [LOAD_FROM, 'mine.pth'])
def test_missing_start_of_unknown_origin(path, tmp_path):
    with pytest.raises(FileNotFoundError, match=f'load_from={path}.* Set load_from to') as error:
        check_start(Config(dict(load_from=path)), str(tmp_path / 'second.py'))
    assert 'FOLD' not in str(error.value)


def test_start_that_is_there_or_elsewhere_passes(tmp_path):
    (tmp_path / 'a.pth').touch()
    for path in (None, str(tmp_path / 'a.pth'), 'https://somewhere/a.pth'):
        check_start(Config(dict(load_from=path)), 'config.py')


def test_official_weights_that_a_training_starts_from_are_asked_for_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv('MMFSS_WEIGHTS', str(tmp_path))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    model = dict(
        type='FSSAM',
        sam2=dict(arch='sam2_small', checkpoint='official'),
        prior_encoder=dict(type='DINOv2', arch='base', checkpoint='official'),
    )
    cfg = Config(dict(load_from=None, model=model))
    with pytest.raises(FileNotFoundError, match='`mmfss weights fetch sam2_small dinov2_base`'):
        check_start(cfg, 'config.py')
    for name in ('sam2_small', 'dinov2_base'):
        (tmp_path / WEIGHTS[name].file).touch()
    check_start(cfg, 'config.py')
    check_start(Config(dict(model=dict(type='FSSAM', sam2=dict(checkpoint=None)))), 'config.py')


@pytest.mark.parametrize('load_from', [True, False])
def test_resume_of_the_config_counts_like_the_option(load_from, tmp_path):
    given, latest = tmp_path / 'given.pth', tmp_path / 'epoch_3.pth'
    given.touch()
    latest.touch()
    (tmp_path / 'last_checkpoint').write_text(str(latest))
    cfg = Config(dict(resume=True, load_from=str(given) if load_from else None))
    cfg.work_dir = str(tmp_path)
    set_resume(cfg, None)
    assert (cfg.resume, cfg.load_from) == (True, str(given if load_from else latest))


def test_no_resume_leaves_the_start_alone():
    cfg = Config(dict(load_from='start.pth'))
    set_resume(cfg, None)
    assert (cfg.resume, cfg.load_from) == (False, 'start.pth')


# ------------------------------------------------------------------------------- schedulers
def poly(end, **entries):
    return dict(dict(type='PolyLR', end=end, by_epoch=True, convert_to_iter_based=True), **entries)


WARM_UP = dict(type='LinearLR', by_epoch=False, end=20)


def warned(capsys, schedulers, **loop):
    warn_schedulers(Config(dict(train_cfg=loop, param_scheduler=schedulers)))
    return capsys.readouterr().out


@pytest.mark.parametrize(
    'schedulers, loop',
    [
        ([WARM_UP, poly(5)], dict(max_epochs=5)),  # 20 iterations are not 20 epochs
        ([poly(5)], dict(type='IterBasedTrainLoop', max_iters=100)),
        ([poly(100, by_epoch=False)], dict(type='IterBasedTrainLoop', max_iters=100)),
        ([poly(3), poly(5, begin=3)], dict(max_epochs=5)),
        ([poly(None)], dict(max_epochs=5)),
        ([poly(9)], dict(type='OtherLoop')),  # no length
        (poly(5), dict(max_epochs=5)),
        (None, dict(max_epochs=5)),
    ],
)
def test_no_warning(schedulers, loop, capsys):
    assert warned(capsys, schedulers, **loop) == ''


def test_decay_beyond_the_end_is_named_with_its_index(capsys):
    text = warned(capsys, [WARM_UP, poly(12)], max_epochs=5)
    assert 'PolyLR decays the learning rate until epoch 12, but training ends at epoch 5' in text
    assert 'set param_scheduler.1.end=5 too' in text


def test_decay_that_ends_early_is_named(capsys):
    text = warned(capsys, poly(5, type='CosineAnnealingLR'), max_epochs=12)
    assert 'until epoch 5; it stays at 0 for the rest, but training ends at epoch 12' in text
    assert 'set param_scheduler.end=12 too' in text


def test_iterations_are_compared_with_iterations(capsys):
    assert 'until iter 50; it' in warned(capsys, [poly(50, by_epoch=False)], max_iters=100)


# ------------------------------------------------------------------------------- batch size
@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(preparation, 'print_log', lambda text, *args, **kwargs: lines.append(text))
    return lines


def batch_warning(log, batch_size, world_size, accumulated=1, **scale):
    cfg = ConfigDict(
        train_dataloader=dict(batch_size=batch_size),
        optim_wrapper=dict(accumulative_counts=accumulated),
        auto_scale_lr=dict(dict(base_batch_size=8), **scale),
    )
    warn_batch_size(cfg, world_size)
    return log.pop() if log else ''


def test_other_number_of_episodes_per_step_is_named_with_the_remedy(log):
    text = batch_warning(log, 8, 4)
    assert 'has 32 episodes (batch_size 8 x 4 processes), but' in text and 'meant for 8' in text
    assert '--cfg-options train_dataloader.batch_size=2' in text
    assert 'auto_scale_lr.enable=True' in batch_warning(log, 8, 3)


@pytest.mark.parametrize('batch, world, accumulated', [(8, 1, 1), (2, 4, 1), (4, 1, 2)])
def test_same_number_of_episodes_per_step_passes(batch, world, accumulated, log):
    assert batch_warning(log, batch, world, accumulated) == ''


def test_scaled_learning_rate_and_configs_without_a_number_pass(log):
    assert batch_warning(log, 8, 4, enable=True) == ''
    assert batch_warning(log, 8, 4, base_batch_size=None) == ''
