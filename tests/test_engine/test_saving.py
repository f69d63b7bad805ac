"""Checkpoints that are saved while the disk fills up or the process is killed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmfss import files
from mmfss.checkpoints.patterns import latest_checkpoint
from mmfss.engine import saving
from mmfss.engine.saving import WholeCheckpointHook
from mmfss.safe_load import is_whole, load_checkpoint


class Net(nn.Module):
    """mmengine's interface around one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))

    def train_step(self, data, optim_wrapper):
        optim_wrapper.update_params((self.weight - 1).square().sum())
        return OrderedDict()

    def val_step(self, data):
        return [0]


def runner_of(folder, epochs=4, figures=(), name='saving', **hook):
    from mmengine.evaluator import Evaluator

    data = DataLoader([0, 1])
    evaluation = {}
    if figures:
        evaluator = Evaluator([])
        given = list(figures)
        evaluator.evaluate = lambda size: dict(mIoU=given.pop(0))
        evaluation = dict(val_dataloader=DataLoader([0]), val_cfg={}, val_evaluator=evaluator)
    return Runner(
        Net(),
        str(folder),
        train_dataloader=data,
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(type='mmseg.WholeCheckpointHook', interval=1, max_keep_ckpts=1, **hook)
        ),
        default_scope='mmseg',
        experiment_name=f'{name}_{folder.name}',
        log_level='ERROR',
        **evaluation,
    )


def checkpoints(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == '.pth')


def test_the_old_one_goes_when_the_new_one_is_named(tmp_path, monkeypatch):
    events = []
    replace, remove = os.replace, LocalBackend.remove
    monkeypatch.setattr(
        files.os, 'replace',
        lambda old, new: (events.append(f'name {os.path.basename(new)}'), replace(old, new)),
    )  # fmt: skip
    monkeypatch.setattr(
        LocalBackend, 'remove',
        lambda self, path: (events.append(f'remove {os.path.basename(path)}'), remove(self, path)),
    )  # fmt: skip
    monkeypatch.setattr(files.os, 'fsync', lambda number: events.append('flush'))
    runner_of(tmp_path, epochs=2).train()
    second = events[events.index('name epoch_2.pth') - 1 :]
    assert [one for one in second if one != 'flush'] == [
        'name epoch_2.pth', 'name last_checkpoint', 'remove epoch_1.pth',
    ]  # fmt: skip
    assert second[0] == 'flush'
    assert checkpoints(tmp_path) == ['epoch_2.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_2.pth')


def test_of_the_best_ones_too_and_a_resumed_run_keeps_its_number(tmp_path):
    runner_of(tmp_path, 3, (10.0, 30.0, 20.0), save_best='mIoU').train()
    assert checkpoints(tmp_path) == ['best_mIoU_epoch_2.pth', 'epoch_3.pth']
    again = runner_of(tmp_path, 5, (25.0, 40.0), 'resumed', save_best='mIoU')
    again._resume, again._load_from = True, str(tmp_path / 'epoch_3.pth')
    again.train()
    assert checkpoints(tmp_path) == ['best_mIoU_epoch_5.pth', 'epoch_5.pth']
    for name in checkpoints(tmp_path):
        assert is_whole(tmp_path / name)


def test_what_a_kill_left_goes_when_the_run_goes_on(tmp_path):
    runner_of(tmp_path, 3).train()
    # killed between the pointer and the removal; epoch_1.pth is somebody else's
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        (tmp_path / name).write_bytes((tmp_path / 'epoch_3.pth').read_bytes())
    again = runner_of(tmp_path, 4, name='after_a_kill')
    again._resume, again._load_from = True, str(tmp_path / 'epoch_3.pth')
    again.train()
    assert checkpoints(tmp_path) == ['epoch_1.pth', 'epoch_4.pth']


@pytest.mark.parametrize('kept', ['of another folder', 'of another process'])
def test_what_a_kill_left_goes_by_one_process_and_in_its_own_folder_alone(
    tmp_path, monkeypatch, kept
):
    first, second = tmp_path / 'first', tmp_path / 'second'
    runner_of(first, 3).train()
    assert load_checkpoint(first / 'epoch_3.pth')['message_hub']['runtime_info'][
        'checkpoints_going'
    ] == ['epoch_2.pth']
    work = second if kept == 'of another folder' else first
    work.mkdir(exist_ok=True)
    (work / 'epoch_2.pth').write_bytes(b'somebody else')
    if kept == 'of another process':
        monkeypatch.setattr(saving, 'is_main_process', lambda: False)
    again = runner_of(work, 3, name=kept.replace(' ', '_'))
    again._resume, again._load_from = True, str(first / 'epoch_3.pth')
    again.train()
    assert (work / 'epoch_2.pth').read_bytes() == b'somebody else'


@pytest.mark.parametrize('moment', ['write', 'flush', 'name'])
def test_a_full_disk_leaves_the_one_before(tmp_path, monkeypatch, moment):
    runner = runner_of(tmp_path)
    full = OSError(errno.ENOSPC, 'No space left on device')

    def fails(*_, **__):
        raise full

    def fill(runner):
        if runner.epoch < 2:
            return
        if moment == 'write':
            monkeypatch.setattr('pathlib.Path.write_bytes', fails)
        else:
            monkeypatch.setattr(files.os, dict(flush='fsync', name='replace')[moment], fails)

    hook = next(one for one in runner.hooks if isinstance(one, WholeCheckpointHook))
    before = hook.after_train_epoch
    monkeypatch.setattr(hook, 'after_train_epoch', lambda r: (fill(r), before(r)))
    with pytest.raises(OSError, match='No space'):
        runner.train()
    monkeypatch.undo()
    assert checkpoints(tmp_path) == ['epoch_2.pth'] and is_whole(tmp_path / 'epoch_2.pth')
    assert latest_checkpoint(str(tmp_path), str(tmp_path)) == str(tmp_path / 'epoch_2.pth')
    assert load_checkpoint(tmp_path / 'epoch_2.pth')['meta']['epoch'] == 2
    assert [path for path in tmp_path.iterdir() if path.name.endswith('.part')] == []


KILLED = """
import os, sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from test_engine.test_saving import runner_of
from mmfss import files

def train(moment):
    folder = Path(sys.argv[1], f'run{moment}')
    folder.mkdir()
    runner, replace, fsync, count = runner_of(folder, 6), os.replace, os.fsync, [0]
    def at(what):
        count[0] += 1
        if count[0] == moment:
            os._exit(9)
    files.os.fsync = lambda number: (at('flush'), fsync(number))
    files.os.replace = lambda old, new: (at('before'), replace(old, new), at('after'))
    runner.train()

for moment in map(int, sys.argv[2].split()):
    if (child := os.fork()) == 0:
        try:
            train(moment)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9, moment
"""


def test_a_kill_at_any_step_of_saving_leaves_one_that_is_whole(tmp_path):
    paths = [os.path.dirname(os.path.dirname(__file__)), os.getcwd()]
    # steps of the third saving, in forks of a new process: those of this one share its threads
    moments = (14, 17)
    told = ' '.join(map(str, moments))
    subprocess.run([sys.executable, '-c', KILLED, str(tmp_path), told, *paths], check=True)
    for moment in moments:
        folder = tmp_path / f'run{moment}'
        found = latest_checkpoint(str(folder), str(folder))
        assert is_whole(found)
        assert load_checkpoint(found)['meta']['epoch'] in (1, 2, 3)
