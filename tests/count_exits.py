"""How two-process trainings of seconds end, counted; too long for CI.

    python tests/count_exits.py --times 100

Each is a whole ``tools/train.py`` on two ranks (gloo, CPU). Exit statuses are counted by rank, and
trainings whose checkpoint is not there. Logs of those that ended badly stay in the folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO), str(REPO / 'tests')]
LIMIT = 600  # seconds
OPTIONS = (
    'train_cfg.max_epochs=1', 'param_scheduler.0.end=1', 'train_dataloader.batch_size=1',
    'val_dataloader.dataset.num_episodes=2',
)  # fmt: skip


def train(config: str, work_dir: Path) -> list[int]:
    """Exit statuses of the two ranks of a training; their outputs go to WORK_DIR/RANK.log."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(REPO / 'tools/train.py'), config, '--work-dir', str(work_dir)]
    command += ['--launcher', 'pytorch', '--cfg-options', *OPTIONS]
    env = dict(os.environ, FOLD='1', OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1')
    env.update(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    processes = []
    for rank in ('0', '1'):
        with open(work_dir / f'{rank}.log', 'w') as log:
            ranked = dict(env, RANK=rank, LOCAL_RANK=rank)
            processes.append(subprocess.Popen(command, env=ranked, stdout=log, stderr=log))
    return [_status(process) for process in processes]


def _status(process: subprocess.Popen) -> int:
    """-9 of one that hangs."""
    try:
        return process.wait(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def main() -> None:
    """Train so many times and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--times', type=int, default=100)
    parser.add_argument('--folder', help='of data and logs; default: a new temporary one')
    args = parser.parse_args()
    from tiny_runs import write_config, write_shapes

    root = Path(args.folder or tempfile.mkdtemp(prefix='count_exits_'))
    root.mkdir(parents=True, exist_ok=True)
    config = write_config(root / 'tiny.py', write_shapes(root / 'shapes'))
    counts: Counter[tuple[int, ...]] = Counter()
    unsaved, start = 0, time.time()
    for number in range(args.times):
        work_dir = root / f'run_{number}'
        work_dir.mkdir()
        statuses = tuple(train(config, work_dir))
        saved = (work_dir / 'epoch_1.pth').is_file()
        counts[statuses] += 1
        unsaved += not saved
        if saved and not any(statuses):
            shutil.rmtree(work_dir)
        else:
            print(f'training {number}: statuses {statuses}, saved: {saved}, see {work_dir}')
        done = ', '.join(f'{key}: {n}' for key, n in sorted(counts.items()))
        print(
            f'{number + 1} in {time.time() - start:.0f} s; {done}; unsaved: {unsaved}', flush=True
        )


if __name__ == '__main__':
    main()
