"""Test: ``FOLD=0 python tools/test.py CONFIG CHECKPOINT``; ``--help`` lists the options.

The table of a paper, in one command::

    python tools/test.py CONFIG 'work_dirs/CONFIG/fold{fold}/best_*.pth' \\
        --folds 0 1 2 3 --seeds 0 1 2 3 4 --shots 1 5 --out results
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('test')
