"""The main job on the embedded default: generate Shapes-5i, train FSSAM on one fold, test it on
classes it never saw, draw some episodes.

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

from mmfss.datasets.shapes import write_shapes  # noqa: E402
from mmfss.engine.launch import test, train  # noqa: E402

CONFIG = 'configs/fss_sam2_shapes_1shot.py'


def main() -> None:
    start = time.time()
    fold = os.environ.setdefault('FOLD', '0')
    data = Path(os.environ.setdefault('DATA_ROOT', 'data/shapes5i'))
    write_shapes(data)
    work_dir = Path('work_dirs') / Path(CONFIG).stem / f'fold{fold}'
    runner = train([CONFIG, '--work-dir', str(work_dir), '--resume'])
    metrics = test(
        [CONFIG, str(work_dir / f'epoch_{runner.max_epochs}.pth'), '--work-dir', str(work_dir)]
    )
    print(f'\nShapes-5i, fold {fold}, 1-shot, {runner.max_epochs} epochs:')
    print(f'  novel-class mIoU {metrics["mIoU"]:.1f} %   FB-IoU {metrics["FB-IoU"]:.1f} %')
    for name, value in metrics.items():
        if name.startswith('IoU/'):
            print(f'    {name[4:]:12} {value:5.1f} %')
    print(f'  picture     {work_dir / "episodes.png"}')
    print(f'  checkpoint  {work_dir / f"epoch_{runner.max_epochs}.pth"}')
    print(f'  took {time.time() - start:.0f} s')


if __name__ == '__main__':
    main()
