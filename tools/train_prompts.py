"""Train heads for prompts: ``python tools/train_prompts.py [CONFIG WEIGHTS]``; see --help."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmfss.commands.train_prompts import main

if __name__ == '__main__':
    main()
