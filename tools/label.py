"""Label a folder of images, given a few marked ones: ``python tools/label.py SUPPORT IMAGES OUT``.

``python tools/label.py --help`` says what it writes.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('label')
