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
from PIL import Image
from tqdm import tqdm

from mmfss.apis.images import as_bgr, read_ahead
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.photos import Photo, open_photo
from mmfss.apis.prediction import Marked, Prediction, check_threshold
from mmfss.apis.windows import Tiles
from mmfss.datasets.preparation.instances import need_pycocotools
from mmfss.files import checksum_of
from mmfss.labelling import kept
from mmfss.labelling.folder import RECORDS, geotiff_of
from mmfss.labelling.formats import Terms, check_formats, photo_of, write_formats
from mmfss.labelling.georeference import write_georeferenced
from mmfss.labelling.plan import Plan, Sources, check_name, note_runtimes, prepare
from mmfss.labelling.processes import Processes
from mmfss.labelling.records import (
    OVERLAY_SIDE,
    Records,
    RecordWriter,
    image_state,
    write_result,
)
from mmfss.labelling.tables import Found, write_tables

_MEMORY = (MemoryError, torch.OutOfMemoryError)
_SHOW_SECONDS = 5.0


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        labelled: images labelled by this run.
        done: images that were labelled before, ``edited`` of them changed by a person since.
        edited: labels that were changed; they are kept, and the tables follow them.
        failed: images that could not be labelled.
        seconds: that labelling took.
        annotations: how many annotations.json has of each class.
        georeferences: how many images of this run have a georeference, by what became of it:
            :data:`.georeference.WRITTEN`, or why it is not carried over.
        formats: of each form of other tools that was written, how many of its files were kept, as a
            person has changed them.
        classes: what was found of each class in all images.
    """

    labelled: int
    done: int
    edited: int
    failed: int
    seconds: float
    annotations: Mapping[str, int]
    georeferences: Mapping[str, int]
    formats: Mapping[str, int]
    classes: Mapping[str, Found]


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
    tiles: Tiles | None = None,
    instances: bool = False,
    formats: Sequence[str] = (),
    tolerance: float = 0.0,
    keep_scores: bool = False,
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
        tiles: look at each image through windows, see :mod:`mmfss.apis.windows`; None as a whole.
        instances: annotate objects, not classes, see :mod:`mmfss.labelling.annotations`.
        formats: forms of other tools to write, too, see :mod:`mmfss.labelling.formats`.
        tolerance: of outlines in these, in pixels.
        keep_scores: keep what labels were decided by, see :mod:`mmfss.labelling.kept`; not in
            tiles.

    Returns:
        The same in every process.

    Raises:
        PromptsNotAccepted: There are ``unconfirmed`` ones; a ValueError.
        FileNotFoundError, ValueError: No images, an output folder that is in use, of other values
            or of other things. OSError: Something cannot be written. What is labelled stays.
    """
    need_pycocotools()
    check_formats(formats, tolerance)
    if keep_scores and tiles is not None:
        raise ValueError('scores are kept of photos seen as a whole, not of tiles; leave one out')
    processes, folder = Processes(), Path(os.path.abspath(out))
    with ExitStack() as stack:
        plan = processes.first(
            partial(
                prepare, stack, inferencer, images, folder,
                made_with or {}, info or {}, overwrite, unconfirmed, tiles, instances,
            )
        )  # fmt: skip
        start = time.monotonic()
        work = _Work(inferencer, plan.sources.root, folder, tiles, overlays, instances, keep_scores)
        counts = processes.all(lambda: work.share(plan, processes))
        if plan.pending:  # the first image decides what runs the rest of the method
            record = inferencer.model.encoding.runtimes.record
            processes.first(partial(note_runtimes, folder, record))
        seconds = time.monotonic() - start
        terms = Terms(inferencer.classes, plan.sources.root, instances, tolerance)
        how = inferencer.grey_values.record()
        limits = check_threshold(inferencer.threshold, terms.classes).tolist()
        thresholds = dict(zip(terms.classes, limits))
        about = processes.first(
            lambda: write_about_all(folder, plan.sources, terms, how, thresholds, formats)
        )
    total = sum((Counter(count) for count in counts), Counter())
    done = len(plan.sources.names) - len(plan.pending)
    labelled, failed = total.pop('labelled', 0), total.pop('failed', 0)
    georeferences = dict(sorted(total.items()))
    return Summary(
        labelled, done, plan.edited, failed, seconds, georeferences=georeferences, **about
    )


def write_about_all(
    out: Path,
    sources: Sources,
    terms: Terms,
    grey_values: Mapping[str, Any] | None,
    thresholds: Mapping[str, float],
    formats: Sequence[str],
) -> dict[str, Any]:
    """Write the files about all images, and the labels in forms of other tools; 'annotations',
    'classes' and 'formats' of :class:`Summary`."""
    records = Records(out / RECORDS)
    annotations, classes = write_tables(out, sources, thresholds, records, grey_values)
    names = [n for n in sources.names if n in records.entries and records.entries[n].ok]
    photos = (photo_of(name, records.read(name)) for name in names)
    return dict(
        annotations=annotations,
        classes=classes,
        formats=write_formats(formats, out, photos, terms),
    )


def write_photo(
    out: Path,
    root: Path,
    name: str,
    small: np.ndarray | None,
    prediction: Marked,
    instances: bool,
) -> dict[str, Any]:
    """Write the files of an image; what its record says of it. Arguments as of
    :func:`.records.write_result`; ``root`` is the folder of images."""
    written = write_result(out, name, small, prediction, instances)
    found = write_georeferenced(
        root / name, geotiff_of(out, name), prediction.labels, prediction.palette
    )
    return written if found is None else dict(written, geotiff=found)


