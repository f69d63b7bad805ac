"""The results table of the embedded default: every variant on every fold of Shapes-5i.

    python tools/analysis_tools/shapes_results.py --out docs/results/shapes5i

Trains what has no finished checkpoint (one training per fold and variant, from one pretrained
small SAM 2 per fold, ``--jobs`` at a time), then tests each 1-shot and 5-shot with several episode
seeds, and writes ``OUT.json`` and ``OUT.md``. All-foreground and the bare pseudo mask need no
training; "untrained" is FSSAM on random weights, "pretrained" on those that the variants start from;
the oracle is the trained FSSAM prompted with the query's true mask.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.runner import CheckpointLoader
from mmseg.registry import DATASETS, METRICS, MODELS

from mmfss.datasets.shapes import write_shapes
from mmfss.models.fssam import ImageFeatures
from mmfss.models.functional import logits_to_mask
from mmfss.models.weights import check_state_dict

FOLDS = (0, 1, 2, 3)
PRETRAIN = 'configs/pretrain_sam2_shapes.py'
ORACLE = 'configs/ablations/oracle_shapes_1shot.py'
VARIANTS = {
    'support memory only': 'configs/ablations/support_memory_shapes_1shot.py',
    'pseudo prompts': 'configs/ablations/pseudo_prompts_shapes_1shot.py',
    'pseudo prompts + refinement': 'configs/ablations/refinement_shapes_1shot.py',
    'FSSAM': 'configs/fss_sam2_shapes_1shot.py',
}


def work_dir(config: str, fold: int) -> Path:
    return Path('work_dirs') / Path(config).stem / f'fold{fold}'


def checkpoint_of(config: str, fold: int) -> Path:
    epochs = Config.fromfile(config).train_cfg.max_epochs
    return work_dir(config, fold) / f'epoch_{epochs}.pth'


def train(config: str, fold: int, threads: int) -> None:
    """Train in a process of its own, going on where an earlier one stopped."""
    env = dict(os.environ, FOLD=str(fold), OMP_NUM_THREADS=str(threads))
    log = work_dir(config, fold) / 'train.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, 'tools/train.py', config, '--resume']
    with log.open('w') as out:
        done = subprocess.run(command, env=env, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} (FOLD={fold}) failed, see {log}')
    print(f'trained {config} fold {fold}', flush=True)


def train_missing(jobs: list[tuple[str, int]], at_a_time: int, threads: int) -> None:
    missing = [job for job in jobs if not checkpoint_of(*job).exists()]
    with ThreadPoolExecutor(at_a_time) as pool:
        for running in [pool.submit(train, *job, threads) for job in missing]:
            running.result()


@dataclass
class Encoder:
    """Features of images, each encoded once for a model."""

    model: torch.nn.Module
    known: dict[str, ImageFeatures] = field(default_factory=dict)

    def __call__(self, paths: list[str], images: torch.Tensor) -> ImageFeatures:
        for path, image in zip(paths, images):
            if path not in self.known:
                self.known[path] = self.model.encode_image(image[None])
        return ImageFeatures.cat([self.known[path] for path in paths])


def episodes(config: str, shots: int, seed: int, count: int):
    """Episodic dataset of the novel classes."""
    cfg = Config.fromfile(config).test_dataloader.dataset
    cfg.update(shots=shots, seed=seed, num_episodes=count)
    return DATASETS.build(cfg)


class Trivial:
    """Predictions that need no training."""

    def __init__(self, kind: str, model) -> None:
        self.kind, self.model, self.encode = kind, model, Encoder(model)

    def __call__(self, inputs: dict, sample) -> torch.Tensor:
        size = tuple(sample.gt_sem_seg.shape)
        if self.kind == 'all foreground':
            return torch.ones((1, *size), dtype=torch.uint8)
        query = self.encode([sample.img_path], inputs['query'])
        supports = self.encode(sample.support_paths, inputs['support'][0])
        generator = self.model.prompt_generator
        masks = (inputs['support_mask'] == 1).float()
        prototypes = generator.encode_support(supports.prior[None], masks)
        pseudo = generator(query.prior, prototypes, self.model.sam2.image_size)
        return (pseudo.ae[0] >= 0.5).to(torch.uint8)


class Trained:
    """Predictions of a model, its encoders run once per image."""

    def __init__(self, model) -> None:
        self.model, self.encode = model, Encoder(model)

    def __call__(self, inputs: dict, sample) -> torch.Tensor:
        query = self.encode([sample.img_path], inputs['query'])
        supports = self.encode(sample.support_paths, inputs['support'][0])
        state = self.model.encode_support(supports, inputs['support_mask'])
        generator = self.model.prompt_generator
        truth = None
        if generator is not None and generator.needs_truth:
            truth = (sample.gt_sem_seg.data[None] == 1).float()
        logits = self.model.segment(query, state, truth).logits
        return logits_to_mask(logits, tuple(sample.gt_sem_seg.shape))[0]


@torch.no_grad()
def evaluate(predict, model, dataset) -> float:
    """mIoU in percent over a dataset of episodes."""
    metric = METRICS.build(dict(type='FewShotIoUMetric'))
    metric.dataset_meta = dataset.metainfo
    for i in range(len(dataset)):
        data = model.data_preprocessor(pseudo_collate([dataset[i]]))
        sample = data['data_samples'][0]
        sample.set_data(dict(pred_sem_seg=dict(data=predict(data['inputs'], sample))))
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(len(dataset))['mIoU']


def build(config: str, fold: int, weights: str | None):
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
    """``{row: {shots: [mIoU of each seed]}}`` of one fold."""
    os.environ['FOLD'] = str(fold)
    fssam = VARIANTS['FSSAM']
    models = {
        'FSSAM untrained': build(fssam, fold, None),
        'FSSAM pretrained only': build(fssam, fold, PRETRAIN),
        **{name: build(config, fold, config) for name, config in VARIANTS.items()},
        'FSSAM, true mask as prompt (upper bound)': build(ORACLE, fold, fssam),
    }
    untrained = models['FSSAM untrained']
    predictors = {
        'all foreground': (Trivial('all foreground', untrained), untrained),
        'pseudo mask >= 0.5, no SAM 2': (Trivial('pseudo mask', untrained), untrained),
        **{name: (Trained(model), model) for name, model in models.items()},
    }
    table: dict[str, dict[str, list[float]]] = {name: {} for name in predictors}
    for shots in args.shots:
        for seed in args.seeds:
            dataset = episodes(fssam, shots, seed, args.episodes)
            for name, (predict, model) in predictors.items():
                value = evaluate(predict, model, dataset)
                table[name].setdefault(str(shots), []).append(value)
                print(f'fold {fold} {shots}-shot seed {seed} {name}: {value:.1f}', flush=True)
    return table


def markdown(result: dict) -> str:
    """Mean over the episode seeds for each fold; their mean +- standard deviation over seeds of
    the four-fold mean."""
    lines = [
        f'Novel-class mIoU in percent on Shapes-5i, {result["episodes"]} episodes per fold and '
        f'seed, episode seeds {result["seeds"]}.',
        f'Made by `{result["command"]}` at commit {result["commit"]} on {result["machine"]}.',
    ]
    for shots in result['shots']:
        heads = ' | '.join(f'fold {fold}' for fold in result['folds'])
        lines += ['', f'### {shots}-shot', '', f'| | {heads} | mean +- std over seeds |']
        lines.append('|---|' + '---|' * (len(result['folds']) + 1))
        for name in result['table'][str(result['folds'][0])]:
            values = np.array(
                [result['table'][str(f)][name][str(shots)] for f in result['folds']]
            )
            cells = ' | '.join(f'{v:.1f}' for v in values.mean(1))
            means = values.mean(0)
            lines.append(f'| {name} | {cells} | {means.mean():.1f} +- {means.std():.1f} |')
    return '\n'.join(lines) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', default='work_dirs/shapes5i_results', help='without suffix')
    parser.add_argument('--folds', nargs='+', type=int, default=list(FOLDS), choices=FOLDS)
    parser.add_argument('--shots', nargs='+', type=int, default=[1, 5])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--episodes', type=int, default=400)
    parser.add_argument('--jobs', type=int, default=2, help='trainings at a time')
    parser.add_argument('--threads', type=int, default=1, help='threads of each training')
    args = parser.parse_args()
    data = os.environ.setdefault('DATA_ROOT', 'data/shapes5i')
    write_shapes(data)
    for configs in ([PRETRAIN], list(VARIANTS.values())):
        jobs = [(config, fold) for fold in args.folds for config in configs]
        train_missing(jobs, args.jobs, args.threads)
    MMLogger.get_current_instance().setLevel('ERROR')
    table = {str(fold): rows_of_fold(fold, args) for fold in args.folds}
    result = dict(
        command=' '.join(['python', *sys.argv]),
        commit=subprocess.run(
            ['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True
        ).stdout.strip(),
        machine=f'{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}',
        folds=args.folds,
        shots=args.shots,
        seeds=args.seeds,
        episodes=args.episodes,
        table=table,
    )
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix('.json').write_text(json.dumps(result, indent=1) + '\n')
    out.with_suffix('.md').write_text(markdown(result))
    print(markdown(result))


if __name__ == '__main__':
    main()
