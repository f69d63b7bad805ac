"""Label a folder of images, given a few marked ones: ``python tools/label.py SUPPORT IMAGES OUT``.

``python tools/label.py --help`` says what it writes.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmfss.commands.label import main

if __name__ == '__main__':
    main()
