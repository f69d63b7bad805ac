"""Add LoRA to the weights it belongs to: ``python tools/fold_lora.py CONFIG CHECKPOINT OUT``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from mmfss.commands.cli import run

if __name__ == '__main__':
    run('fold-lora')