# ------------------------------------------------------------------------------------ work
@dataclass(frozen=True)
class _Loaded:
    """An image with its state and CRC-32 before it was decoded, so that one that is replaced in
    between is seen as another one later; or why it cannot be used."""

    name: str
    photo: Photo | None
    stat: tuple[int, int, int] | None = None
    content: int = -1
    error: str = ''


@dataclass(frozen=True)
class _Work:
    """What a process does with its share of the images; see :func:`label_folder`."""

    inferencer: FewShotInferencer
    root: Path
    out: Path
    tiles: Tiles | None
    overlays: bool
    instances: bool
    keep_scores: bool

    def share(self, plan: Plan, processes: Processes) -> Counter[str]:
        """Label this process's share; the number of images 'labelled' and 'failed', and of
        georeferences."""
        names = plan.pending[processes.rank :: processes.world]
        counts = Counter[str]()
        title = 'label' if processes.world == 1 else f'label (1 of {processes.world} shares)'
        with (
            RecordWriter(self.out / RECORDS, plan.run, processes.rank) as writer,
            tqdm(None, title, len(names), unit='image', disable=processes.rank > 0) as bar,
        ):
            for images in self.batches(names):
                for record in self.records(images, bar):
                    writer.add(record)
                    counts['labelled' if record['ok'] else 'failed'] += 1
                    if record.get('geotiff'):
                        counts[record['geotiff']] += 1
                    if not record['ok']:
                        tqdm.write(f'failed: {record["error"]}', file=sys.stderr)
                    bar.update()
        return counts

    def batches(self, names: Sequence[str]) -> Iterator[list[_Loaded]]:
        """The images in order, read ahead; those that are labelled in tiles one by one, as they
        may be so large that there is room for one only."""
        if self.tiles is not None:
            for name in names:
                yield [self.load(name)]
            return
        for batch in read_ahead(self.load, names, self.inferencer.batch_size):
            yield [one.result() for one in batch]

    def load(self, name: str) -> _Loaded:
        path = self.root / name
        stat = image_state(path)
        try:
            check_name(name)
            content = checksum_of(path) if path.is_file() else -1
            how = self.inferencer.grey_values
            if self.tiles is None:
                photo = Photo(as_bgr(path, None, how))
            else:
                photo = open_photo(path, None, how)
            return _Loaded(name, photo, stat, content)
        except _MEMORY:
            reason = f'image {path} does not fit into memory; make it smaller'
        except Exception as error:  # decoders of broken files raise what they like
            reason = f'{error}' or f'image {path} cannot be read ({type(error).__name__})'
            if isinstance(error.__cause__, Image.DecompressionBombError) and self.tiles is None:
                reason += ', or label it in tiles: --tiles 1024'
        return _Loaded(name, None, error=reason)

    def predictions(self, images: Sequence[_Loaded], bar: tqdm) -> Iterator[Marked | Exception]:
        """What each image gives, or why it does not fit into memory or cannot be read further;
        where a batch does not fit, each by itself."""
        if not images:
            return
        failed: Exception | None = None
        photos = [cast(Photo, image.photo) for image in images]
        names = [image.name for image in images]
        try:
            if self.tiles is None:
                yield from self.inferencer.predict([photo.pixels for photo in photos], names)
            else:
                for photo, name in zip(photos, names):
                    done = partial(_show, bar, [time.monotonic()])
                    yield self.inferencer.predict_tiled(
                        photo, self.tiles, name, self.instances, done
                    )
        except _MEMORY as error:
            failed = error.with_traceback(None)  # whose frames would hold what they had taken
        except ValueError as error:
            if self.tiles is None:
                raise
            failed = error
        if failed is None:
            return
        if len(images) == 1:
            yield failed
            return
        for image in images:
            yield from self.predictions([image], bar)

    def records(self, images: Sequence[_Loaded], bar: tqdm) -> Iterator[dict[str, Any]]:
        """The records of images in order, each once its files are written."""
        predictions = self.predictions([one for one in images if one.photo is not None], bar)
        for image in images:
            if image.photo is None:
                yield dict(image=image.name, ok=False, error=image.error)
                continue
            prediction = next(predictions)
            height, width = image.photo.shape
            try:
                with image.photo:
                    if isinstance(prediction, Exception):
                        raise prediction
                    written = self.write(image.name, image.photo, prediction)
            except _MEMORY as error:
                size = f'{width} x {height} pixels'
                reason = (
                    f'image {image.name} does not fit into memory ({size}: {error}); make it '
                    'smaller'
                )
            except ValueError as error:
                reason = f'{error}'
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise  # of the output folder, not of the image: a full disk and the like
                reason = (
                    f'the name of image {image.name} is too long for the file system of '
                    f'{self.out}; rename the image'
                )
            else:
                read = dict(stat=image.stat, content=image.content)
                yield dict(image=image.name, ok=True, **read, **written)
                continue
            yield dict(image=image.name, ok=False, error=reason)

    def write(self, name: str, photo: Photo, prediction: Marked) -> dict[str, Any]:
        """Write the files of an image, whose pixels are given free; what its record says of it."""
        with photo:
            small = photo.small(OVERLAY_SIDE) if self.overlays else None
        if self.keep_scores and isinstance(prediction, Prediction):
            kept.keep_scores(self.out, name, prediction)
        return write_photo(self.out, self.root, name, small, prediction, self.instances)


def _show(bar: tqdm, last: list[float], number: int, of: int) -> None:
    """Say how far a photo in many tiles is, some seconds apart."""
    now = time.monotonic()
    if now - last[0] > _SHOW_SECONDS:
        last[0] = now
        bar.set_postfix_str(f'tile {number} of {of}')
    elif number == of:
        bar.set_postfix_str('', refresh=False)
