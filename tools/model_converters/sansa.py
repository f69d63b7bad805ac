"""Turn published SANSA adapters into a checkpoint of mmfss.

    python tools/model_converters/sansa.py SRC DST --config CONFIG --fold F [--shots K]

``--help`` and docs/checkpoints.md say more.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('convert-sansa')
