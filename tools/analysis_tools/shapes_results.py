"""The results table of small networks: every variant on every fold of Shapes-5i.

    python tools/analysis_tools/shapes_results.py --out docs/results/shapes5i

Trains what has no finished checkpoint (one training per fold and variant, from one pretrained
small SAM 2 per fold, ``--jobs`` at a time), then tests each 1-shot and 5-shot with several episode
seeds, and writes ``OUT.json`` and ``OUT.md``, with the time of an episode. The baselines need no
training (``--baselines`` for these alone), the training-free methods on SAM 2 the pretrained small
one and its heads for points (``--training-free`` for these and the baselines); "untrained" is FSSAM
on random weights, "pretrained only" on those that the variants start from; the upper bound is the
trained FSSAM prompted with the query's true mask.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.runner import CheckpointLoader
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, METRICS, MODELS

from mmfss.checkpoints.provenance import commit
from mmfss.checkpoints.weights import check_state_dict
from mmfss.datasets.shapes import write_shapes
from mmfss.evaluation.report_text import table_lines
from mmfss.evaluation.statistics import mean_std
from mmfss.files import write_text
from mmfss.methods import FewShotModel, PseudoMask

FOLDS = (0, 1, 2, 3)
PRETRAIN = 'configs/pretrain_sam2_shapes.py'
ORACLE = 'configs/ablations/oracle_shapes_1shot.py'
ANY_METHOD = 'configs/fss.py'
BASELINES = {
    'all foreground': 'all_foreground',
    'pseudo mask >= 0.5, no SAM 2': 'pseudo_mask',
    'prototype (PrototypeMatcher)': 'prototype',
    'density (DensityMatcher)': 'density',
    'INSID3': 'insid3',
}
"""Row -> METHOD of ``ANY_METHOD``."""
ON_SAM2 = {'SAM 2 memory': 'sam2_memory', 'GF-SAM, masks of SAM 2': 'gf_sam'}
"""The same, of those that take ``PRETRAIN``'s SAM 2."""
VARIANTS = {
    'support memory only': 'configs/ablations/support_memory_shapes_1shot.py',
    'pseudo prompts': 'configs/ablations/pseudo_prompts_shapes_1shot.py',
    'pseudo prompts + refinement': 'configs/ablations/refinement_shapes_1shot.py',
    'FSSAM': 'configs/fss_sam2_shapes_1shot.py',
}


def work_dir(config: str, fold: int) -> Path:
    return Path('work_dirs') / Path(config).stem / f'fold{fold}'


def checkpoint_of(config: str, fold: int, place: Path | None = None) -> Path:
    """The last one of a finished training; ``place``: its folder, by default that of the config."""
    epochs = Config.fromfile(config).train_cfg.max_epochs
    return (place or work_dir(config, fold)) / f'epoch_{epochs}.pth'


def train(
    config: str, fold: int, threads: int, place: Path | None = None, options: Sequence[str] = ()
) -> None:
    """Train in a process of its own what is not finished, going on where an earlier one stopped."""
    place = place or work_dir(config, fold)
    if checkpoint_of(config, fold, place).exists():
        return
    env = dict(os.environ, FOLD=str(fold), OMP_NUM_THREADS=str(threads))
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, 'tools/train.py', config, '--work-dir', str(place), '--resume']
    command += ['--cfg-options', *options] if options else []
    with (place / 'train.log').open('w') as out:
        done = subprocess.run(command, env=env, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} (FOLD={fold}) failed, see {place}/train.log')
    print(f'trained {place}', flush=True)


def all_of(do: Callable[..., None], jobs: Sequence[tuple], at_a_time: int) -> None:
    """Do jobs, some at a time; the first error ends it."""
    with ThreadPoolExecutor(at_a_time) as pool:
        for running in [pool.submit(do, *job) for job in jobs]:
            running.result()


def train_prompts(fold: int) -> None:
    """Heads for points on the pretrained SAM 2 of a fold, where they are not there yet."""
    weights = checkpoint_of(PRETRAIN, fold)
    if not weights.with_name('prompts.pth').exists():
        command = [sys.executable, 'tools/train_prompts.py', PRETRAIN, str(weights)]
        subprocess.run(command, env=dict(os.environ, FOLD=str(fold)), check=True)


def episodes(config: str, shots: int, seed: int, count: int):
    """Episodic dataset of the novel classes."""
    cfg = Config.fromfile(config).test_dataloader.dataset
    cfg.update(shots=shots, seed=seed, num_episodes=count)
    return DATASETS.build(cfg)


@torch.no_grad()
def evaluate(
    models: dict[str, FewShotModel], dataset, batch: int = 10
) -> dict[str, tuple[float, float]]:
    """mIoU in percent of each model over a dataset of episodes, each read once, and its seconds of
    an episode: encoders are among them where an image comes for the first time."""
    metrics, seconds = {}, dict.fromkeys(models, 0.0)
    for name in models:
        metrics[name] = METRICS.build(dict(type='FewShotIoUMetric'))
        metrics[name].dataset_meta = dataset.metainfo
    preprocess = next(iter(models.values())).data_preprocessor
    for start in range(0, len(dataset), batch):
        rows = [dataset[i] for i in range(start, min(start + batch, len(dataset)))]
        data = preprocess(pseudo_collate(rows))
        for name, model in models.items():
            start_of = time.perf_counter()
            found = model.predict(data['inputs'], data['data_samples'])
            seconds[name] += time.perf_counter() - start_of
            if isinstance(model, PseudoMask):  # the sigmoid of predict takes 0.49999994 for 0.5
                for sample in found:
                    mask = (sample.seg_logits.data >= 0).to(torch.uint8)
                    sample.pred_sem_seg = PixelData(data=mask)
            metrics[name].process({}, [sample.to_dict() for sample in found])
    return {
        name: (metric.evaluate(len(dataset))['mIoU'], seconds[name] / len(dataset))
        for name, metric in metrics.items()
    }


