"""What a result was made with: commit, packages, machine, checkpoint."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader

from mmfss import compat
from mmfss._versions import installed_version
from mmfss.checkpoints.record import META_KEY, plain
from mmfss.files import digest_of

_PACKAGES = (
    'numpy', 'mmengine', 'mmcv', 'mmcv-lite', 'mmsegmentation', 'onedl-mmengine', 'onedl-mmcv',
    'onedl-mmsegmentation', 'sam2', 'opencv-python', 'opencv-python-headless', 'pillow',
)  # fmt: skip
_TRAINED_ON = ('benchmark', 'fold', 'shots', 'novel_images')


def commit() -> dict[str, str | bool] | None:
    """Commit of the checkout that mmfss runs from, and whether its files differ from it.

    None where mmfss is installed without its repository, or git is not there.
    """
    root = Path(compat.__file__).resolve().parents[1]
    if not (root / '.git').exists():
        return None
    git = ['git', '-C', str(root)]
    try:
        sha, changes = (
            subprocess.run([*git, *args], check=True, capture_output=True, text=True).stdout.strip()
            for args in (['rev-parse', 'HEAD'], ['status', '--porcelain', '-uno'])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return dict(sha=sha, dirty=bool(changes))


def source_digest() -> str:
    """SHA-256 of the Python files of mmfss as they are now: tells apart states of a checkout that
    is changed, and installed versions."""
    root = Path(compat.__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob('*.py')):
        digest.update(f'{path.relative_to(root).as_posix()}\n'.encode() + path.read_bytes())
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Commit, state of the source, versions of Python and packages, and the machine, in plain
    types."""
    packages = {name: installed_version(name) for name in _PACKAGES}
    return dict(
        commit=commit(),
        source=source_digest(),
        python=platform.python_version(),
        packages=dict(
            torch=torch.__version__, **{k: v for k, v in packages.items() if v is not None}
        ),
        machine=machine(),
    )


def machine() -> dict[str, Any]:
    """CPU, its cores, and the GPU that tensors go to (None without one)."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return dict(cpu=_cpu_name(), cores=os.cpu_count(), gpu=gpu, system=platform.system())


def _cpu_name() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def read_checkpoint(path: str) -> tuple[dict[str, Any], Any]:
    """What a result says of its checkpoint, and the content of the file.

    Args:
        path: file, or an address with a scheme, which has no checksum here.

    Returns:
        ``dict(path, sha256, epoch, iter, trained_on, selection)``, with None for what the file
        does not say; ``trained_on`` names benchmark, fold, shots, and what became of training
        images with a novel class, ``selection`` says how the checkpoint was chosen, see
        :func:`selection_of`. Then the checkpoint.

    Raises:
        FileNotFoundError, ValueError: the file is not there, damaged, or wants to run code.
    """
    content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    meta = content.get('meta') if isinstance(content, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    ours = meta.get(META_KEY)
    ours = ours if isinstance(ours, Mapping) else {}
    info = dict(
        path=path,
        sha256=None if '://' in path else digest_of(os.path.expanduser(path)),
        epoch=meta.get('epoch'),
        iter=meta.get('iter'),
        trained_on={k: ours.get(k) for k in _TRAINED_ON} if ours else None,
        selection=selection_of(path, ours),
    )
    return info, content


def selection_of(path: str, meta: Mapping[str, Any]) -> Any:
    """How a checkpoint was chosen: what it says itself, as far as its name does not say other.

    All checkpoints of a training record the rule of that training, but only its ``best_*.pth``
    were chosen by it. mmengine names those after the figure, and the others ``epoch_N.pth`` or
    ``iter_N.pth``; a training that watches the novel classes too leaves ``best_novel_*.pth``, and
    of a file of such a training that was renamed it is not known which it is.

    Args:
        path: its file.
        meta: its ``meta['mmfss']``.
    """
    recorded, name = plain(meta.get('selection')), os.path.basename(path)
    if not isinstance(recorded, dict):
        return recorded
    if name.startswith('best_novel_'):
        return dict(recorded, rule='novel', classes=plain(meta.get('novel_classes')))
    if re.fullmatch(r'(epoch|iter)_\d+\.pth', name):
        return dict(recorded, rule='none', classes=[])
    watched = any(str(key).startswith('novel/') for key in recorded.get('figures') or ())
    if watched and not name.startswith('best_'):
        return dict(recorded, rule=f'{recorded.get("rule")} or novel')
    return recorded
