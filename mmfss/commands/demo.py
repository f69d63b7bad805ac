"""What ``mmfss demo`` does: the main job on a small network, in the working directory.

Uses what is already there: a finished training is not repeated, an interrupted one goes on.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmfss.checkpoints.patterns import latest_checkpoint
from mmfss.commands import train
from mmfss.commands.command_lines import DemoArguments, Request, TrainArguments
from mmfss.commands.test import evaluate
from mmfss.configs import DEMO_CONFIG, find_config
from mmfss.datasets.folds import ALL_CLASSES
from mmfss.datasets.shapes import write_shapes
from mmfss.engine.logs import shorten_console
from mmfss.files import write_text

PRETRAIN = 'pretrain_sam2_shapes'


def finish(config: str, fold: str) -> Path:
    """Train a config to its end, unless that is done; returns the last checkpoint."""
    work_dir = Path('work_dirs') / config / f'fold{fold}'
    path = find_config(f'mmfss::{config}')
    last = work_dir / f'epoch_{Config.fromfile(path).train_cfg.max_epochs}.pth'
    if last.is_file():
        print(f'{last} is there and used as it is; delete {work_dir} to train anew')
    else:
        begun = latest_checkpoint(str(work_dir), str(work_dir))
        train.run(TrainArguments(str(path), resume=begun, work_dir=str(work_dir)))
    return last


def run(args: DemoArguments) -> None:
    """Generate, train, test, draw, and say how well it went."""
    start = time.time()
    fold = os.environ.setdefault('FOLD', '0')
    if fold == ALL_CLASSES:
        raise ValueError(f'the demo tests on classes that it held out: FOLD=0..3, got {fold}')
    shorten_console(MMLogger.get_current_instance())
    os.environ['DATA_ROOT'] = 'data/shapes5i'  # not that of another benchmark
    write_shapes(os.environ['DATA_ROOT'])
    finish(PRETRAIN, fold)
    checkpoint = finish(DEMO_CONFIG, fold)
    work_dir = checkpoint.parent
    config = str(find_config(f'mmfss::{DEMO_CONFIG}'))
    table = work_dir / 'result.txt'
    request = Request(config, [str(checkpoint)], work_dir=str(work_dir))
    report = evaluate(request, lambda said: write_text(table, said))
    metrics = report.runs[0].metrics
    print(f'\nShapes-5i, fold {fold}, 1-shot, classes never seen in training:')
    print(f'  novel-class mIoU {metrics["mIoU"]:.1f} %   FB-IoU {metrics["FB-IoU"]:.1f} %')
    for name, value in metrics.items():
        if name.startswith('IoU/'):
            print(f'    {name[4:]:12} {value:5.1f} %')
    print(f'  table       {table}')
    print(f'  picture     {work_dir / "episodes.png"}')
    print(f'  checkpoint  {checkpoint}')
    print(f'  took {time.time() - start:.0f} s')
