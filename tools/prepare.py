"""Bring a dataset into the form that training reads: ``python tools/prepare.py NAME ...``.

``python tools/prepare.py --help`` lists the names; a page per dataset is in docs/datasets.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('prepare')
