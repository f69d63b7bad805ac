"""The labelling command from end to end on the generated example, with figures.

    python tools/analysis_tools/label_example.py --weights CHECKPOINT --out work_dirs/label_example

Labels the 200 pictures of ``tools/prepare.py example`` (three classes that the model of ``make
demo`` was never trained on, 2, 3 and 5 supports) twice: once in one go, once killed (SIGKILL)
half-way and run again. Every file of the two must be equal, byte for byte. Then the mIoU
(background included) against the truth, how well absent classes are told, and an FCN of mmseg that
is trained on what was written, from random weights.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner

from mmfss.configs import DEMO_CONFIG
from mmfss.datasets.io import read_mask
from mmfss.datasets.preparation.example import SHOTS, Example, write_example
from mmfss.evaluation.label_maps import label_ious

LABEL = Path(__file__).resolve().parents[1] / 'label.py'


def command(example: Path, out: Path, weights: str | None) -> list[str]:
    """The command line that labels the example."""
    line = [sys.executable, str(LABEL), str(example / 'support'), str(example / 'images'), str(out)]
    line += ['--config', DEMO_CONFIG]
    return line + (['--weights', weights] if weights else [])


def killed_half_way(line: list[str], out: Path, images: int) -> int:
    """Run the command and kill it when half of the labels are there; returns how many were."""
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    written = 0
    while process.poll() is None and written < images // 2:
        time.sleep(0.05)
        written = len(list((out / 'ann_dir').glob('*.png'))) if out.is_dir() else 0
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError('the run ended by itself before it could be killed')
    return len(list((out / 'ann_dir').glob('*.png')))


def contents(out: Path) -> dict[str, bytes]:
    """Results of a run by path, without its lock and its own records."""
    files = (path for path in sorted(out.rglob('*')) if path.is_file())
    names = {path.relative_to(out).as_posix(): path for path in files}
    return {
        name: path.read_bytes()
        for name, path in names.items()
        if not name.startswith(('records/', '.'))
    }


def compare_with_truth(example: Path, out: Path) -> None:
    """Print IoU of the labels, and precision and recall of the presence of classes."""
    names = sorted(path.name for path in (example / 'masks').iterdir())
    pairs = [(read_mask(out / 'ann_dir' / n), read_mask(example / 'masks' / n)) for n in names]
    found = label_ious(pairs, len(SHOTS))
    said = np.array([[(a == c + 1).any() for c in range(len(SHOTS))] for a, _ in pairs])
    there = np.array([[(t == c + 1).any() for c in range(len(SHOTS))] for _, t in pairs])
    print(f'mIoU {found.mean():.1f} %: background {found[0]:.1f}', end='')
    print(''.join(f', {name} {iou:.1f}' for name, iou in zip(SHOTS, found[1:])))
    hits = (said & there).sum()
    print(
        f'classes in images: {there.sum()} there, {said.sum()} marked, precision '
        f'{hits / max(said.sum(), 1):.2f}, recall {hits / there.sum():.2f}'
    )
    with open(out / 'scores.csv', encoding='utf-8', newline='') as file:
        order = [row['image'] for row in csv.DictReader(file)]
    wrong = {n: ((a != t) & (t != 255)).mean() for n, (a, t) in zip(names, pairs)}
    first = sum(wrong[name] for name in order[: len(order) // 5])
    print(f'of the wrong pixels {100 * first / sum(wrong.values()):.0f} % lie in the least certain '
          'fifth of the images')  # fmt: skip


def train_fcn(out: Path, example: Path, work_dir: Path, iterations: int) -> None:
    """Train a small FCN of mmseg on the labels, test it on the truth, print its mIoU."""
    cfg = Config.fromfile(out / 'dataset.py')
    norm = dict(type='BN', requires_grad=True)
    test_data = dict(
        type='BaseSegDataset',
        data_prefix=dict(img_path=str(example / 'images'), seg_map_path=str(example / 'masks')),
        img_suffix='.png',
        metainfo=dict(classes=('background', *SHOTS)),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    )
    cfg.merge_from_dict(
        dict(
            default_scope='mmseg',
            work_dir=str(work_dir),
            randomness=dict(seed=0),
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(
                    type='SegDataPreProcessor', bgr_to_rgb=True, size=(128, 128),
                    mean=[127.0] * 3, std=[60.0] * 3,
                ),
                backbone=dict(
                    type='ResNetV1c', depth=18, base_channels=32, stem_channels=32, norm_cfg=norm,
                    strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4),
                ),
                decode_head=dict(
                    type='FCNHead', in_channels=256, channels=64, num_convs=1, norm_cfg=norm,
                    num_classes=len(SHOTS) + 1,
                    loss_decode=dict(type='CrossEntropyLoss', class_weight=[0.5, 2.0, 2.0, 2.0]),
                ),
                test_cfg=dict(mode='whole'),
            ),
            train_dataloader=dict(
                batch_size=8, num_workers=0, dataset=cfg.labelled_dataset,
                sampler=dict(type='InfiniteSampler', shuffle=True),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
            optim_wrapper=dict(optimizer=dict(type='Adam', lr=2e-3)),
            test_dataloader=dict(
                batch_size=1, num_workers=0, dataset=test_data,
                sampler=dict(type='DefaultSampler', shuffle=False),
            ),
            test_cfg=dict(type='TestLoop'),
            test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
            log_level='WARNING',
        )
    )  # fmt: skip
    import mmseg.engine  # noqa: F401  registers its hooks; after mmfss, which mends mmcv-lite

    runner = Runner.from_cfg(cfg)
    runner.train()
    truth = runner.test()['mIoU']
    test_data['data_prefix']['seg_map_path'] = str(out / 'ann_dir')
    cfg.test_dataloader.dataset = test_data
    labels = Runner.build_dataloader(cfg.test_dataloader)
    runner.test_loop.dataloader = labels
    print(f'FCN of mmseg after {iterations} iterations on the labels, on the same pictures: mIoU '
          f'{runner.test()["mIoU"]:.1f} % against the labels, {truth:.1f} % against the '
          'truth')  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--weights', help='default: what `make demo` left')
    parser.add_argument('--example', type=Path, default=Path('data/example'))
    parser.add_argument('--out', type=Path, default=Path('work_dirs/label_example'))
    parser.add_argument('--fcn-iterations', type=int, default=300)
    args = parser.parse_args()
    write_example(args.example, Example())
    images = len(list((args.example / 'images').iterdir()))
    shutil.rmtree(args.out, ignore_errors=True)
    whole, resumed = args.out / 'whole', args.out / 'resumed'
    subprocess.run(command(args.example, whole, args.weights), check=True)
    line = command(args.example, resumed, args.weights)
    there = killed_half_way(line, resumed, images)
    print(f'killed after {there} of {images} labels')
    subprocess.run(line, check=True)
    one, other = contents(whole), contents(resumed)
    differing = sorted(
        name for name in one.keys() | other.keys() if one.get(name) != other.get(name)
    )
    if differing:
        sys.exit(f'killed and resumed, these files differ: {differing[:10]}')
    print(f'killed and resumed: all {len(one)} files equal, byte for byte')
    compare_with_truth(args.example, whole)
    train_fcn(whole, args.example, args.out / 'fcn', args.fcn_iterations)


if __name__ == '__main__':
    main()
