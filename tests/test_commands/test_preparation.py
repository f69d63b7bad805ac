"""What the tools set, refuse and warn of before a run: messages name what to do."""

from __future__ import annotations

import os

import pytest
import torch
from mmengine.config import Config, ConfigDict

from mmfss.checkpoints import patterns
from mmfss.checkpoints.official import WEIGHTS
from mmfss.commands import preparation
from mmfss.commands.preparation import (
    check_start,
    say_left_out,
    set_guards,
    set_resume,
    warn_batch_size,
    warn_schedulers,
)
from mmfss.datasets.account import Account, Reason

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
    torch.save({}, latest)
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


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(preparation, 'print_log', lambda text, *args, **kwargs: lines.append(text))
    return lines


def warned(log, schedulers, iterations=20, **loop):
    warn_schedulers(Config(dict(train_cfg=loop, param_scheduler=schedulers)), iterations)
    return '\n'.join(log)


@pytest.mark.parametrize(
    'schedulers, loop',
    [
        ([WARM_UP, poly(5)], dict(max_epochs=5)),  # 20 iterations are not 20 epochs
        ([poly(5)], dict(type='IterBasedTrainLoop', max_iters=100)),
        ([poly(100, by_epoch=False)], dict(max_epochs=5)),  # of 20 iterations
        ([WARM_UP, poly(100, by_epoch=False, begin=20)], dict(max_epochs=5)),
        ([poly(100, by_epoch=False)], dict(type='IterBasedTrainLoop', max_iters=100)),
        ([poly(3), poly(5, begin=3)], dict(max_epochs=5)),
        ([poly(None)], dict(max_epochs=5)),
        ([poly(9)], dict(type='OtherLoop')),  # no length
        (poly(5), dict(max_epochs=5)),
        (None, dict(max_epochs=5)),
    ],
)
def test_no_warning(schedulers, loop, log):
    assert warned(log, schedulers, **loop) == ''


def test_decay_beyond_the_end_is_named_with_its_index(log):
    text = warned(log, [WARM_UP, poly(12)], max_epochs=5)
    assert 'PolyLR decays the learning rate until epoch 12, but training ends at epoch 5' in text
    assert 'set param_scheduler.1.end=5 too' in text


def test_decay_that_ends_early_is_named(log):
    text = warned(log, poly(5, type='CosineAnnealingLR'), max_epochs=12)
    assert 'until epoch 5; it stays at 0 for the rest, but training ends at epoch 12' in text
    assert 'set param_scheduler.end=12 too' in text


def test_iterations_are_compared_with_iterations(log):
    assert 'until iter 50; it' in warned(log, [poly(50, by_epoch=False)], max_iters=100)


def test_iterations_are_compared_with_epochs_by_their_length(log):
    text = warned(log, poly(40, by_epoch=False), max_epochs=6)
    assert 'until iter 40; it stays at 0 for the rest, but training ends at iter 120' in text
    assert 'set param_scheduler.end=120 too' in text
    text = warned(log, [poly(2)], max_iters=90)
    assert 'until epoch 2; it stays at 0' in text and 'set param_scheduler.0.end=5 too' in text


# ------------------------------------------------------------------------ what was left out
def test_what_was_left_out_of_a_dataset_is_said(log, tmp_path):
    account = Account()
    account.add(Reason('box without an outline, left out'), 'oak', 'annotation 3', 'a.json')
    account.write(tmp_path)
    loader = dict(dataset=dict(benchmark=str(tmp_path), fold=0))
    builtin = dict(dataset=dict(benchmark='pascal-5i', fold=0))
    say_left_out([Config(dict(train_dataloader=loader, test_dataloader=builtin))] * 2)
    (text,) = log
    assert text.splitlines()[0] == f'left out of {tmp_path} when it was prepared:'
    assert 'box without an outline' in text and text.endswith(f'all of it: {tmp_path}/left_out.csv')
    (tmp_path / 'left_out.csv').write_text('a,b\n1,2\n')
    say_left_out([Config(dict(train_dataloader=loader))])
    assert 'is not known' in log[1] and 'must have the columns' in log[1]


# ------------------------------------------------------------------------------- the work folder
def work_folder(path, *names, noted=None):
    path.mkdir(parents=True)
    for name in names:
        torch.save({'state_dict': {'w': torch.arange(9.0)}}, path / name)
    if noted is not None:
        (path / 'last_checkpoint').write_text(str(noted))
    return path


def resumed(path, **hooks):
    cfg = Config(dict(work_dir=str(path), default_hooks=hooks))
    set_resume(cfg, 'auto')
    return cfg.load_from if cfg.resume else None


