"""What a visitor takes away: labels, scores, supports, and the command that goes on from there."""

from __future__ import annotations

import os
import shlex
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfss.datasets.classes import label_palette
from mmfss.datasets.grey_values import options_of
from mmfss.datasets.io import save_png
from mmfss.files import walk
from mmfss.labelling.annotations import regions_of
from mmfss.labelling.formats import FORMATS, Terms, photo_of, write_formats
from mmfss.labelling.tables import Measured, write_coco, write_scores
from mmfss.webui.queries import Query
from mmfss.webui.session import Session
from mmfss.webui.worker import ModelChoice

MASKS, COCO, SCORES, SUPPORT = (
    'masks.zip', 'annotations.json', 'scores.csv', 'support.safetensors'
)  # fmt: skip
PNG, RUN_LENGTHS = 'png', 'coco'
OFFERED = (('palette PNG', PNG), ('COCO', RUN_LENGTHS), *((name, name) for name in FORMATS))
"""What each form of labels is called, and its name."""


def export(session: Session, folder: Path, forms: Sequence[str] = (PNG,)) -> list[Path]:
    """Write the files of a session.

    ``masks.zip``: ``ann_dir/<name>.png``, a palette PNG (0 background, 1..N the classes) of each
    labelled image at its own size, and ``classes.txt``. ``annotations.json``: COCO, a region for
    each class. ``<form>.zip``: what ``mmfss label --format`` writes, but for links to photos.
    ``scores.csv``: a row per image, the least certain first. ``support.safetensors``:
    see :mod:`mmfss.apis.support`. Without a labelled image only the last. Rejected images are left
    out.

    Args:
        session: of the visitor.
        folder: what is in it is removed before.
        forms: names out of :data:`OFFERED`.

    Returns:
        The files.

    Raises:
        ValueError: Nothing is marked yet, or there is no such form.
        OSError: The disk is full.
    """
    unknown = set(forms) - {name for _, name in OFFERED}
    if unknown:
        raise ValueError(f'there is no form {", ".join(sorted(unknown))} of labels')
    with session.step():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        worker = session.worker
        session.supports.as_set(worker.image_size, worker.resize).save(folder / SUPPORT)
        queries = [query for query in session.labelled() if query.verdict != 'rejected']
        if not queries:
            return [folder / SUPPORT]
        labels = _Labels(session.supports.classes, queries)
        with zipfile.ZipFile(folder / MASKS, 'w') as archive:
            for query in queries:
                values = labels.add(query)
                if PNG in forms:
                    stem = os.path.splitext(query.name)[0]
                    save_png(folder / 'mask.png', values, label_palette(len(labels.classes)))
                    archive.write(folder / 'mask.png', f'ann_dir/{stem}.png')
            listed = enumerate(['background', *labels.classes])
            archive.writestr('classes.txt', ''.join(f'{label} {name}\n' for label, name in listed))
        files = [folder / SCORES, folder / SUPPORT]
        if PNG in forms:
            files.insert(0, folder / MASKS)
            (folder / 'mask.png').unlink()
        if RUN_LENGTHS in forms:
            names = [query.name for query in queries]
            write_coco(folder / COCO, names, labels.classes, labels)
            files.insert(0, folder / COCO)
        others = [name for name in FORMATS if name in forms]
        terms = Terms(labels.classes, folder.resolve() / 'images')
        photos = (photo_of(query.name, labels.read(query.name)) for query in queries)
        write_formats(others, folder, photos, terms)
        files = [*(_packed(folder / name) for name in others), *files]
        rows = sorted(labels.rows, key=lambda row: (row[1], row[0]))
        write_scores(folder / SCORES, labels.classes, rows)
        return files


def _packed(folder: Path) -> Path:
    """The files of a folder in an archive beside it."""
    path = folder.with_suffix('.zip')
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for file, is_folder in sorted(walk(folder)):
            if not is_folder and not file.is_symlink():
                archive.write(file, file.relative_to(folder.parent))
    shutil.rmtree(folder)
    return path


class _Labels:
    """Labels of all images in one numbering, gone through one at a time.

    Attributes:
        classes: those that are marked now, then those that only labels have that were kept.
        rows: for :func:`write_scores`.
    """

    def __init__(self, classes: Sequence[str], queries: Sequence[Query]) -> None:
        kept = [name for q in queries if q.kept is not None for name in q.kept.classes]
        self.classes = tuple(dict.fromkeys([*classes, *kept]))
        self.rows: list[tuple[str, float, Sequence[Measured]]] = []
        self._records: dict[str, dict[str, Any]] = {}

    def add(self, query: Query) -> np.ndarray:
        """Take an image; its labels uint8 (H, W) in the numbers of :attr:`classes`."""
        result = query.whole()
        table = [0, *(self.classes.index(name) + 1 for name in result.classes)]
        values = np.array(table, np.uint8)[result.labels]
        score = dict(zip(result.classes, map(float, result.scores)))
        measured = [
            (
                score.get(name, 0.0),
                name in result.present,
                float(np.mean(values == label)),
                result.confidence(name) if name in score else 0.0,
            )
            for label, name in enumerate(self.classes, 1)
        ]
        self.rows.append((query.name, query.certainty, measured))
        self._records[query.name] = dict(
            height=values.shape[0],
            width=values.shape[1],
            scores=[one[0] for one in measured],
            annotations=regions_of(values, len(self.classes)),
        )
        return values

    def read(self, name: str) -> dict[str, Any]:
        """As :class:`mmfss.labelling.records.Records` has it."""
        return self._records[name]


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
