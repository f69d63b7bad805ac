"""Freeze the test episodes of a config: ``FOLD=0 python tools/freeze_episodes.py CONFIG FILE``."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmfss.commands.freeze_episodes import main

if __name__ == '__main__':
    main()
