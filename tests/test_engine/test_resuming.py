"""A resumed training is that of its config: a fresh run of the config is the oracle."""

from __future__ import annotations

import os
import shutil
import time
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import toy_run
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader, Runner

from mmfss.engine import resuming


@HOOKS.register_module()
class RateHook(Hook):
    """Learning rate, momentum and seconds to go of each iteration."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        group = runner.optim_wrapper.optimizer.param_groups[0]
        rates[runner.iter] = (group['lr'], group['weight_decay'], group.get('betas'))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        eta.append(runner.message_hub.get_info('eta'))


rates: dict[int, tuple] = {}
eta: list[float] = []
count = 0


def poly(end, **entries):
    return dict(dict(type='PolyLR', power=0.9, eta_min=0.0, end=end, by_epoch=True,
                     convert_to_iter_based=True), **entries)  # fmt: skip


def config(folder, epochs=6, schedule=None, batch_size=2, resume=None, loop=None, **entries):
    """8 episodes, so that an epoch has 8 / batch_size iterations."""
    optimizer = dict(type='AdamW', lr=0.01, weight_decay=0.1)
    optimizer.update(entries.pop('optimizer', {}))
    return Config(dict(dict(
        default_scope='mmseg',
        model=dict(type='ToyModel'),
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=dict(type='ToyData'), batch_size=batch_size, num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=loop or dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer),
        param_scheduler=poly(epochs) if schedule is None else schedule,
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        custom_hooks=[dict(type='ResumeHook'), dict(type='RateHook')],
        randomness=dict(seed=0), load_from=resume, resume=resume is not None,
    ), **entries))  # fmt: skip


def train(cfg):
    """Rates by iteration, and the runner."""
    global count
    count += 1
    cfg.experiment_name = f'resuming_{count}'  # mmengine keeps one message hub per name
    rates.clear()
    eta.clear()
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert all(seconds >= 0 for seconds in eta) and (not eta or eta[-1] == 0)
    return dict(rates), runner


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(resuming, 'print_log', lambda text, *args: lines.append(text))
    return lines


def warm_up(**entries):
    return dict(dict(type='LinearLR', start_factor=0.05, begin=0, end=5, by_epoch=False), **entries)


SCHEDULES = {
    'poly of epochs': lambda e: poly(e),
    'poly of epochs as steps': lambda e: poly(e, convert_to_iter_based=False),
    'poly of iterations': lambda e: poly(4 * e, by_epoch=False, convert_to_iter_based=False),
    'poly to the end': lambda e: dict(type='PolyLR', power=0.9, by_epoch=False),
    'warm-up and poly': lambda e: [warm_up(), poly(e)],
    'warm-up of epochs and poly': lambda e: [
        warm_up(end=1, by_epoch=True, convert_to_iter_based=True), poly(e, begin=1)],
    'cosine of iterations': lambda e: dict(
        type='CosineAnnealingLR', T_max=4 * e, by_epoch=False, eta_min=1e-6),
    'warm-up and cosine': lambda e: [
        warm_up(), dict(type='CosineAnnealingLR', begin=5, end=4 * e, T_max=4 * e - 5,
                        by_epoch=False)],
    'cosine of epochs': lambda e: dict(
        type='CosineAnnealingLR', T_max=e, end=e, by_epoch=True, convert_to_iter_based=True),
    'steps': lambda e: dict(type='MultiStepLR', milestones=[1, e - 1], gamma=0.1),
    'exponential of iterations': lambda e: dict(type='ExponentialLR', gamma=0.9, by_epoch=False),
    'one cycle': lambda e: dict(
        type='OneCycleLR', eta_max=0.1, total_steps=4 * e, by_epoch=False),
    'momentum too': lambda e: [
        poly(e), dict(type='CosineAnnealingMomentum', T_max=4 * e, by_epoch=False)],
    'none': lambda e: [],
}  # fmt: skip


@pytest.mark.parametrize('name', SCHEDULES)
@pytest.mark.parametrize('planned, done', [(2, 2), (8, 3)])
def test_another_length_gives_the_curve_of_a_fresh_run(name, planned, done, tmp_path):
    schedule = SCHEDULES[name]
    fresh, _ = train(config(tmp_path / 'fresh', 6, schedule(6)))
    train(config(tmp_path / 'run', planned, schedule(planned)))
    path = str(tmp_path / f'run/epoch_{done}.pth')
    resumed, _ = train(config(tmp_path / 'run', 6, schedule(6), resume=path))
    assert sorted(resumed) == list(range(4 * done, 24))
    assert resumed == {i: fresh[i] for i in resumed}


def resumed_with(tmp_path, **entries):
    """Rates of a fresh run of other settings, those of a run resumed with them at epoch 2 of 6."""
    fresh, _ = train(config(tmp_path / 'fresh', **deepcopy(entries)))
    train(config(tmp_path / 'run', 6))
    path = str(tmp_path / 'run/epoch_2.pth')
    again, runner = train(config(tmp_path / 'run', resume=path, **entries))
    return fresh, again, runner


@pytest.mark.parametrize(
    'entries, words',
    [
        (dict(optimizer=dict(lr=1e-4)), 'optim_wrapper.optimizer.lr: 0.01 -> 0.0001; learning rate'
         ' at iteration 8: 6.8066e-03 -> 6.8066e-05'),
        (dict(optimizer=dict(weight_decay=0.5)), 'optimizer.weight_decay: 0.1 -> 0.5'),
        (dict(optimizer=dict(betas=(0.5, 0.9))), 'optimizer.betas: unset -> [0.5, 0.9]'),
        (dict(schedule=poly(6, power=0.1)), 'param_scheduler.power: 0.9 -> 0.1; learning rate at'),
        (dict(schedule=poly(6, eta_min=0.001)), 'param_scheduler.eta_min: 0.0 -> 0.001'),
        (dict(schedule=[warm_up(), poly(6)]), 'param_scheduler: '),
        (dict(schedule=dict(type='ExponentialLR', gamma=0.5)), 'param_scheduler.type: PolyLR ->'),
        (dict(schedule=dict(type='OneCycleLR', eta_max=0.1, by_epoch=False)), 'LR -> OneCycleLR'),
        (dict(epochs=9, schedule=poly(9)), 'max_epochs: 6 -> 9; param_scheduler.end: 6 -> 9; '),
        (dict(epochs=4, schedule=poly(4)), 'train_cfg.max_epochs: 6 -> 4'),
        (dict(batch_size=4), 'train_dataloader.batch_size: 2 -> 4; iterations of an epoch: 4 -> 2;'
         ' learning rate at iteration 4: 6.8066e-03 -> 6.6579e-03; iteration after 2 epochs: '
         '8 -> 4'),
        (dict(batch_size=1), 'train_dataloader.batch_size: 2 -> 1; iterations of an epoch: 4 -> 8'),
        (dict(batch_size=4, auto_scale_lr=dict(enable=True, base_batch_size=2)), 'auto_scale_lr: '),
    ],
)  # fmt: skip
def test_what_is_changed_is_applied_and_said(entries, words, tmp_path, said):
    fresh, again, runner = resumed_with(tmp_path, **entries)
    length = 8 // entries.get('batch_size', 2)
    assert sorted(again) == list(range(2 * length, entries.get('epochs', 6) * length))
    assert again == {i: fresh[i] for i in again}
    (text,) = said
    assert words in text and text.startswith(
        f'checkpoint {tmp_path}/run/epoch_2.pth is resumed wit'
    )
    state = runner.optim_wrapper.optimizer.state.values()
    assert {int(entry['step']) for entry in state} == {8 + len(again)}  # moments are kept


def test_what_is_the_same_is_left_alone(tmp_path, said):
    """Bit by bit the uninterrupted run."""
    _, whole = train(config(tmp_path / 'run'))
    _, again = train(config(tmp_path / 'run', resume=str(tmp_path / 'run/epoch_2.pth')))
    assert said == []
    assert torch.equal(whole.model.layer.weight, again.model.layer.weight)


def test_iterations_without_epochs(tmp_path):
    def one(folder, length, **entries):
        loop = dict(type='IterBasedTrainLoop', max_iters=length)
        saved = dict(checkpoint=dict(type='CheckpointHook', interval=4, by_epoch=False))
        schedule = dict(type='PolyLR', end=length, by_epoch=False)
        cfg = config(folder, loop=loop, default_hooks=saved, schedule=schedule, **entries)
        cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
        return train(cfg)

    fresh, _ = one(tmp_path / 'fresh', 12)
    one(tmp_path / 'run', 8)
    again, _ = one(tmp_path / 'run', 12, resume=str(tmp_path / 'run/iter_8.pth'))
    assert again == {i: fresh[i] for i in range(8, 12)}
    with pytest.raises(ValueError, match=r'is of iter 8, and this config ends training at iter 4.*'
                       'Set train_cfg.max_iters to more than 8'):  # fmt: skip
        one(tmp_path / 'run', 4, resume=str(tmp_path / 'run/iter_8.pth'))


def test_passing_over_data_is_no_time_of_an_iteration(tmp_path, monkeypatch):
    """8 iterations are passed over at 0.2 s each, 4 are left."""
    monkeypatch.setattr(toy_run.ToyData, '__getitem__', lambda self, index: (
        time.sleep(0.1), dict(inputs=torch.ones(3)))[1])  # fmt: skip

    def one(length, **entries):
        saved = dict(checkpoint=dict(type='CheckpointHook', interval=4, by_epoch=False))
        cfg = config(tmp_path, loop=dict(type='IterBasedTrainLoop', max_iters=length),
                     default_hooks=saved, schedule=[], **entries)  # fmt: skip
        cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
        train(cfg)

    one(8)
    one(12, resume=str(tmp_path / 'iter_8.pth'))
    assert eta[0] < 2  # 3 iterations, and not 3 times all that went before


def test_checkpoint_within_an_epoch_begins_it_anew(tmp_path, said):
    saved = dict(checkpoint=dict(type='CheckpointHook', interval=6, by_epoch=False))
    whole, _ = train(config(tmp_path / 'run', default_hooks=saved))
    again, _ = train(config(tmp_path / 'run', default_hooks=saved,
                            resume=str(tmp_path / 'run/iter_6.pth')))  # fmt: skip
    assert again == {i: whole[i] for i in range(4, 24)}
    assert 'iteration after 1 epochs: 6 -> 4' in said[0]


# ------------------------------------------------------------------------------- refused
@pytest.fixture
def run(tmp_path):
    train(config(tmp_path / 'run', 2))
    return tmp_path / 'run/epoch_2.pth'


@pytest.mark.parametrize(
    'entries, words',
    [
        (dict(optimizer=dict(type='SGD')), 'optim_wrapper.optimizer.type: AdamW -> SGD'),
        (dict(model=dict(type='ToyModel', init_cfg=None, parts=2)), 'model.parts: unset -> 2'),
        (dict(randomness=dict(seed=5)), 'seed: 0 -> 5'),
        (dict(loop=dict(type='IterBasedTrainLoop', max_iters=24)), 'loop: EpochBasedTrainLoop ->'),
        (dict(train_dataloader=dict(dataset=dict(type='ToyData', shots=3), batch_size=2,
                                    sampler=dict(type='DefaultSampler', shuffle=True))),
         'train_dataloader.dataset.shots: unset -> 3'),
    ],
)  # fmt: skip
def test_another_training_is_refused(entries, words, run, monkeypatch):
    monkeypatch.setattr(toy_run.ToyModel, '__init__', any_arguments(toy_run.ToyModel.__init__))
    monkeypatch.setattr(toy_run.ToyData, '__init__', lambda self, shots=1: None)
    with pytest.raises(ValueError) as error:
        train(config(run.parent, resume=str(run), **entries))
    assert words in str(error.value) and f'load_from={run}' in str(error.value)
    assert rates == {}


def any_arguments(init):
    return lambda self, **entries: init(self)


def test_longer_training_with_a_schedule_that_is_over_is_refused(run):
    for schedule in (poly(2), poly(8, by_epoch=False, convert_to_iter_based=False)):
        with pytest.raises(ValueError, match='the learning rate would be 0 from iteration 8 to the '
                           'end at 24.*end=6, or end=24 where by_epoch=False'):  # fmt: skip
            train(config(run.parent, 6, schedule, resume=str(run)))


def test_shorter_training_is_refused_and_a_finished_one_is_finished(run, said):
    with pytest.raises(ValueError, match='is of epoch 2, and this config ends training at epoch 1'):
        train(config(run.parent, 1, resume=str(run)))
    assert train(config(run.parent, 2, resume=str(run)))[0] == {}
    assert said == [f'checkpoint {run} is of the last epoch, 2: training is finished']


def test_schedule_that_follows_figures_cannot_be_stepped_anew(run):
    plateau = dict(type='ReduceOnPlateauLR', monitor='loss')
    with pytest.raises(ValueError, match='ReduceOnPlateauLR depends on the figures of all epochs'):
        train(config(run.parent, 6, plateau, resume=str(run)))


def changed(run, change):
    content = CheckpointLoader.load_checkpoint(str(run), 'cpu')
    change(content)
    torch.save(content, run)
    return str(run)


def test_checkpoint_without_settings_is_compared_by_its_state(run, said):
    path = changed(run, lambda content: content['meta'].pop('mmfss_settings'))
    again, _ = train(config(run.parent, 6, resume=path))
    assert again[8][0] == pytest.approx(6.8066e-3, rel=1e-4)
    assert 'learning rate at iteration 8: 0.0000e+00 -> 6.8066e-03' in said[0]
    with pytest.raises(ValueError, match='its optimizer is no SGD, it has no dampening, momentum'):
        train(config(run.parent, 6, resume=path, optimizer=dict(type='SGD')))
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01),
                   paramwise_cfg=dict(bias_lr_mult=2.0))  # fmt: skip
    with pytest.raises(ValueError, match=r'groups of \[2\] parameters, .* groups of \[1, 1\]'):
        train(config(run.parent, 6, resume=path, optim_wrapper=wrapper))


def test_checkpoint_that_holds_weights_alone_is_refused(run):
    """A best_*.pth, and a converted one, which has not even an epoch."""
    path = changed(run, lambda content: content.pop('optimizer'))
    with pytest.raises(
        ValueError, match=r"cannot be resumed, it lacks \['optimizer'\].* load_from"
    ):
        train(config(run.parent, 6, resume=path))
    path = changed(run, lambda content: [content.pop('message_hub'), content.update(meta={})])
    lacks = r"lacks \['epoch', 'iter', 'message_hub', 'optimizer'\]"
    with pytest.raises(ValueError, match=lacks):
        train(config(run.parent, 6, resume=path))


# ------------------------------------------------------------------------------- files
class Spy:
    """The part of a Runner that own_files looks at."""

    def __init__(self, work_dir, **hook):
        self.work_dir = str(work_dir)
        self.cfg = dict(default_hooks=dict(checkpoint=hook))


def test_best_checkpoint_is_that_of_the_own_folder(tmp_path):
    for name in ('old', 'new'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'best_mIoU_epoch_1.pth').touch()
    info = dict(best_ckpt=str(tmp_path / 'old/best_mIoU_epoch_1.pth'), best_score=40.0,
                last_ckpt='/gone/epoch_2.pth', iter=3)  # fmt: skip
    assert resuming.own_files(Spy(tmp_path / 'new'), info, []) == []
    assert info == dict(best_ckpt=str(tmp_path / 'new/best_mIoU_epoch_1.pth'), best_score=40.0,
                        last_ckpt=str(tmp_path / 'new/epoch_2.pth'), iter=3)  # fmt: skip
    (tmp_path / 'new/best_mIoU_epoch_1.pth').unlink()
    (text,) = resuming.own_files(Spy(tmp_path / 'new'), info, [])
    assert 'best_mIoU_epoch_1.pth (40.0), is not in' in text
    assert sorted(info) == ['iter', 'last_ckpt']


def test_best_figures_of_another_rule_are_forgotten(tmp_path):
    (tmp_path / 'best_novel_mIoU_epoch_1.pth').touch()
    info = {'best_ckpt_novel/mIoU': str(tmp_path / 'best_novel_mIoU_epoch_1.pth'),
            'best_score_novel/mIoU': 9.0, 'best_progress': [9.0, 1]}  # fmt: skip
    before = dict(save_best=['novel/mIoU'], stop_monitors=['mIoU'])
    now = dict(save_best='mIoU', stop_monitors=['FB-IoU'])
    found = list(resuming.differences(before, now))
    assert resuming.own_files(Spy(tmp_path), info, found) == [] and info == {}


def test_copied_folder_never_touches_the_files_of_the_original(tmp_path):
    """mmengine deletes the best checkpoint so far by its path as it was."""
    saved = dict(checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1))
    train(config(tmp_path / 'old', 2, default_hooks=saved))
    best = tmp_path / 'old/best_mIoU_epoch_1.pth'
    best.write_text('of the original')

    def note(content):
        info = content['message_hub']['runtime_info']
        info.update(best_ckpt=str(best), best_score=1.0)

    changed(tmp_path / 'old/epoch_2.pth', note)
    shutil.copytree(tmp_path / 'old', tmp_path / 'new')
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / 'old').iterdir()}
    _, runner = train(config(tmp_path / 'new', 3, default_hooks=saved,
                             resume=str(tmp_path / 'new/epoch_2.pth')))  # fmt: skip
    info = runner.message_hub.runtime_info
    assert info['best_ckpt'] == str(tmp_path / 'new/best_mIoU_epoch_1.pth')
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / 'old').iterdir()} == before
    assert Path((tmp_path / 'new/last_checkpoint').read_text()).parent == tmp_path / 'new'
    assert not os.path.exists(tmp_path / 'new/epoch_2.pth')  # max_keep_ckpts
