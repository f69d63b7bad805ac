"""Bring a dataset into the form that training reads: ``python tools/prepare.py NAME ...``.

``python tools/prepare.py --help`` lists the names; a page per dataset is in docs/datasets.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmfss.commands.prepare import main

if __name__ == '__main__':
    main()
