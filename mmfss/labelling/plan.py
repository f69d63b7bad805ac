"""What a run is to do: which images there are, whether it may go on in the output folder, and what
is left."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmfss.apis import support_folder
from mmfss.apis.images import files_below, other_files_below
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.photos import open_photo
from mmfss.apis.prediction import check_threshold
from mmfss.apis.support import SupportSet
from mmfss.apis.windows import Tiles
from mmfss.checkpoints.weights import weights_digest
from mmfss.datasets.classes import label_palette
from mmfss.datasets.io import save_png
from mmfss.encoders.runtimes import joined
from mmfss.files import checksum_of, locked
from mmfss.labelling.annotations import objects_of, regions_of
from mmfss.labelling.folder import (
    ANN_DIR,
    LOCK,
    RECORDS,
    SUPPORT,
    SUPPORT_PICTURE,
    check_run,
    geotiff_of,
    label_name,
    read_run,
    stem_of,
    write_run,
)
from mmfss.labelling.georeference import WRITTEN, write_georeferenced
from mmfss.labelling.records import (
    Records,
    RecordWriter,
    describe_label,
    edited_label,
    image_state,
    is_unchanged,
    label_state,
    next_run,
)
from mmfss.methods.base import NOTHING_TRAINED


class PromptsNotAccepted(ValueError):
    """Masks of supports came from prompts, and nobody has said yet that they are good."""


# ---------------------------------------------------------------------------------- images
@dataclass(frozen=True)
class Sources:
    """Images below one folder.

    Attributes:
        root: the folder, absolute.
        names: paths of the images relative to it, with '/', sorted, each once.
        repeated: how many lines of a list named an image again.
        others: how many files of the folder are not read, for the first 20 endings.
    """

    root: Path
    names: tuple[str, ...]
    repeated: int = 0
    others: str = ''


def find_images(images: str | os.PathLike, out: str | os.PathLike) -> Sources:
    """Find the images.

    Args:
        images: a folder, searched with the folders below it; or a text file (UTF-8) with the path
            of an image on each line, relative ones to the folder of that file. The root of a list
            is the deepest folder that holds all its images.
        out: where results go, for the check that they are not labelled themselves.

    Raises:
        FileNotFoundError: No such folder or list, or none of the listed images is there.
        ValueError: No image; a list that is no text; two images whose results would have one name;
            ``out`` in the folder of images, or images in ``out``.
    """
    path, others = Path(os.path.abspath(images)), Counter[str]()
    if path.is_dir():
        one, other = Path(os.path.realpath(path)), Path(os.path.realpath(out))
        if one == other or one in other.parents or other in one.parents:
            raise ValueError(
                f'the folder of images {path} and the output {out} lie in each other; then results '
                'would be labelled as images. Give an output folder beside the images'
            )
        found, root, listed = files_below(path), path, []
        _check_none_in(found, Path(out))  # links may lead there
        others = Counter(file.suffix or 'none' for file in other_files_below(path))
    elif path.is_file():
        listed = _listed(path)
        found = sorted(set(listed))
        root = Path(os.path.commonpath([file.parent for file in found]))
        _check_none_in(found, Path(out))
    else:
        raise FileNotFoundError(
            f'images {images} not found; give a folder, or a text file with a path on each line'
        )
    names = tuple(file.relative_to(root).as_posix() for file in found)
    check_distinct(names)
    left_out = ', '.join(f'{count} {suffix}' for suffix, count in sorted(others.items())[:20])
    return Sources(root, names, max(0, len(listed) - len(found)), left_out)


def check_name(name: str) -> None:
    """Make sure that files and lists can carry the name of an image.

    Raises:
        ValueError: It is not of UTF-8, has a line break, or begins or ends with a blank where
            mmseg's reader of lists would take it away.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f'the name {ascii(name)} is not of UTF-8; rename the file') from error
    stem = stem_of(name)
    if stem != stem.strip() or '\n' in name or '\r' in name:
        raise ValueError(
            f'the name {name!r} has a line break, or a blank at its begin or before its ending, '
            'which lists of images cannot hold; rename the file'
        )


def check_distinct(names: Iterable[str]) -> None:
    """Make sure that no two images have one label file.

    Raises:
        ValueError: Two do (a.jpg and a.png), or one's label is where another needs a folder.
    """
    owners: dict[str, str] = {}
    for name in names:
        label = label_name(name)
        if label in owners:
            raise ValueError(
                f'{owners[label]} and {name} would both be labelled as ann_dir/{label}; rename or '
                'move one of them (names of images must differ in more than the ending)'
            )
        owners[label] = name
    for label, name in owners.items():
        for folder in PurePosixPath(label).parents:
            if str(folder) in owners:
                raise ValueError(
                    f'the label of {owners[str(folder)]}, ann_dir/{folder}, is where the folder of '
                    f'the label of {name} must be; rename one of them'
                )


