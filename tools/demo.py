"""The main job on the embedded default: generate Shapes-5i, pretrain a small SAM 2 and train FSSAM
on one fold, test it on classes it never saw, draw some episodes.

    make demo                     (FOLD=2 make demo for another fold)

Uses what is already there: a finished training is not repeated, an interrupted one goes on.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))

from mmengine.config import Config  # noqa: E402

from mmfss.commands.test import test  # noqa: E402
from mmfss.commands.train import train  # noqa: E402
from mmfss.datasets.shapes import write_shapes  # noqa: E402

PRETRAIN = 'configs/pretrain_sam2_shapes.py'
CONFIG = 'configs/fss_sam2_shapes_1shot.py'


def finish(config: str, fold: str) -> Path:
    """Train a config to its end, unless that is done; returns the last checkpoint."""
    work_dir = Path('work_dirs') / Path(config).stem / f'fold{fold}'
    last = work_dir / f'epoch_{Config.fromfile(config).train_cfg.max_epochs}.pth'
    if last.is_file():
        print(f'{last} is there and used as it is; delete {work_dir} to train anew')
    else:
        train([config, '--resume', '--work-dir', str(work_dir)])
    return last


def main() -> None:
    start = time.time()
    fold = os.environ.setdefault('FOLD', '0')
    os.environ['DATA_ROOT'] = 'data/shapes5i'  # not that of another benchmark
    write_shapes(os.environ['DATA_ROOT'])
    finish(PRETRAIN, fold)
    checkpoint = finish(CONFIG, fold)
    work_dir = checkpoint.parent
    metrics = test([CONFIG, str(checkpoint), '--work-dir', str(work_dir)])
    print(f'\nShapes-5i, fold {fold}, 1-shot, classes never seen in training:')
    print(f'  novel-class mIoU {metrics["mIoU"]:.1f} %   FB-IoU {metrics["FB-IoU"]:.1f} %')
    for name, value in metrics.items():
        if name.startswith('IoU/'):
            print(f'    {name[4:]:12} {value:5.1f} %')
    print(f'  picture     {work_dir / "episodes.png"}')
    print(f'  checkpoint  {checkpoint}')
    print(f'  took {time.time() - start:.0f} s')


if __name__ == '__main__':
    main()
