"""The form into which ``tools/prepare.py`` brings a dataset that has none of its own.

::

    ROOT/dataset.json               benchmark (classes, folds), kind of masks, image folder, source
    ROOT/splits/<split>.txt         one image a line, relative to the image folder; for class masks
                                    a tab and the class ids that have a mask
    ROOT/masks/<image>.png          label maps: 0 background, 1..C classes (C <= 254), 255 ignored
    ROOT/masks/<id>/<image>.png     class masks: 0, 1 the class, 255 ignored; a file per class, so
                                    that classes may overlap and there may be thousands
    ROOT/images/                    only where images had to be made (cut, shrunk); else they stay
                                    where they are

``<image>`` is the image's path in its folder without suffix. ``dataset.json`` is written last: a
folder without it is unfinished.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmfss.datasets.folds import DATASET_FILE, Benchmark
from mmfss.files import write_text
from mmfss.words import repeated

FORMAT = 1
KINDS = ('label_maps', 'class_masks')
MAX_LABELS = 254


@dataclass(frozen=True)
class Entry:
    """An image of a split.

    Args:
        image: Its path relative to the image folder, with '/' between folders.
        classes: For class masks, the ids that have a mask, ascending; else empty.
    """

    image: str
    classes: tuple[int, ...] = ()

    def line(self) -> str:
        """The line of the split file."""
        return '\t'.join([self.image, ' '.join(map(str, self.classes))]).rstrip('\t')

    @classmethod
    def parse(cls, line: str) -> Entry:
        """Inverse of :meth:`line`; ValueError for anything else."""
        image, _, ids = line.partition('\t')
        return cls(image, tuple(int(i) for i in ids.split()))


def mask_path(root: str | os.PathLike, image: str, class_id: int | None = None) -> Path:
    """Where the mask of an image lies: its label map, or that of one class."""
    stem = str(PurePosixPath(image).with_suffix('.png'))
    folder = Path(root) / 'masks'
    return folder / stem if class_id is None else folder / str(class_id) / stem


def write_description(
    root: str | os.PathLike,
    benchmark: Benchmark,
    kind: str,
    images: str | os.PathLike,
    splits: Mapping[str, Sequence[Entry]],
    source: Mapping,
    upright: bool = False,
) -> None:
    """Write the lists, then ``dataset.json``: the end of a preparation.

    Args:
        root: Folder of the prepared dataset; its masks are there.
        benchmark: Classes and folds.
        kind: One of :data:`KINDS`.
        images: The image folder.
        splits: ``{name: images}``.
        source: What it was made from: plain values (paths, counts, options).
        upright: Masks are of photos as a viewer shows them, not as they are stored.

    Raises:
        ValueError: Unknown kind, too many classes for label maps, an image listed twice.
    """
    root = Path(root)
    if kind not in KINDS:
        raise ValueError(f'kind of masks must be one of {list(KINDS)}, got {kind!r}')
    if kind == 'label_maps' and len(benchmark.classes) > MAX_LABELS:
        raise ValueError(
            f'{benchmark.name}: label maps hold at most {MAX_LABELS} classes, got '
            f'{len(benchmark.classes)}; use class masks'
        )
    for name, entries in splits.items():
        twice = repeated(str(PurePosixPath(entry.image).with_suffix('')) for entry in entries)
        if twice:
            raise ValueError(
                f'split {name!r} of {benchmark.name} has images of one name: {sorted(twice)[:5]}; '
                'image names must differ by more than their suffix'
            )
    for name, entries in splits.items():
        lines = ''.join(f'{entry.line()}\n' for entry in entries)
        write_text(root / 'splits' / f'{name}.txt', lines)
    content = dict(
        format=FORMAT,
        kind=kind,
        # where the folders really are: '..' is followed from the target of a link
        images=os.path.relpath(os.path.realpath(images), os.path.realpath(root)),
        **(dict(upright=True) if upright else {}),
        splits={name: len(entries) for name, entries in splits.items()},
        benchmark=benchmark.to_dict(),
        source=dict(source),
    )
    write_text(root / DATASET_FILE, json.dumps(content, indent=1) + '\n')


def read_entries(file: str | os.PathLike, number: int) -> list[Entry]:
    """The lines of the list of a split.

    Args:
        file: The list.
        number: Of its lines, as dataset.json says.

    Raises:
        ValueError: It is missing, damaged, or has another number of lines.
    """
    try:
        text = Path(file).read_text(encoding='utf-8')
        entries = [Entry.parse(line) for line in text.splitlines() if line]
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f'list {file} is missing or damaged ({error}); run tools/prepare.py again'
        ) from error
    if len(entries) != number:
        raise ValueError(
            f'list {file} has {len(entries)} images, {DATASET_FILE} says {number}; '
            'run tools/prepare.py again'
        )
    return entries
