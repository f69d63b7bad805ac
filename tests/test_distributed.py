"""Two processes on the CPU (gloo): the same figures as one, and training that stays in step."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
from mmengine.runner import CheckpointLoader
from tiny_runs import REPO, write_config, write_shapes

from mmfss.commands import test as testing


def in_two_processes(tool, *args, cwd):
    """Run a tool as users do, from the repository's files, on two ranks."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2']
    command += ['--master_addr=127.0.0.1', f'--master_port={port}', str(REPO / f'tools/{tool}.py')]
    command += [*map(str, args), '--launcher', 'pytorch']
    env = dict(os.environ, FOLD='1', OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1')
    env.pop('PYTHONPATH', None)
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    return write_config(folder / 'two.py', write_shapes(folder / 'shapes'))


@pytest.fixture(scope='module')
def trained(config, tmp_path_factory):
    """Work dir of an epoch of training in two processes: 4 steps of one episode each."""
    folder = tmp_path_factory.mktemp('trained')
    in_two_processes('train', config, '--work-dir', folder, '--cfg-options',
          'train_cfg.max_epochs=1', 'train_dataloader.batch_size=1',
          'train_dataloader.sampler.episodes_per_epoch=8', 'val_cfg=None',
          'val_dataloader=None', 'val_evaluator=None', cwd=folder)  # fmt: skip
    return folder


def test_two_processes_train(trained):
    checkpoint = CheckpointLoader.load_checkpoint(str(trained / 'epoch_1.pth'), 'cpu')
    assert checkpoint['meta']['iter'] == 4
    assert checkpoint['meta']['mmfss']['fold'] == 1
    state = checkpoint['state_dict']
    assert not any(key.startswith('module.') for key in state)
    assert all(v.isfinite().all() for v in state.values() if v.is_floating_point())


def test_no_thread_of_the_process_group_is_left(config, tmp_path):
    """One that is at work when Python ends would end a finished training with SIGABRT."""
    if not os.path.isdir('/proc/self/task'):
        pytest.skip('threads are named in /proc only')
    script = (
        'import os\n'
        'from mmfss.commands.cli import run\n'
        f"run('train', [{config!r}, '--work-dir', 'run', '--launcher', 'pytorch', '--cfg-options',"
        " 'train_cfg.max_epochs=1', 'param_scheduler.0.end=1', 'val_cfg=None',"
        " 'val_dataloader=None', 'val_evaluator=None'])\n"
        "task = '/proc/self/task'\n"
        "names = [open(f'{task}/{thread}/comm').read().strip() for thread in os.listdir(task)]\n"
        "print('left:', sorted(names))"
    )
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    env = dict(os.environ, FOLD='1', OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1',
               RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1',
               MASTER_PORT=port, PYTHONPATH=str(REPO))  # fmt: skip
    done = subprocess.run([sys.executable, '-c', script], cwd=tmp_path, env=env,
                          capture_output=True, text=True, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    left = done.stdout.splitlines()[-1]
    assert left.startswith('left:') and 'gloo' not in left and 'tcpstore' not in left


def test_two_processes_give_the_same_table_as_one(trained, config, tmp_path, monkeypatch):
    def argv(name, *seeds):
        return [config, str(trained / 'epoch_1.pth'), '--out', str(tmp_path / name),
                '--csv', str(tmp_path / f'{name}_csv'),
                '--work-dir', str(tmp_path / 'logs' / name), '--seeds', *seeds]  # fmt: skip

    monkeypatch.setenv('FOLD', '1')
    testing.main(argv('one', '0', '1'))
    testing.main(argv('two', '0'))
    printed = in_two_processes('test', *argv('two', '0', '1'), cwd=tmp_path)
    assert printed.count('1 of 2 runs are there already') == 1
    assert printed.count('mIoU in percent, episode seeds 0, 1') == 1  # by one process
    one, two = (json.loads((tmp_path / f'{name}.json').read_text()) for name in ('one', 'two'))
    assert one == two and one['finished'] == '2 of 2 runs'
    for seed in (0, 1):
        name = f'1shot_fold1_seed{seed}.csv'
        assert (tmp_path / 'one_csv' / name).read_text() == (
            tmp_path / 'two_csv' / name).read_text()  # fmt: skip
        metrics = one['runs'][seed]['metrics']
        assert metrics['episodes'] == 5  # an odd number: one process gets a filler
        assert 0 < metrics['mIoU'] < 100
