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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from mmfss.datasets.folds import DATASET_FILE, Benchmark, read_description
from mmfss.datasets.palette import label_palette
from mmfss.files import write_text

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
) -> None:
    """Write the lists, then ``dataset.json``: the end of a preparation.

    Args:
        root: Folder of the prepared dataset; its masks are there.
        benchmark: Classes and folds.
        kind: One of :data:`KINDS`.
        images: The image folder.
        splits: ``{name: images}``.
        source: What it was made from: plain values (paths, counts, options).

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
        _check_unique(entries, name, benchmark.name)
    for name, entries in splits.items():
        lines = ''.join(f'{entry.line()}\n' for entry in entries)
        write_text(root / 'splits' / f'{name}.txt', lines)
    content = dict(
        format=FORMAT,
        kind=kind,
        # where the folders really are: '..' is followed from the target of a link
        images=os.path.relpath(Path(images).resolve(), root.resolve()),
        splits={name: len(entries) for name, entries in splits.items()},
        benchmark=benchmark.to_dict(),
        source=dict(source),
    )
    write_text(root / DATASET_FILE, json.dumps(content, indent=1) + '\n')


def _check_unique(entries: Sequence[Entry], split: str, benchmark: str) -> None:
    stems = Counter(str(PurePosixPath(entry.image).with_suffix('')) for entry in entries)
    twice = sorted(stem for stem, count in stems.items() if count > 1)
    if twice:
        raise ValueError(
            f'split {split!r} of {benchmark} has images of one name: {twice[:5]}; '
            'image names must differ by more than their suffix'
        )


@DATASETS.register_module()
class PreparedDataset(BaseSegDataset):
    """A dataset made by ``tools/prepare.py``: your own folder, or a further benchmark.

    With label maps it is an ordinary mmseg dataset; with class masks its items have
    ``class_mask_paths`` ``{class id: file}`` in place of ``seg_map_path``, and episodes are drawn
    from it. Classes and palette come from its ``dataset.json``.

    Args:
        data_root: The prepared folder.
        split: Name of a list in ``splits/``, or several, of which the first that is there is
            taken.
        lazy_init: Read no list yet.
        serialize_data: Keep the list as bytes shared among data workers.

    Raises:
        FileNotFoundError: No finished prepared dataset, or images or masks are gone.
        ValueError: No such split; a list or ``dataset.json`` is damaged.
    """

    def __init__(
        self,
        data_root: str,
        split: str | Sequence[str],
        lazy_init: bool = False,
        serialize_data: bool = True,
    ) -> None:
        content = read_description(data_root)
        if content.get('format') != FORMAT or content.get('kind') not in KINDS:
            raise ValueError(
                f'{data_root} was prepared in format {content.get("format")} '
                f'({content.get("kind")}), expected {FORMAT}; run tools/prepare.py again'
            )
        names = [split] if isinstance(split, str) else list(split)
        found = [name for name in names if name in content['splits']]
        if not found:
            raise ValueError(
                f'split of {data_root} must be one of {sorted(content["splits"])}, got {split!r}'
            )
        self.kind = content['kind']
        self._expected = int(content['splits'][found[0]])
        classes = ('background', *Benchmark.from_dict(content['benchmark']).classes)
        super().__init__(
            ann_file=f'splits/{found[0]}.txt',
            metainfo=dict(classes=classes, palette=label_palette(len(classes) - 1)),
            data_root=data_root,
            data_prefix=dict(img_path=content['images'], seg_map_path='masks'),
            lazy_init=lazy_init,
            serialize_data=serialize_data,
        )

    def load_data_list(self) -> list[dict]:
        """Image and mask paths in the order of the list."""
        root, images = Path(self.data_root), Path(self.data_prefix['img_path'])
        rows = []
        for entry in self._entries():
            row = dict(
                img_path=str(images / entry.image),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            if self.kind == 'label_maps':
                row['seg_map_path'] = str(mask_path(root, entry.image))
            else:
                row['class_mask_paths'] = {
                    c: str(mask_path(root, entry.image, c)) for c in entry.classes
                }
            rows.append(row)
        missing = [row['img_path'] for row in rows if not os.path.isfile(row['img_path'])]
        if missing:
            raise FileNotFoundError(
                f'{len(missing)} of {len(rows)} images not found in {images}: '
                f'{", ".join(missing[:3])}; restore them, or run tools/prepare.py again'
            )
        return rows

    def _entries(self) -> list[Entry]:
        try:
            text = Path(self.ann_file).read_text(encoding='utf-8')
            entries = [Entry.parse(line) for line in text.splitlines() if line]
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(
                f'list {self.ann_file} is missing or damaged ({error}); run tools/prepare.py again'
            ) from error
        if len(entries) != self._expected:
            raise ValueError(
                f'list {self.ann_file} has {len(entries)} images, {DATASET_FILE} says '
                f'{self._expected}; run tools/prepare.py again'
            )
        return entries
