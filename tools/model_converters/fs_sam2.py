"""Turn a checkpoint of FS-SAM2's own code into one of mmfss.

    python tools/model_converters/fs_sam2.py SRC DST --config CONFIG --fold F

``--help`` and docs/checkpoints.md say more.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('convert-fs-sam2')
