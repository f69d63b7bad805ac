"""Pictures for a paper: ``tools/pictures.py CONFIG CHECKPOINT --pick worst:12 --out a.pdf``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('pictures')
