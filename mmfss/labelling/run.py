"""Label all images of a folder: plan, work, tables.

One process plans what is left to do, every process does its share, one writes the tables. What an
image gives depends on the image, the model and the supports alone, so neither the number of
processes nor interruptions change a byte (as long as each process has as many threads: sums of
floats depend on that).
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tqdm import tqdm

from mmfss.apis.images import as_bgr
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.prediction import Prediction
from mmfss.datasets.preparation.instances import need_pycocotools

from . import outputs
from .folder import RECORDS
from .plan import Plan, Task, prepare
from .processes import Processes
from .records import Records, RecordWriter
from .sources import check_name
from .tables import write_tables

_MEMORY = (MemoryError, torch.OutOfMemoryError)


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        labelled: images labelled by this run.
        done: images that were labelled before, ``edited`` of them changed by a person since.
        edited: labels that were changed; they are kept, and the tables follow them.
        failed: images that could not be labelled.
        seconds: that labelling took.
    """

    labelled: int
    done: int
    edited: int
    failed: int
    seconds: float


def label_folder(
    inferencer: FewShotInferencer,
    images: str | os.PathLike,
    out: str | os.PathLike,
    *,
    made_with: Mapping[str, Any] | None = None,
    info: Mapping[str, Any] | None = None,
    overlays: bool = True,
    overwrite: bool = False,
    unconfirmed: Sequence[str] = (),
) -> Summary:
    """Label a folder of images of any size; a run that was interrupted goes on.

    See :mod:`mmfss.labelling` for the files that are written. In a process group (torch.distributed
    is initialised) all processes call this, with equal models and supports, and share the images.

    Args:
        inferencer: has its support set and threshold.
        images: a folder, or a text file with paths; see :func:`.sources.find_images`.
        out: the output folder; made if it is not there.
        made_with: what else determines the results, of JSON types, e.g. the model's config; a run
            goes on only where it is equal.
        info: what else run.json is to say.
        overlays: write them.
        overwrite: remove what an earlier run left in ``out`` and start anew.
        unconfirmed: support images whose masks nobody has looked at: the run stops once they are
            drawn, unless it goes on with one that was started with these masks.

    Returns:
        The same in every process.

    Raises:
        PromptsNotAccepted: There are ``unconfirmed`` ones; a ValueError.
        FileNotFoundError, ValueError: No images, an output folder that is in use, of other values
            or of other things. OSError: Something cannot be written. What is labelled stays.
    """
    need_pycocotools()
    processes, folder = Processes(), Path(os.path.abspath(out))
    task = Task(inferencer, images, folder, made_with or {}, info or {}, overwrite, unconfirmed)
    with ExitStack() as stack:
        plan = processes.first(lambda: prepare(task, stack))
        start = time.monotonic()
        counts = processes.all(lambda: _work(inferencer, plan, folder, overlays, processes))
        seconds = time.monotonic() - start
        processes.first(
            lambda: write_tables(
                folder, plan.sources, inferencer.classes, Records(folder / RECORDS)
            )
        )
    total = sum((Counter(count) for count in counts), Counter())
    done = len(plan.sources.names) - len(plan.pending)
    return Summary(total['labelled'], done, plan.edited, total['failed'], seconds)


# ------------------------------------------------------------------------------------ work
@dataclass(frozen=True)
class _Loaded:
    """An image uint8 (H, W, 3) BGR with its state before it was read; or why it cannot be used."""

    pixels: np.ndarray | None
    stat: tuple[int, int] | None
    error: str = ''


def _work(
    inferencer: FewShotInferencer, plan: Plan, out: Path, overlays: bool, processes: Processes
) -> dict[str, int]:
    """Label this process's share; the number of images 'labelled' and 'failed'."""
    share = plan.pending[processes.rank :: processes.world]
    counts = dict(labelled=0, failed=0)
    title = 'label' if processes.world == 1 else f'label (1 of {processes.world} shares)'
    with (
        RecordWriter(out / RECORDS, plan.run, processes.rank) as writer,
        tqdm(share, title, unit='image', disable=processes.rank > 0, mininterval=0.5) as bar,
    ):
        for name, loaded in zip(bar, _read_ahead(plan.sources.root, share)):
            record = _label(inferencer, name, loaded, out, overlays)
            writer.add(record)
            counts['labelled' if record['ok'] else 'failed'] += 1
            if not record['ok']:
                tqdm.write(f'failed: {record["error"]}', file=sys.stderr)
    return counts


def _read_ahead(root: Path, names: Sequence[str]) -> Iterator[_Loaded]:
    """The images; one is decoded while the model works on the one before."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(_read, root, name) for name in names[:1]]
        for i in range(len(names)):
            loaded = coming.pop().result()
            coming += [pool.submit(_read, root, name) for name in names[i + 1 : i + 2]]
            yield loaded


def _read(root: Path, name: str) -> _Loaded:
    path = root / name
    stat = outputs.image_state(path)
    try:
        check_name(name)
        return _Loaded(as_bgr(path), stat)
    except _MEMORY:
        return _Loaded(None, stat, f'image {path} does not fit into memory; make it smaller')
    except Exception as error:  # decoders of broken files raise what they like
        kind = type(error).__name__
        return _Loaded(None, stat, f'{error}' or f'image {path} cannot be read ({kind})')


def _label(
    inferencer: FewShotInferencer, name: str, loaded: _Loaded, out: Path, overlays: bool
) -> dict[str, Any]:
    """Write what one image gives; its record, which is to be added after that."""
    if loaded.pixels is None:
        return dict(image=name, ok=False, error=loaded.error)
    try:
        prediction = cast(Prediction, inferencer(loaded.pixels))
        if overlays:
            outputs.write_overlay(out, name, loaded.pixels, prediction)
        written = outputs.write_label(out, name, prediction)
    except _MEMORY as error:
        height, width = loaded.pixels.shape[:2]
        reason = f'does not fit into memory ({width} x {height} pixels: {error}); make it smaller'
        return dict(image=name, ok=False, error=f'image {name} {reason}')
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise  # of the output folder, not of the image: a full disk and the like
        reason = f'is too long for the file system of {out}; rename the image'
        return dict(image=name, ok=False, error=f'the name of image {name} {reason}')
    scores = outputs.scores_of(prediction)
    return dict(image=name, ok=True, stat=loaded.stat, **written, **scores)
