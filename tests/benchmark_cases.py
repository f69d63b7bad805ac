"""A tiny model, and the options with which benchmarks of it take moments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import FULL

OPTIONS = ['--device', 'cpu', '--threads', '1', '--photo-size', '80', '60', '--quick']


def write_config(path: Path, **changes: Any) -> str:
    """A config with the tiny model of ``tests/tiny_models.py``, some entries of it replaced, and
    nothing else."""
    model = {**FULL, **changes, 'data_preprocessor': dict(type='EpisodeDataPreprocessor')}
    path.write_text(f'model = {model!r}\n')
    return str(path)
