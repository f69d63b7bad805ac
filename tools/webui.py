"""A web page to mark objects, label images and take masks away: ``python tools/webui.py``.

``python tools/webui.py --help`` lists the options. Needs ``pip install -r requirements/webui.txt``.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec('mmfss') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmfss.commands.webui import main

if __name__ == '__main__':
    sys.exit(main())
