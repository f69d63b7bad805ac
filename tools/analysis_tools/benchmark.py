"""Measure FSSAM: ``python tools/analysis_tools/benchmark.py episode``; ``--help`` lists all."""

import importlib.util
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1]
sys.path.append(str(TOOLS))
if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(TOOLS.parent))

from benchmarks.cli import main  # noqa: E402

if __name__ == '__main__':
    main()