def test_copied_or_moved_folder_goes_on_with_its_own_files(tmp_path):
    old = work_folder(tmp_path / 'old', 'epoch_2.pth')
    for noted in (old / 'epoch_2.pth', '/gone/run/epoch_2.pth', r'C:\run\epoch_2.pth',
                  'work_dirs/run/epoch_2.pth\n'):  # fmt: skip
        new = tmp_path / f'new{len(list(tmp_path.iterdir()))}'
        work_folder(new, 'epoch_2.pth', 'epoch_3.pth', noted=noted)
        assert resumed(new) == str(new / 'epoch_2.pth')


def test_checkpoint_of_another_folder_is_not_taken(tmp_path):
    old = work_folder(tmp_path / 'old', 'epoch_2.pth')
    new = work_folder(tmp_path / 'new', 'best_mIoU_epoch_1.pth', noted=old / 'epoch_2.pth')
    with pytest.raises(FileNotFoundError, match=r'last_checkpoint names .*old/epoch_2\.pth, but '
                       r'.*new/epoch_2\.pth does not exist.* delete'):  # fmt: skip
        resumed(new)
    work_folder(new / 'more', 'epoch_1.pth')
    os.replace(new / 'more/epoch_1.pth', new / 'epoch_1.pth')
    assert resumed(new) == str(new / 'epoch_1.pth')


def damage(path):
    """Flip a bit of the weights."""
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(9.0).numpy().tobytes()) + 5] ^= 4
    path.write_bytes(data)


def test_the_newest_whole_checkpoint_is_taken_and_said(tmp_path, log, monkeypatch):
    monkeypatch.setattr(patterns, 'print_log', lambda text, *args, **kwargs: log.append(text))
    run = work_folder(
        tmp_path / 'run', *(f'epoch_{i}.pth' for i in (3, 9, 10)), noted='epoch_9.pth'
    )
    note = run / 'last_checkpoint'
    now = note.stat().st_mtime
    for number, seconds in ((3, -9), (9, -1), (10, -20)):  # the last one of an older run
        os.utime(run / f'epoch_{number}.pth', (now, now + seconds))
    assert resumed(run) == str(run / 'epoch_9.pth') and log == []
    os.utime(run / 'epoch_10.pth', (now, now + 5))  # killed before it was noted
    assert resumed(run) == str(run / 'epoch_10.pth')
    assert 'it was saved after that was written' in log[-1]
    damage(run / 'epoch_10.pth')
    assert resumed(run) == str(run / 'epoch_9.pth')
    damage(run / 'epoch_9.pth')
    assert resumed(run) == str(run / 'epoch_3.pth')
    assert f'{run}/epoch_9.pth is damaged' in log[-1] and '/epoch_3.pth is taken' in log[-1]
    (run / 'epoch_3.pth').write_bytes((run / 'epoch_3.pth').read_bytes()[:-40])
    with pytest.raises(
        ValueError, match=r'epoch_9\.pth is damaged; .*epoch_3\.pth is damaged\. --re'
    ):
        resumed(run)
    note.write_text('')  # killed while it was written
    with pytest.raises(ValueError, match=r'epoch_10\.pth is damaged; .*epoch_9\.pth is damaged; '):
        resumed(run)


@pytest.mark.parametrize('noted', [None, ''])
def test_folder_without_a_note_goes_on_with_the_last_number(tmp_path, noted):
    run = work_folder(tmp_path / 'run', 'epoch_9.pth', 'epoch_10.pth', 'x.pth', noted=noted)
    assert resumed(run) == str(run / 'epoch_10.pth')


def test_checkpoints_that_are_kept_elsewhere_are_found(tmp_path):
    run = work_folder(tmp_path / 'run', noted='/old/kept/run/epoch_2.pth')
    kept = work_folder(tmp_path / 'kept/run', 'epoch_2.pth')
    hook = dict(type='CheckpointHook', out_dir=str(tmp_path / 'kept'))
    assert resumed(run, checkpoint=hook) == str(kept / 'epoch_2.pth')


# ------------------------------------------------------------------------------- hooks
@pytest.mark.parametrize('hooks', ["[dict(type='EMAHook')]", ['EMAHook'], dict(type='EMAHook')])
def test_hooks_that_are_no_dicts_are_refused(hooks):
    with pytest.raises(ValueError, match='custom_hooks must be a list of dicts'):
        set_guards(Config(dict(custom_hooks=hooks)))


# ------------------------------------------------------------------------------- batch size
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
