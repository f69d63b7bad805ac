"""Training curves as a picture: ``python tools/analysis_tools/plot_curves.py WORK_DIR...``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('plot-curves')
