"""Write a method as graphs: ``python tools/export.py CONFIG WEIGHTS OUT``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('export')
