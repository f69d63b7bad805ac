"""All methods under one protocol on Shapes-5i, from the same pretrained small SAM 2; paired tests.

    python tools/analysis_tools/shapes_peers.py --out work_dirs/peers/table

Trains what has no finished checkpoint (one pretraining per fold with its heads for points, and
FSSAM, SANSA and FS-SAM2 with each training seed from it, ``--jobs`` at a time), then does what
``mmfss table`` does: 4 folds, 1 and 5 shots, 3 episode seeds. Called again it does what is missing.
Says at the end how long each part took, and its CPU time.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import time
from pathlib import Path

from shapes_results import (
    ANY_METHOD,
    FOLDS,
    PRETRAIN,
    all_of,
    checkpoint_of,
    train,
    train_prompts,
)

from mmfss.commands import table
from mmfss.commands.command_lines import TableArguments
from mmfss.datasets.shapes import write_shapes

TRAINED = {
    'fssam': 'configs/fss_sam2_shapes_1shot.py',
    'sansa': 'configs/sansa_shapes_1shot.py',
    'fs_sam2': 'configs/fs_sam2_shapes_1shot.py',
}
TRAINING_FREE = ('prototype', 'density', 'insid3', 'sam2_memory', 'gf_sam')


def folder(method: str, seed: int, fold: int | str) -> Path:
    """Where a training puts its files."""
    return Path(f'work_dirs/peers/{method}/training{seed}/fold{fold}')


def test(args: TableArguments, method: str) -> None:
    """Test one method; what is there is not repeated."""
    log = Path(args.out) / f'{method.split("=")[0]}.log'
    with log.open('w') as out:
        command = table.command_of(args, table.read_entry(method))
        subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=True)
    print(f'tested {log.stem}', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', default='work_dirs/peers/table', help='folder of the results')
    parser.add_argument('--folds', nargs='+', type=int, default=list(FOLDS), choices=FOLDS)
    parser.add_argument('--shots', nargs='+', type=int, default=[1, 5])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='of episodes')
    parser.add_argument('--trainings', nargs='+', type=int, default=[0, 1], help='their seeds')
    parser.add_argument('--episodes', type=int, default=300)
    parser.add_argument('--jobs', type=int, default=2, help='processes of one thread at a time')
    given = parser.parse_args()
    os.environ['OMP_NUM_THREADS'] = '1'
    write_shapes(os.environ.setdefault('DATA_ROOT', 'data/shapes5i'))
    pretrainings = [(PRETRAIN, fold, 1) for fold in given.folds]
    trainings = [
        (config, fold, 1, folder(method, seed, fold), [f'randomness.seed={seed}'])
        for fold in given.folds
        for seed in given.trainings
        for method, config in TRAINED.items()
    ]
    methods = []
    for method, config in TRAINED.items():
        of_each = [checkpoint_of(config, 0, folder(method, s, '{fold}')) for s in given.trainings]
        methods.append(f'{method}={",".join(map(str, of_each))}')
    methods += TRAINING_FREE
    args = TableArguments(
        ANY_METHOD,
        methods,
        out=given.out,
        benchmark='shapes_5i',
        folds=given.folds,
        shots=given.shots,
        seeds=given.seeds,
        episodes=given.episodes,
    )
    os.makedirs(given.out, exist_ok=True)
    parts = {
        'pretraining': lambda: all_of(train, pretrainings, given.jobs),
        'heads for points': lambda: all_of(train_prompts, [(f,) for f in given.folds], given.jobs),
        'trainings': lambda: all_of(train, trainings, given.jobs),
        'tests': lambda: all_of(test, [(args, method) for method in methods], given.jobs),
        'table': lambda: table.run(args),
    }
    for name, do in parts.items():
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        do()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f'{name}: {(time.monotonic() - start) / 60:.1f} min, CPU {cpu / 60:.1f} min')


if __name__ == '__main__':
    main()
