"""What a run is to do: which images are left, and whether it may go on in the output folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmfss.apis import support_folder
from mmfss.apis.images import as_bgr
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.prediction import check_threshold
from mmfss.apis.support import SupportSet
from mmfss.datasets.io import save_png
from mmfss.labelling import outputs
from mmfss.labelling.folder import (
    ANN_DIR,
    RECORDS,
    SUPPORT,
    SUPPORT_PICTURE,
    check_run,
    locked,
    write_run,
)
from mmfss.labelling.records import Records, RecordWriter, next_run
from mmfss.labelling.sources import Sources, find_images, label_name


class PromptsNotAccepted(ValueError):
    """Masks of supports came from prompts, and nobody has said yet that they are good."""


@dataclass(frozen=True)
class Task:
    """What the caller of :func:`mmfss.labelling.label_folder` gave; see there."""

    inferencer: FewShotInferencer
    images: str | os.PathLike
    out: Path
    made_with: Mapping[str, Any]
    info: Mapping[str, Any]
    overwrite: bool
    unconfirmed: Sequence[str]


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


def prepare(task: Task, stack: ExitStack) -> Plan:
    """Check everything, take the lock of the output folder (the stack gives it back), write
    run.json and the supports, and find what is left.

    Raises:
        PromptsNotAccepted: After the supports were drawn.
        FileNotFoundError, ValueError, OSError: See :func:`mmfss.labelling.label_folder`.
    """
    sources = find_images(task.images, task.out)
    if sources.repeated:
        print(f'{task.images} names images again in {sources.repeated} lines; each counts once')
    if sources.others:
        print(f'{task.images}: left out by their ending: {sources.others}')
    settings = settings_of(task.inferencer, sources.root, task.made_with)
    stack.enter_context(locked(task.out))
    goes_on = check_run(task.out, settings, task.overwrite)
    picture = support_folder.draw_support(task.inferencer.support)
    save_png(task.out / SUPPORT_PICTURE, np.ascontiguousarray(picture[..., ::-1]))
    if task.unconfirmed and not goes_on:
        raise PromptsNotAccepted(
            f'the masks of {len(task.unconfirmed)} support images came from prompts: '
            f'{", ".join(task.unconfirmed[:5])}{", ..." if len(task.unconfirmed) > 5 else ""}. '
            f'Look at {task.out / SUPPORT_PICTURE}; if they are good, run the command again with '
            '--accept-prompts, else change the prompts'
        )
    write_run(task.out, settings, task.info)
    task.inferencer.save_support(task.out / SUPPORT)
    return _find_pending(task.out, sources, len(task.inferencer.classes))


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
        image_size=inferencer.image_size,
        weights=weights_digest(inferencer.model),
        support=support_digest(inferencer.support),
        **made_with,
    )


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of the names and values of all weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode() + bytes(raw.numpy()))
    return digest.hexdigest()


def support_digest(support: SupportSet) -> str:
    """SHA-256 of the classes, images and masks of a support set, wherever they came from."""
    digest = hashlib.sha256()
    for name, shots in support.shots.items():
        digest.update(f'{len(shots)} {name}\n'.encode())
        for shot in shots:
            digest.update(np.ascontiguousarray(shot.image).tobytes() + shot.mask.tobytes())
    return digest.hexdigest()


def _find_pending(out: Path, sources: Sources, num_classes: int) -> Plan:
    records, run = Records(out / RECORDS), next_run(out / RECORDS)
    pending, edited, unusable = [], 0, []
    with RecordWriter(out / RECORDS, run, 0) as writer:
        for name in sources.names:
            entry = records.entries.get(name)
            if entry is None or not entry.ok:
                pending.append(name)
            elif not outputs.is_done(out, sources.root / name, name, entry):
                try:
                    changed = _edited(out, sources.root, records.read(name), num_classes)
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
    out: Path, root: Path, before: dict[str, Any], num_classes: int
) -> dict[str, Any] | None:
    """The record of an image whose label a person has changed, since or earlier; None for any
    other, and where another image of other size has taken its place.

    Raises:
        ValueError: See :func:`.outputs.edited_label`.
    """
    path, source = out / ANN_DIR / label_name(before['image']), root / before['image']
    if outputs.label_state(path) == tuple(before['label']) and not before.get('edited'):
        return None  # it is the image that has changed
    stat, shape = outputs.image_state(source), (before['height'], before['width'])
    if stat != tuple(before['stat']):
        with suppress(FileNotFoundError, ValueError):  # a broken one says nothing of its size
            if as_bgr(source).shape[:2] != shape:
                return None
    labels = outputs.edited_label(path, shape, num_classes)
    if labels is None:
        return None
    described = outputs.describe_label(path, labels, num_classes)
    return before | described | dict(stat=stat or before['stat'], edited=True)
