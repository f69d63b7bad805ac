"""Label all images of a folder: plan, work, tables.

One process plans what is left to do, every process does its share, one writes the tables. With an
inferencer of ``batch_size=1`` what an image gives depends on the image, the model and the supports
alone, so neither the number of processes nor interruptions change a byte (as long as each process
has as many threads: sums of floats depend on that). In larger batches it depends on the images
beside it by rounding: a run that is not interrupted gives the same bytes each time, one that is
resumed or shared by another number of processes may differ in the last digits of scores and in
single pixels on the border of a region.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tqdm import tqdm

from mmfss.apis.images import as_bgr, read_ahead
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.prediction import Prediction
from mmfss.datasets.grey_values import GreyValues
from mmfss.datasets.preparation.instances import need_pycocotools
from mmfss.labelling.folder import RECORDS
from mmfss.labelling.plan import Plan, check_name, prepare
from mmfss.labelling.processes import Processes
from mmfss.labelling.records import Records, RecordWriter, image_state, write_result
from mmfss.labelling.tables import write_tables

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
        images: a folder, or a text file with paths; see :func:`.plan.find_images`.
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
    with ExitStack() as stack:
        plan = processes.first(
            partial(
                prepare, stack, inferencer, images, folder,
                made_with or {}, info or {}, overwrite, unconfirmed,
            )
        )  # fmt: skip
        start = time.monotonic()
        counts = processes.all(lambda: _work(inferencer, plan, folder, overlays, processes))
        seconds = time.monotonic() - start
        processes.first(
            lambda: write_tables(
                folder,
                plan.sources,
                inferencer.classes,
                Records(folder / RECORDS),
                inferencer.grey_values.record(),
            )
        )
    total = sum((Counter(count) for count in counts), Counter())
    done = len(plan.sources.names) - len(plan.pending)
    return Summary(total['labelled'], done, plan.edited, total['failed'], seconds)


# ------------------------------------------------------------------------------------ work
@dataclass(frozen=True)
class _Loaded:
    """An image uint8 (H, W, 3) BGR with its state before it was read; or why it cannot be used."""

    name: str
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
        tqdm(None, title, len(share), unit='image', disable=processes.rank > 0) as bar,
    ):
        for batch in read_ahead(
            partial(_read, plan.sources.root, inferencer.grey_values), share, inferencer.batch_size
        ):
            for record in _records_of(inferencer, [one.result() for one in batch], out, overlays):
                writer.add(record)
                counts['labelled' if record['ok'] else 'failed'] += 1
                if not record['ok']:
                    tqdm.write(f'failed: {record["error"]}', file=sys.stderr)
                bar.update()
    return counts


def _read(root: Path, grey_values: GreyValues, name: str) -> _Loaded:
    path = root / name
    stat = image_state(path)
    try:
        check_name(name)
        return _Loaded(name, as_bgr(path, None, grey_values), stat)
    except _MEMORY:
        return _Loaded(name, None, stat, f'image {path} does not fit into memory; make it smaller')
    except Exception as error:  # decoders of broken files raise what they like
        kind = type(error).__name__
        return _Loaded(name, None, stat, f'{error}' or f'image {path} cannot be read ({kind})')


def _predict(
    inferencer: FewShotInferencer, images: Sequence[_Loaded]
) -> Iterator[Prediction | Exception]:
    """What each image gives, or why it does not fit into memory; where a batch does not, each by
    itself."""
    if not images:
        return
    failed: Exception | None = None
    try:
        pixels = [cast(np.ndarray, image.pixels) for image in images]
        yield from inferencer.predict(pixels, [image.name for image in images])
    except _MEMORY as error:
        failed = error.with_traceback(None)  # whose frames would hold what they had taken
    if failed is None:
        return
    if len(images) == 1:
        yield failed
        return
    for image in images:
        yield from _predict(inferencer, [image])


def _records_of(
    inferencer: FewShotInferencer, images: Sequence[_Loaded], out: Path, overlays: bool
) -> Iterator[dict[str, Any]]:
    """The records of images in order, each once its files are written."""
    predictions = _predict(inferencer, [one for one in images if one.pixels is not None])
    for image in images:
        if image.pixels is None:
            yield dict(image=image.name, ok=False, error=image.error)
            continue
        prediction = next(predictions)
        try:
            if isinstance(prediction, Exception):
                raise prediction
            written = write_result(out, image.name, image.pixels, prediction, overlays)
        except _MEMORY as error:
            height, width = image.pixels.shape[:2]
            size = f'{width} x {height} pixels'
            reason = (
                f'image {image.name} does not fit into memory ({size}: {error}); make it smaller'
            )
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise  # of the output folder, not of the image: a full disk and the like
            reason = (
                f'the name of image {image.name} is too long for the file system of {out}; rename '
                'the image'
            )
        else:
            yield dict(image=image.name, ok=True, stat=image.stat, **written)
            continue
        yield dict(image=image.name, ok=False, error=reason)
