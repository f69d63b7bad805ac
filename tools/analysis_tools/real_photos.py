"""Training-free methods on real photos with what packages ship: no download, no training.

    python tools/analysis_tools/real_photos.py data/VOCdevkit/VOC2012 data/coco --out OUT

Each folder is in the VOC 2012 layout (``JPEGImages``, ``SegmentationClassAug``) or in that of COCO
2014 (``train2014``, ``val2014``, ``annotations/instances_*.json``); all photos of it are taken,
whatever their split, and may be few. Each photo is the query once for each episode seed, with
supports drawn from the others of its class; classes of K photos or fewer are left out. The figure
is the mean over folds of the mIoU of their novel classes, with a 95 % bootstrap interval over the
query photos; beside it the mean over all classes. Nothing is written into the folders.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmseg.registry import DATASETS, METRICS, MODELS
from torch import Tensor

from mmfss.configs import find_config, find_method
from mmfss.datasets.preparation.coco import find_jobs, make, read_annotations
from mmfss.evaluation.counts import EpisodeCounts, few_shot_iou, sum_per_class
from mmfss.evaluation.report_text import table_lines
from mmfss.evaluation.statistics import bootstrap_interval
from mmfss.files import write_text
from mmfss.methods import AllForeground, FewShotModel, Segmentation

SIDE = 512  # pixels that photos are resized to
LITE = dict(_delete_=True, type='EfficientNetLiteEncoder', image_size=512, blocks=[10, 14, 15])
ONE_STAGE = dict(LITE, blocks=[10])
INSID3_LITE = dict(svd_components=10, tau=0.1, merge_threshold=0.05)
"""Of ``small/insid3``, chosen on pairs of the VOC photos: DINOv3's numbers find nothing here."""
ROWS: dict[str, tuple[str, dict]] = {
    'all foreground': ('all_foreground', {}),
    'centre box': ('all_foreground', dict(type='CentreBox')),
    'prototype, one stage': ('prototype_lite', dict(encoder=ONE_STAGE, refine=None)),
    'density, one stage': ('density_lite', dict(encoder=ONE_STAGE, refine=None)),
    'INSID3, one stage': (
        'insid3',
        dict(encoder=ONE_STAGE, image_size=SIDE, resize='bilinear', **INSID3_LITE),
    ),
    'prototype': ('prototype_lite', dict(encoder=LITE, refine=None)),
    'density': ('density_lite', dict(encoder=LITE, refine=None)),
    'prototype + GrabCut': ('prototype_lite', dict(encoder=LITE, refine=dict(type='GrabCut'))),
    'density + GrabCut (density_lite)': ('density_lite', {}),
}
"""Row -> METHOD or config, and what is changed in its model. One stage is block 10 of
EfficientNet-Lite0 (stride 16); the other rows have the three of density_lite."""


@MODELS.register_module()
class CentreBox(AllForeground):
    """Calls the middle half of the image foreground, a box of its shape."""

    def segment(self, query: Tensor, state: Tensor, truth: Tensor | None = None) -> Segmentation:
        """1 inside of the box, -1 outside."""
        place = (torch.arange(self.image_size, device=query.device) + 0.5) / self.image_size
        inside = (place - 0.5).abs() < 0.5**1.5
        box = (inside[:, None] & inside).float() * 2 - 1
        return Segmentation(box.expand(len(query), 1, -1, -1))


def dataset_of(folder: Path, out: Path) -> tuple[str, dict]:
    """Benchmark and segmentation dataset of all photos of a folder.

    Args:
        folder: in one of the two layouts.
        out: where masks of COCO are painted, with links to its photos.

    Raises:
        FileNotFoundError: it is in neither layout.
    """
    if (folder / 'JPEGImages').is_dir():
        return 'pascal-5i', dict(type='PascalVOCFewShot', data_root=str(folder), ann_file='')
    files = sorted(folder.glob('annotations/instances_*2014.json'))
    if not files:
        raise FileNotFoundError(
            f'{folder} has neither JPEGImages (VOC 2012) nor annotations/instances_*2014.json '
            '(COCO 2014); give a folder in one of these layouts'
        )
    images, masks = out / 'images', out / 'masks'
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(exist_ok=True)
    for file in files:
        instances = read_annotations(file, '2014')
        for job in find_jobs(folder / file.stem.removeprefix('instances_'), masks, instances):
            make(job, instances.labels)
            link = images / job.image.name
            if not link.is_symlink():
                link.symlink_to(job.image.resolve())
    places = dict(img_path='images', seg_map_path='masks')
    return 'coco-20i', dict(
        type='CocoFewShot', split='val2014', data_root=str(out), data_prefix=places
    )


def episodes(benchmark: str, dataset: dict, out: Path, fold: int, shots: int, seed: int):
    """Each photo of the fold's classes as query once; None where no class has K + 1 photos."""
    photo = [dict(type='LoadImage'), dict(type='Resize', scale=(SIDE, SIDE))]
    label = [dict(type='LoadLabel'), dict(type='BinarizeLabel')]
    cfg = dict(
        type='EpisodicDataset',
        dataset=dataset,
        benchmark=benchmark,
        fold=fold,
        split='novel',
        shots=shots,
        seed=seed,
        query_pipeline=[*photo, *label],  # the label keeps its size, the figure is of that
        support_pipeline=[photo[0], *label, photo[1]],
        scarce_classes='drop',
        class_index_file=str(out / f'{benchmark}_areas.json'),
        defer_images=True,
    )
    try:
        return DATASETS.build(cfg)
    except ValueError as error:
        if 'no image has at least' not in str(error):
            raise
        return None


