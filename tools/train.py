"""Train FSSAM: ``FOLD=0 python tools/train.py CONFIG``; ``--help`` lists the options."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmfss.commands.train import train

if __name__ == '__main__':
    train()
