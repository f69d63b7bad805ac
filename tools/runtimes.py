"""Compare OpenVINO with torch, on photos or episodes: ``python tools/runtimes.py --config CONFIG``.

``python tools/runtimes.py --help`` lists the options.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('runtimes')
