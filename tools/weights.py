"""List official weights and fetch them: ``python tools/weights.py fetch default``.

``python tools/weights.py --help`` says what names it takes.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('weights')
