"""Measure FSSAM: ``python tools/analysis_tools/benchmark.py episode``; ``--help`` lists all."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmfss.benchmarking.cli import main

if __name__ == '__main__':
    main()
