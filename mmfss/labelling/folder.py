"""The output folder: what is where in it; one run at a time, of one set of values, never over other
files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mmfss.files import PART_SUFFIX, remove_parts, write_text

ANN_DIR, OVERLAYS, LISTS, RECORDS = 'ann_dir', 'overlays', 'lists', 'records'
GEOTIFF, KEPT = 'geotiff', 'scores'
COCO, SCORES, FAILED, DATASET = 'annotations.json', 'scores.csv', 'failed.csv', 'dataset.py'
DATASET_NAMES = 'labelled.json'
SUPPORT, SUPPORT_PICTURE = 'support.safetensors', 'support.png'
RUN, LOCK = 'run.json', '.label.lock'
FORMAT_FOLDERS = (
    'coco-polygons',
    'labelme',
    'labelme-masks',
    'yolo',
    'label-studio',
    'label-studio-polygons',
    'voc',
)
"""Of labels in the forms of other tools, :mod:`mmfss.labelling.formats`, by their names."""
_FOLDERS = (ANN_DIR, OVERLAYS, GEOTIFF, LISTS, *FORMAT_FOLDERS, KEPT, RECORDS)
_FILES = (COCO, SCORES, FAILED, DATASET, DATASET_NAMES, SUPPORT, SUPPORT_PICTURE)
FORMAT = 'mmfss-labels-1'


def label_name(name: str) -> str:
    """Where the label of an image goes, relative to ann_dir: its path with the ending '.png'."""
    return stem_of(name) + '.png'


def stem_of(name: str) -> str:
    """The relative path of an image without its ending, as lists of mmseg have it."""
    return name.removesuffix(PurePosixPath(name).suffix)


def geotiff_of(out: Path, name: str) -> Path:
    """Where the label of a georeferenced image is, with its georeference."""
    return out / GEOTIFF / f'{stem_of(name)}.tif'


def check_run(out: Path, settings: Mapping[str, Any], overwrite: bool) -> bool:
    """Make sure that what is in the folder is of a run with the same settings; else nothing of a
    run may be there. Removes what a killed run was just writing.

    Args:
        out: the folder, locked.
        settings: what determines the results, of JSON types.
        overwrite: remove what an earlier run left, instead of going on with it.

    Returns:
        Whether there is a run to go on with.

    Raises:
        ValueError: Other settings, or files that no run of this command wrote; the message names
            them.
    """
    run = out / RUN
    if not run.exists():
        # the picture alone is of a run that stopped for it to be looked at
        found = [n for n in (*_FOLDERS, *_FILES) if n != SUPPORT_PICTURE and (out / n).exists()]
        if found:
            raise ValueError(
                f'{out} holds {", ".join(found)} but no {RUN}, so it is not of this command and '
                'would be written over; give another output folder'
            )
    elif overwrite:
        _read(run)
        for name in _FOLDERS:
            if (out / name).exists():
                shutil.rmtree(out / name)
        for name in (*_FILES, RUN):  # run.json last: until then the folder is known as ours
            (out / name).unlink(missing_ok=True)
    else:
        _check_same(out, _read(run)['settings'], json.loads(json.dumps(dict(settings))))
    # half-written files, only where this command writes: the folder may hold other things
    for name in _FOLDERS:
        remove_parts(out / name)
    for name in (*_FILES, RUN):
        for part in out.glob(f'.{name}.*{PART_SUFFIX}'):
            part.unlink(missing_ok=True)
    return run.exists()


def write_run(out: Path, settings: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    """Write run.json: the settings, and beside them what is only to be known."""
    content = dict(format=FORMAT, settings=dict(settings), info=dict(info))
    write_text(out / RUN, json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + '\n')


def known_check(out: Path, support: str) -> dict[str, Any] | None:
    """The record of the self-check that a run in the folder began with.

    Args:
        out: the folder, which need not be there.
        support: digest of the supports that it is to be of.

    Returns:
        None where there is no run, or it made none, or of other supports; whatever else is wrong
        with the folder is said by :func:`check_run`.
    """
    try:
        content = _read(out / RUN)
        if content['settings']['support'] == support:
            return dict(content['info']['self_check'])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def read_run(out: Path) -> dict[str, Any]:
    """The content of run.json: 'settings' and 'info'.

    Raises:
        FileNotFoundError: There is no run. ValueError: It is of something else.
    """
    if not (out / RUN).is_file():
        raise FileNotFoundError(f'{out} has no {RUN}, so there are no labels of a run in it')
    content = _read(out / RUN)
    return dict(settings=content['settings'], info=content['info'])


def _read(run: Path) -> dict[str, Any]:
    try:
        content = json.loads(run.read_text(encoding='utf-8'))
        if content['format'] == FORMAT:
            return dict(content, settings=dict(content['settings']))
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f'{run} is not of the format {FORMAT!r}, so this folder holds something else than labels '
        'of this version of the command; give another output folder'
    )


def _check_same(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    def short(value: Any, limit: int = 200) -> str:  # long enough for a path
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return text if len(text) <= limit else text[:limit] + '...'

    changes = [
        f'{key} was {short(before.get(key))}, now {short(now.get(key))}'
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changes:
        raise ValueError(
            f'{out} holds labels that were made with other values: {"; ".join(changes)}. Give '
            'another output folder, the same values to go on there, or --overwrite, which removes '
            'those labels and starts anew'
        )