def _listed(file: Path) -> list[Path]:
    try:
        lines = file.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{file} is neither a folder nor a text file of UTF-8 with the path of an image on '
            'each line'
        ) from error
    listed = [Path(os.path.abspath(file.parent / line.strip())) for line in lines if line.strip()]
    if not listed:
        raise ValueError(f'{file} lists no image; put the path of one on each line')
    if not any(path.is_file() for path in listed):
        raise FileNotFoundError(
            f'none of the {len(listed)} images in {file} is there, e.g. {listed[0]}; relative '
            f'paths are taken from the folder of the list, {file.parent}'
        )
    return listed


def _check_none_in(found: Iterable[Path], out: Path) -> None:
    folder = Path(os.path.realpath(out))
    for file in found:
        # Path.resolve raises for a link that leads to itself, which is for failed.csv to say
        if folder in Path(os.path.realpath(file)).parents:
            raise ValueError(f'image {file} lies in the output {out}; give another output folder')


# ---------------------------------------------------------------------------------- the plan
@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        sources: all images.
        pending: names of those that are left.
        run: number for the record files.
        edited: how many labels a person has changed.
    """

    sources: Sources
    pending: tuple[str, ...]
    run: int
    edited: int


def prepare(
    stack: ExitStack,
    inferencer: FewShotInferencer,
    images: str | os.PathLike,
    out: Path,
    made_with: Mapping[str, Any],
    info: Mapping[str, Any],
    overwrite: bool,
    unconfirmed: Sequence[str],
    tiles: Tiles | None,
    instances: bool,
) -> Plan:
    """Check everything, take the lock of the output folder, write run.json and the supports, and
    find what is left.

    Args:
        stack: gives the lock back.
        inferencer, images, out, made_with, info, overwrite, unconfirmed, tiles, instances: of
            :func:`mmfss.labelling.label_folder`.

    Raises:
        PromptsNotAccepted: After the supports were drawn.
        FileNotFoundError, ValueError, OSError: See :func:`mmfss.labelling.label_folder`.
    """
    sources = find_images(images, out)
    if sources.repeated:
        print(f'{images} names images again in {sources.repeated} lines; each counts once')
    if sources.others:
        print(f'{images}: left out by their ending: {sources.others}')
    settings = settings_of(inferencer, sources.root, made_with)
    if tiles is not None:
        settings.update(tiles=tiles.size, overlap=tiles.overlap)
    if instances:
        settings.update(instances=True)
    stack.enter_context(locked(out / LOCK, f'is labelling into {out}'))
    goes_on = check_run(out, settings, overwrite)
    picture = support_folder.draw_support(inferencer.support)
    save_png(out / SUPPORT_PICTURE, np.ascontiguousarray(picture[..., ::-1]))
    inferencer.support.account.write(out)
    if unconfirmed and not goes_on:
        raise PromptsNotAccepted(
            f'the masks of {len(unconfirmed)} support images came from prompts: '
            f'{", ".join(unconfirmed[:5])}{", ..." if len(unconfirmed) > 5 else ""}. '
            f'Look at {out / SUPPORT_PICTURE}; if they are good, run the command again with '
            '--accept-prompts, else change the prompts'
        )
    weights = inferencer.weights
    record = inferencer.model.encoding.runtimes.record
    runtimes = read_run(out)['info'].get('runtimes', {}) if goes_on else dict(record)
    known = dict(info, method=inferencer.model.title, runtimes=runtimes)
    known['weights'] = None if weights is None else os.path.abspath(weights)
    if weights is None and not inferencer.model.needs_checkpoint:
        known['trained'] = NOTHING_TRAINED
    if inferencer.support.negatives:
        known['negatives'] = {name: len(n) for name, n in inferencer.support.negatives.items()}
    write_run(out, settings, known)
    inferencer.save_support(out / SUPPORT)
    plan = _find_pending(out, sources, inferencer, instances)
    if plan.pending:
        note_runtimes(out, record)
    return plan


def note_runtimes(out: Path, record: Mapping[str, Mapping[str, Any]]) -> None:
    """Let run.json say what runs the parts of the method now; where another runtime ran one before,
    both.

    Args:
        out: folder of the labels.
        record: of :class:`mmfss.encoders.runtimes.Runtimes`.
    """
    content = read_run(out)
    before = content['info'].get('runtimes', {})
    runtimes = {**before}
    for name, now in record.items():
        runtimes[name] = joined(*filter(None, [before.get(name)]), now)
    if runtimes != before:
        write_run(out, content['settings'], dict(content['info'], runtimes=runtimes))


def settings_of(
    inferencer: FewShotInferencer, root: Path, made_with: Mapping[str, Any]
) -> dict[str, Any]:
    """What determines the labels, in JSON types; runs with other values do not go on."""
    import mmfss

    thresholds = check_threshold(inferencer.threshold, inferencer.classes).tolist()
    return dict(
        mmfss=mmfss.__version__,
        images=str(root),
        classes=list(inferencer.classes),
        thresholds=[round(value, 6) for value in thresholds],
        amp=inferencer.amp,
        grey_values=inferencer.grey_values.record(),
        image_size=inferencer.image_size,
        weights=weights_digest(inferencer.model),
        support=support_digest(inferencer.support),
        **made_with,
    )


def support_digest(support: SupportSet) -> str:
    """SHA-256 of the classes, images and masks of a support set, negatives included, wherever they
    came from."""
    digest = hashlib.sha256()
    for name, shots in support.shots.items():
        digest.update(f'{len(shots)} {name}\n'.encode())
        for shot in shots:
            digest.update(np.ascontiguousarray(shot.image).tobytes() + shot.mask.tobytes())
    for name, negatives in support.negatives.items():
        digest.update(f'not {len(negatives)} {name}\n'.encode())
        for shot in negatives:
            digest.update(np.ascontiguousarray(shot.image).tobytes() + shot.mask.tobytes())
    return digest.hexdigest()


def _find_pending(
    out: Path, sources: Sources, inferencer: FewShotInferencer, instances: bool
) -> Plan:
    records, run = Records(out / RECORDS), next_run(out / RECORDS)
    pending, edited, unusable = [], 0, []
    with RecordWriter(out / RECORDS, run, 0) as writer:
        for name in sources.names:
            entry = records.entries.get(name)
            source = sources.root / name
            if entry is None or not entry.ok:
                pending.append(name)
                continue
            label = label_state(out / ANN_DIR / label_name(name))
            stat = image_state(source)
            same = is_unchanged(source, stat, entry)
            if label == entry.label and same:  # all is as it was written
                if stat != entry.stat:  # so that its content is not read again each time
                    writer.add(records.read(name) | dict(stat=stat))
                continue
            try:
                changed = _edited(
                    out, source, stat, same, records.read(name), inferencer, instances
                )
            except ValueError as error:
                unusable.append(f'{error}')
                continue
            if changed is None:
                pending.append(name)
            else:
                writer.add(changed)
                edited += 1
    if unusable:
        raise ValueError(
            f'{len(unusable)} labels were changed and cannot be used: {"; ".join(unusable[:5])}. '
            'Correct them, or remove those that are to be made anew'
        )
    return Plan(sources, tuple(pending), run + 1, edited)


def _edited(
    out: Path,
    source: Path,
    stat: tuple[int, int, int] | None,
    same: bool,
    before: dict[str, Any],
    inferencer: FewShotInferencer,
    instances: bool,
) -> dict[str, Any] | None:
    """The record of an image whose label a person has changed, since or earlier; None for any
    other, and where another image of other size has taken its place. A GeoTIFF of it follows.

    Raises:
        ValueError: See :func:`mmfss.labelling.records.edited_label`.
    """
    label = out / ANN_DIR / label_name(before['image'])
    if label_state(label) == tuple(before['label']) and not before.get('edited'):
        return None  # it is the image that has changed
    shape = (before['height'], before['width'])
    if not same:
        # a broken one says nothing of its size
        with (
            suppress(FileNotFoundError, ValueError),
            open_photo(source, None, inferencer.grey_values) as photo,
        ):
            if photo.shape != shape:
                return None
    num_classes = len(inferencer.classes)
    labels = edited_label(label, shape, num_classes)
    if labels is None:
        return None
    if before.get('geotiff') == WRITTEN:
        file = geotiff_of(out, before['image'])
        said = write_georeferenced(file, file, labels, label_palette(num_classes))
        if said != WRITTEN:
            print(f'{file} could not be made anew and is not what {label} says: {said or "gone"}')
    annotations = (objects_of if instances else regions_of)(labels, num_classes)
    described = describe_label(label, labels, annotations)
    now: dict[str, Any] = {} if stat is None else dict(stat=stat)
    if now and not same:
        now['content'] = checksum_of(source)
    return before | described | now | dict(edited=True)
