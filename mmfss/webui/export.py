"""What a visitor takes away: masks, scores, supports, and the command that goes on from there."""

from __future__ import annotations

import os
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmfss.datasets.grey_values import options_of
from mmfss.datasets.io import save_png
from mmfss.files import atomic
from mmfss.labelling.tables import write_scores
from mmfss.webui.session import Session
from mmfss.webui.worker import ModelChoice

MASKS, SCORES, SUPPORT = 'masks.zip', 'scores.csv', 'support.safetensors'


def export(session: Session) -> list[Path]:
    """Write the files of a session into its folder.

    ``masks.zip``: ``ann_dir/<name>.png``, a palette PNG (0 background, 1..N the classes) of each
    labelled image at its own size, and ``classes.txt``. ``scores.csv``: a row per image, the least
    certain first. ``support.safetensors``: see :mod:`mmfss.apis.support`. Without a labelled image
    only the last.

    Returns:
        The files.

    Raises:
        ValueError: Nothing is marked yet.
        OSError: The disk is full.
    """
    with session.step():
        folder = session.folder.path / 'export'
        folder.mkdir(exist_ok=True)
        classes = session.supports.classes
        worker = session.worker
        session.supports.as_set(worker.image_size, worker.resize).save(folder / SUPPORT)
        results = []
        with atomic(folder / MASKS) as part, zipfile.ZipFile(part, 'w') as archive:
            for query in session.labelled():
                result = query.whole()
                stem = os.path.splitext(query.name)[0]
                save_png(folder / 'mask.png', result.labels, result.palette)
                archive.write(folder / 'mask.png', f'ann_dir/{stem}.png')
                results.append(result)
            listed = (f'{label} {name}\n' for label, name in enumerate(['background', *classes]))
            archive.writestr('classes.txt', ''.join(listed))
        if not results:
            return [folder / SUPPORT]
        rows = []
        for result in sorted(results, key=lambda one: (one.certainty, one.source)):
            measured = [
                (
                    score,
                    name in result.present,
                    float(np.mean(result.mask(name))),
                    result.confidence(name),
                )
                for name, score in zip(classes, result.scores)
            ]
            rows.append((result.source, result.certainty, measured))
        write_scores(folder / SCORES, classes, rows)
        return [folder / MASKS, folder / SCORES, folder / SUPPORT]


def command(
    choice: ModelChoice, threshold: float, grey_values: Mapping[str, Any] | None = None
) -> str:
    """The command line that labels a folder in the same way."""
    words = ['mmfss', 'label', SUPPORT, 'IMAGES', 'OUT', '--threshold', f'{threshold:g}']
    for name in ('method', 'config', 'weights'):
        value = getattr(choice, name)
        if value is not None:
            words += [f'--{name}', value]
    return shlex.join([*words, *options_of(grey_values)])