def build(config: str, fold: int, weights: str | None = None) -> FewShotModel:
    """Model of a config, with the weights of the finished training of another, or none."""
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model).eval()
    model.init_weights()
    if weights is not None:
        path = checkpoint_of(weights, fold)
        state = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')['state_dict']
        check_state_dict(model.state_dict(), state, str(path))
        model.load_state_dict(state)
    return model


def rows_of_fold(fold: int, args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """``{row: {shots: [mIoU of each seed], shots + ' seconds': [of an episode]}}`` of one fold."""
    os.environ['FOLD'] = str(fold)
    torch.set_num_threads(args.threads)
    MMLogger.get_current_instance().setLevel('ERROR')
    fssam, models = VARIANTS['FSSAM'], {}
    for name, method in {**BASELINES, **({} if args.baselines else ON_SAM2)}.items():
        os.environ.update(METHOD=method, BENCHMARK='shapes_5i')
        models[name] = build(ANY_METHOD, fold)
    if not (args.baselines or args.training_free):
        models['FSSAM untrained'] = build(fssam, fold)
        models['FSSAM pretrained only'] = build(fssam, fold, PRETRAIN)
        models.update({name: build(config, fold, config) for name, config in VARIANTS.items()})
        models['FSSAM, true mask as prompt (upper bound)'] = build(ORACLE, fold, fssam)
    table: dict[str, dict[str, list[float]]] = {name: {} for name in models}
    for shots in args.shots:
        for seed in args.seeds:
            dataset = episodes(fssam, shots, seed, args.episodes)
            for name, (value, seconds) in evaluate(models, dataset).items():
                table[name].setdefault(str(shots), []).append(value)
                table[name].setdefault(f'{shots} seconds', []).append(seconds)
                print(f'fold {fold} {shots}-shot seed {seed} {name}: {value:.1f}', flush=True)
    return table


def markdown(result: dict) -> str:
    """Mean over the episode seeds for each fold; their mean +- sample standard deviation over
    seeds of the four-fold mean; the median time of an episode over folds and seeds."""
    lines = [
        f'Novel-class mIoU in percent on Shapes-5i, {result["episodes"]} episodes per fold and '
        f'seed, episode seeds {result["seeds"]}.',
        f'Made by `{result["command"]}`, tested at commit {result["commit"]}, on '
        f'{result["machine"]}. Times are of one thread, with encoders where an image is new.',
    ]
    for shots in result['shots']:
        rows = []
        for name in result['table'][str(result['folds'][0])]:
            values = np.array([result['table'][str(f)][name][str(shots)] for f in result['folds']])
            mean, std = mean_std(values.mean(0))
            spread = '-' if std is None else f'{std:.1f}'
            times = [result['table'][str(f)][name][f'{shots} seconds'] for f in result['folds']]
            cells = [*(f'{v:.1f}' for v in values.mean(1)), f'{mean:.1f} +- {spread}']
            rows.append([name, *cells, f'{1000 * np.median(times):.1f}'])
        head = ['', *(f'fold {fold}' for fold in result['folds']), 'mean +- std over seeds']
        head.append('ms of an episode')
        lines += ['', f'### {shots}-shot', '', *table_lines([head, *rows], in_markdown=True)]
    return '\n'.join(lines) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', default='work_dirs/shapes5i_results', help='without suffix')
    parser.add_argument('--folds', nargs='+', type=int, default=list(FOLDS), choices=FOLDS)
    parser.add_argument('--shots', nargs='+', type=int, default=[1, 5])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--episodes', type=int, default=300)
    parser.add_argument(
        '--baselines', action='store_true', help='only the rows that need no training'
    )
    parser.add_argument(
        '--training-free', action='store_true', help='these, and methods on the pretrained SAM 2'
    )
    parser.add_argument('--jobs', type=int, default=2, help='trainings and folds at a time')
    parser.add_argument('--threads', type=int, default=1, help='threads of each training')
    args = parser.parse_args()
    found = commit()
    data = os.environ.setdefault('DATA_ROOT', 'data/shapes5i')
    write_shapes(data)
    trained = [] if args.training_free else list(VARIANTS.values())
    for configs in () if args.baselines else ([PRETRAIN], trained):
        jobs = [(config, fold, args.threads) for fold in args.folds for config in configs]
        all_of(train, jobs, args.jobs)
    for fold in () if args.baselines else args.folds:
        train_prompts(fold)
    with ProcessPoolExecutor(args.jobs, mp_context=get_context('spawn')) as pool:
        futures = {str(fold): pool.submit(rows_of_fold, fold, args) for fold in args.folds}
        table = {fold: future.result() for fold, future in futures.items()}
    result = dict(
        command=' '.join(['python', *sys.argv]),
        commit='unknown' if found is None else found['sha'] + '-dirty' * found['dirty'],
        machine=f'{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}',
        folds=args.folds,
        shots=args.shots,
        seeds=args.seeds,
        episodes=args.episodes,
        table=table,
    )
    out = Path(args.out)
    write_text(out.with_suffix('.json'), json.dumps(result, indent=1) + '\n')
    write_text(out.with_suffix('.md'), markdown(result))
    print(markdown(result))


if __name__ == '__main__':
    main()
