"""A service behind Label Studio and X-AnyLabeling: ``python tools/serve.py``.

``python tools/serve.py --help`` lists the options. Needs ``pip install -r requirements/serve.txt``.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('serve')
