"""Two processes on the CPU (gloo): the same figures as one, and training that stays in step."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import forks
import pytest
from mmengine.runner import CheckpointLoader
from tiny_runs import REPO, write_config, write_shapes

from mmfss.commands import test as testing


def environment(**variables):
    """Of a process of this fold, on the CPU, with a free port for its group."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    group = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    fixed = dict(FOLD='1', OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1')
    env = {**os.environ, **fixed, **group, **variables}
    env.pop('PYTHONPATH', None)
    return env


#: a tool run as a program, then the threads that it leaves
PROGRAM = """
import os, runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
task = '/proc/self/task'
if os.path.isdir(task):
    names = [open(f'{task}/{thread}/comm').read().strip() for thread in os.listdir(task)]
    os.write(1, f'left: {sorted(names)}\\n'.encode())  # at once, as two processes write
"""


def by_torchrun(tool, *args, cwd):
    """Run a tool as users do, from the repository's files, on two ranks; what they print."""
    env = environment()
    script = cwd / 'program.py'
    script.write_text(PROGRAM)
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2']
    command += [f'--master_addr={env["MASTER_ADDR"]}', f'--master_port={env["MASTER_PORT"]}']
    command += [str(script), str(REPO / f'tools/{tool}.py'), *map(str, args)]
    command += ['--launcher', 'pytorch']
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def in_two_processes(tool, *args, cwd):
    """The same in two forks of this process, with what torchrun sets; what they print."""
    env = environment(WORLD_SIZE='2')
    ranks = [dict(env, RANK=rank, LOCAL_RANK=rank) for rank in ('0', '1')]
    argv = [REPO / f'tools/{tool}.py', *args, '--launcher', 'pytorch']
    done = forks.at_once(argv, cwd, ranks)
    for one in done:
        assert one.returncode == 0, one.stdout[-2000:] + one.stderr[-4000:]
    return ''.join(one.stdout for one in done)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    return write_config(folder / 'two.py', write_shapes(folder / 'shapes'))


@pytest.fixture(scope='module')
def training(config, tmp_path_factory):
    """An epoch of training in two processes, 4 steps of one episode each: work dir, output."""
    folder = tmp_path_factory.mktemp('trained')
    said = by_torchrun('train', config, '--work-dir', folder, '--cfg-options',
          'train_cfg.max_epochs=1', 'train_dataloader.batch_size=1',
          'train_dataloader.sampler.episodes_per_epoch=8', 'val_cfg=None',
          'val_dataloader=None', 'val_evaluator=None', cwd=folder)  # fmt: skip
    return folder, said


@pytest.fixture
def trained(training):
    return training[0]


def test_two_processes_train(trained):
    checkpoint = CheckpointLoader.load_checkpoint(str(trained / 'epoch_1.pth'), 'cpu')
    assert checkpoint['meta']['iter'] == 4
    assert checkpoint['meta']['mmfss']['fold'] == 1
    state = checkpoint['state_dict']
    assert not any(key.startswith('module.') for key in state)
    assert all(v.isfinite().all() for v in state.values() if v.is_floating_point())


def test_no_thread_of_the_process_group_is_left(training):
    """One that is at work when Python ends would end a finished training with SIGABRT."""
    if not os.path.isdir('/proc/self/task'):
        pytest.skip('threads are named in /proc only')
    left = [line for line in training[1].splitlines() if line.startswith('left:')]
    assert len(left) == 2
    assert not [line for line in left if 'gloo' in line or 'tcpstore' in line]


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
