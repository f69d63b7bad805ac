"""A web page to mark objects, label images and take masks away: ``python tools/webui.py``.

``python tools/webui.py --help`` lists the options. Needs ``pip install -r requirements/webui.txt``.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('webui')
