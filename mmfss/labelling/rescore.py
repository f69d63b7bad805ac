"""Other thresholds for labels that are there: decided anew from what a run with ``--keep-scores``
kept of each image, to the same bytes as a run with those thresholds; no model is loaded."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mmfss.apis.photos import open_photo
from mmfss.apis.prediction import Prediction
from mmfss.datasets.grey_values import GreyValues
from mmfss.datasets.io import png_of
from mmfss.files import locked
from mmfss.labelling.folder import (
    ANN_DIR,
    LOCK,
    OVERLAYS,
    RECORDS,
    label_name,
    read_run,
    stem_of,
    write_run,
)
from mmfss.labelling.formats import Terms, check_formats
from mmfss.labelling.kept import kept_file, read_scores
from mmfss.labelling.plan import Sources, find_images
from mmfss.labelling.records import (
    OVERLAY_SIDE,
    Records,
    RecordWriter,
    label_state,
    next_run,
)
from mmfss.labelling.run import Summary, write_about_all, write_photo
from mmfss.words import listed

_RESCORING = 'rescoring'  # entry of run.json while thresholds are exchanged


def thresholds_of_run(out: str | os.PathLike) -> dict[str, float]:
    """Those of the classes of a run that is there.

    Raises:
        FileNotFoundError, ValueError: There is none.
    """
    content = read_run(Path(out))
    settings = content['settings']
    values = content['info'].get(_RESCORING, settings['thresholds'])
    return dict(zip(settings['classes'], values, strict=True))


def rescore_folder(
    images: str | os.PathLike,
    out: str | os.PathLike,
    thresholds: Mapping[str, float],
    *,
    instances: bool = False,
    formats: Sequence[str] = (),
    tolerance: float = 0.0,
) -> Summary:
    """Decide the labels of a run anew.

    A label that a person has changed stays, and so does that of a photo that is gone or has another
    size now. Killed half-way, no other run goes on there until this has come to its end.

    Args:
        images, out, instances, formats, tolerance: as of the run, see
            :func:`mmfss.labelling.label_folder`.
        thresholds: of all classes.

    Returns:
        Labels that were decided anew as 'labelled', those that stay as 'done'.

    Raises:
        FileNotFoundError, ValueError: There is no run, or one of other images or forms; the scores
            of some images were not kept, or are damaged.
        OSError: Something cannot be written.
    """
    check_formats(formats, tolerance)
    folder, start = Path(os.path.abspath(out)), time.monotonic()
    read_run(folder)  # before a lock is made there
    with ExitStack() as stack:
        stack.enter_context(locked(folder / LOCK, f'is labelling into {folder}'))
        content, sources, records = _checked(folder, images, instances)
        settings, info = content['settings'], content['info']
        classes = tuple(settings['classes'])
        values = np.array([thresholds[name] for name in classes], np.float32)
        rounded = [round(value, 6) for value in values.tolist()]
        said = 'being exchanged: run the command with --rescore again'
        write_run(folder, {**settings, 'thresholds': said}, {**info, _RESCORING: rounded})
        count, left = 0, 0
        how = GreyValues(**(settings['grey_values'] or {}))
        with RecordWriter(folder / RECORDS, next_run(folder / RECORDS), 0) as writer:
            for name in (name for name in sources.names if name in records.entries):
                if records.entries[name].ok:
                    record = records.read(name)
                    prediction = read_scores(folder, name, classes, values)
                    written = _written(folder, sources.root, record, prediction, instances, how)
                    count, left = count + bool(written), left + (not written)
                    if written:
                        writer.add({**record, **written})
        info.pop(_RESCORING, None)
        write_run(folder, {**settings, 'thresholds': rounded}, info)
        seconds = time.monotonic() - start
        terms = Terms(classes, sources.root, instances, tolerance)
        about = write_about_all(
            folder, sources, terms, settings['grey_values'], dict(zip(classes, rounded)), formats
        )
    failed = sum(not one.ok for one in records.entries.values())  # which are not decided anew
    return Summary(count, left, left, failed, seconds, georeferences={}, **about)


def _checked(
    out: Path, images: str | os.PathLike, instances: bool
) -> tuple[dict[str, Any], Sources, Records]:
    """The content of run.json, the images and their records, once it is sure that all can be
    decided anew."""
    content, sources = read_run(out), find_images(images, out)
    settings = content['settings']
    again = f'label again, with --keep-scores (or --feature-cache): {out} '
    if settings['images'] != str(sources.root):
        raise ValueError(f'{out} has the labels of {settings["images"]}, not of {sources.root}')
    if 'tiles' in settings:
        raise ValueError(f'{again}was labelled in tiles, of which no scores are kept')
    if instances != bool(settings.get('instances')):
        has = 'has no objects' if instances else 'has objects (--instances)'
        raise ValueError(f'{again}{has} in annotations.json')
    records = Records(out / RECORDS)
    lost = [n for n, one in records.entries.items() if one.ok and not kept_file(out, n).is_file()]
    if lost:
        raise ValueError(f'{again}has no scores of {len(lost)} images: {listed(lost, 3)}')
    return content, sources, records


def _written(
    out: Path,
    root: Path,
    record: Mapping[str, Any],
    prediction: Prediction,
    instances: bool,
    how: GreyValues,
) -> dict[str, Any] | None:
    """Write the files of an image; what its record says, None where they stay as they are."""
    name, label = record['image'], out / ANN_DIR / label_name(record['image'])
    if record.get('edited'):
        return None
    state = label_state(label)
    # one of another state is a person's, unless a kill came between it and its record
    if state != tuple(record['label']) and (
        state is not None and label.read_bytes() != png_of(prediction.labels, prediction.palette)
    ):
        return None
    small = None
    if (out / OVERLAYS / f'{stem_of(name)}.jpg').is_file():
        try:
            with open_photo(root / name, None, how) as photo:
                if photo.shape != prediction.labels.shape:
                    return None
                small = photo.small(OVERLAY_SIDE)
        except (FileNotFoundError, ValueError):
            return None
    return write_photo(out, root, name, small, prediction, instances)
