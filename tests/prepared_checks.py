"""What every test of a preparation does: small pictures, the command line, an episode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmfss.commands import prepare as cli
from mmfss.datasets import EpisodicDataset


def picture(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    """A random RGB image of (height, width); JPEG or PNG by its suffix."""
    rng = np.random.default_rng(seed)
    return save(path, rng.integers(0, 256, (*size, 3), dtype=np.uint8))


def save(path: Path, array: np.ndarray) -> Path:
    """Write an array; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def read(path: Path) -> np.ndarray:
    """The pixel values as stored."""
    with Image.open(path) as image:
        return np.array(image)


def prepare(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """Run ``tools/prepare.py`` in this process; what it prints."""
    cli.main([*map(str, arguments), '--workers', '0'])
    return capsys.readouterr().out


def fails(*arguments: object) -> str:
    """Run ``tools/prepare.py`` on bad input; its message."""
    with pytest.raises(SystemExit) as failure:
        cli.main([*map(str, arguments), '--workers', '0'])
    assert isinstance(failure.value.code, str), 'a status is no message'
    return failure.value.code


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its time of change and content."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in sorted(folder.rglob('*'))
        if p.is_file()
    }


def episodes(root: Path, split: str, role: str, fold: int = 0, **options) -> EpisodicDataset:
    """One-shot episodes of a prepared dataset, in the images' own size."""
    pipeline = [dict(type='LoadImage'), dict(type='LoadLabel'), dict(type='BinarizeLabel')]
    return EpisodicDataset(
        dataset=dict(type='PreparedDataset', data_root=str(root), split=split),
        benchmark=str(root),
        fold=fold,
        split=role,
        shots=1,
        query_pipeline=pipeline,
        support_pipeline=pipeline,
        class_index_file=None,
        **options,
    )