def build(method: str, changes: dict, out: Path) -> FewShotModel:
    """The model of a row; encoders that several have in common run once for each photo."""
    path = find_config(method) if method.endswith('.py') else find_method(method)
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(dict(model=deepcopy(changes)))  # it takes _delete_ out of what it is given
    if 'encoder' in cfg.model:
        cfg.model.feature_cache = dict(type='FeatureCache', directory=str(out / 'features'))
    model = MODELS.build(cfg.model).eval()
    model.init_weights()
    return model


@torch.no_grad()
def counts_of(models: dict[str, FewShotModel], dataset, seconds: dict[str, float]) -> dict:
    """``{row: counts}`` of one fold and seed; adds to the seconds of each row."""
    metrics = {}
    for name in models:
        metrics[name] = METRICS.build(dict(type='FewShotIoUMetric', absent_classes='exclude'))
        metrics[name].dataset_meta = dataset.metainfo
    for i in range(len(dataset)):
        for name, model in models.items():
            data = model.data_preprocessor(pseudo_collate([dataset[i]]))
            start = time.perf_counter()
            found = model.predict(data['inputs'], data['data_samples'])
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
            metrics[name].process({}, [sample.to_dict() for sample in found])
    for metric in metrics.values():
        metric.evaluate(len(dataset))
    return {name: metric.counts for name, metric in metrics.items()}


def _ious(counts: tuple[EpisodeCounts, ...]) -> list[float]:
    return list(few_shot_iou(sum_per_class(counts))[0].values())


def row_of(name: str, folds: dict[int, list[tuple[EpisodeCounts, ...]]]) -> dict:
    """Figures of one row from the counts of each fold and seed."""
    per_fold = {
        fold: float(np.mean([few_shot_iou(sum_per_class(counts))[1] for counts in seeds]))
        for fold, seeds in folds.items()
    }
    number = len(next(iter(folds.values())))
    by_class = [  # of each seed: all classes of all folds weigh the same
        np.mean([iou for seeds in folds.values() for iou in _ious(seeds[i])]) for i in range(number)
    ]
    interval = bootstrap_interval(list(folds.values()))
    return dict(
        row=name,
        folds=per_fold,
        mean=float(np.mean(list(per_fold.values()))),
        low=interval.low,
        high=interval.high,
        classes=float(np.mean(by_class)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folders', nargs='+', type=Path, help='VOC2012 or COCO 2014 layout')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/real_photos'))
    parser.add_argument('--shots', nargs='+', type=int, default=[1, 5])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument('--rows', nargs='+', choices=list(ROWS), help='by default all')
    parser.add_argument(
        '--config', nargs='+', default=[], help='more rows: methods, or configs (*.py) on photos'
    )
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    rows = {name: ROWS[name] for name in args.rows or ROWS}
    rows.update({config: (config, {}) for config in args.config})
    args.out.mkdir(parents=True, exist_ok=True)
    models = {name: build(*row, args.out) for name, row in rows.items()}
    tables, lines = [], [f'`python {" ".join(sys.argv)}`']
    lines += [f'{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads']
    for number, folder in enumerate(args.folders):
        benchmark, source = dataset_of(folder, args.out / f'folder{number}')
        for shots in args.shots:
            counts: dict[str, dict[int, list]] = {name: {} for name in models}
            seconds: dict[str, float] = {}
            queries, classes = 0, 0
            for fold in range(4):
                for seed in args.seeds:
                    dataset = episodes(benchmark, source, args.out, fold, shots, seed)
                    if dataset is None:
                        print(f'{folder} fold {fold}: no class has {shots + 1} photos', flush=True)
                        break
                    queries += len(dataset)
                    for name, found in counts_of(models, dataset, seconds).items():
                        counts[name].setdefault(fold, []).append(found)
            found = [row_of(name, folds) for name, folds in counts.items()]
            some = next(iter(counts.values()))
            classes = len({one.class_id for s in some.values() for seed in s for one in seed})
            photos = len({one.query for s in some.values() for seed in s for one in seed})
            about = dict(
                folder=folder.name, benchmark=benchmark, shots=shots, photos=photos, rows=found
            )
            tables.append(dict(about, classes=classes, episodes=queries, seeds=args.seeds))
            head = ['', *(f'fold {fold}' for fold in some), 'mean', '95 %', 'classes', 'ms']
            cells = [
                [
                    row['row'],
                    *(f'{value:.1f}' for value in row['folds'].values()),
                    f'{row["mean"]:.1f}',
                    f'{row["low"]:.1f} to {row["high"]:.1f}',
                    f'{row["classes"]:.1f}',
                    f'{1000 * seconds[row["row"]] / queries:.0f}',
                ]
                for row in found
            ]
            lines += [
                '',
                f'### {benchmark}, {shots}-shot: {classes} classes, {photos} photos as query, '
                f'{queries} episodes',
                '',
                *table_lines([head, *cells], in_markdown=True),
            ]
            print('\n'.join(lines[-len(cells) - 5 :]), flush=True)
    write_text(args.out / 'results.json', json.dumps(tables, indent=1) + '\n')
    write_text(args.out / 'results.md', '\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
