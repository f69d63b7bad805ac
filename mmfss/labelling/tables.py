"""The files about all images, made from the records: the same for the same records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from mmfss.datasets.classes import label_palette
from mmfss.files import atomic, write_csv, write_text
from mmfss.labelling.folder import (
    ANN_DIR,
    COCO,
    DATASET,
    DATASET_NAMES,
    FAILED,
    LISTS,
    SCORES,
    stem_of,
)
from mmfss.labelling.plan import Sources
from mmfss.labelling.records import Records

Measured = tuple[float, bool, float, float]
"""Of a class in an image: its object score, whether it is there, its share of the pixels, and its
confidence."""


class Readable(Protocol):
    """What has a record for each image: :class:`.records.Records`."""

    def read(self, name: str) -> dict[str, Any]:
        """The record of an image, a new object each time or one that may be changed."""


@dataclass(frozen=True)
class Found:
    """What was found of a class.

    Attributes:
        present: images that show it.
        of: images that are labelled.
        best, median: object scores.
        threshold: from which on it is there.
        near: images that miss the threshold by less than :data:`NEAR`.
    """

    present: int
    of: int
    best: float
    median: float
    threshold: float
    near: int


NEAR = 0.05


def _found_of(
    images: Sequence[Sequence[Measured]], thresholds: Mapping[str, float]
) -> dict[str, Found]:
    """What was found of each class, by what was measured in each image."""
    found = {}
    for column, (name, threshold) in enumerate(thresholds.items()):
        own = np.array([measured[column][0] for measured in images])
        near = (own < threshold) & (own >= threshold - NEAR)
        best, median = (own.max(), np.median(own)) if len(own) else (0.0, 0.0)
        found[name] = Found(
            sum(measured[column][1] for measured in images), len(own), float(best), float(median),
            threshold, int(near.sum()),
        )  # fmt: skip
    return found


def write_tables(
    out: Path,
    sources: Sources,
    thresholds: Mapping[str, float],
    records: Records,
    grey_values: Mapping[str, Any] | None = None,
) -> tuple[dict[str, int], dict[str, Found]]:
    """Write annotations.json, scores.csv, failed.csv, lists/, dataset.py and labelled.json.

    Args:
        out: the output folder.
        sources: the images; what the folder holds of others is left out.
        thresholds: of the classes, in the order of their labels 1..N.
        records: with all of them.
        grey_values: how photos of more than 8 bits were read.

    Returns:
        How many annotations there are of each class, and what was found of it.

    Raises:
        OSError: Something cannot be written.
    """
    known = [name for name in sources.names if name in records.entries]
    labelled = [name for name in known if records.entries[name].ok]
    failed = [name for name in known if not records.entries[name].ok]
    classes = tuple(thresholds)
    counts = write_coco(out / COCO, labelled, classes, records)
    rows = list(_measured(labelled, records))
    write_scores(out / SCORES, classes, rows)
    errors = ((name, records.read(name)['error']) for name in failed)
    write_csv(out / FAILED, ('image', 'error'), errors)
    _write_dataset(out, sources.root, labelled, classes, grey_values)
    found = _found_of([measured for _, _, measured in rows], thresholds)
    return {name: counts[i] for i, name in enumerate(classes, 1)}, found


def write_scores(
    path: Path, classes: Sequence[str], images: Iterable[tuple[str, float, Sequence[Measured]]]
) -> None:
    """Write scores.csv.

    Args:
        path: of the file.
        classes: names of the labels 1..N.
        images: of each its name, its certainty, and what was measured of each class, in the order
            of the rows.
    """
    parts = ('score', 'present', 'share', 'confidence')
    head = ['image', 'certainty', *(f'{name} {part}' for name in classes for part in parts)]
    rows = (
        [name, f'{certainty:.6f}']
        + [
            text
            for score, there, share, confidence in measured
            for text in (f'{score:.6f}', f'{there:d}', f'{share:.6f}', f'{confidence:.6f}')
        ]
        for name, certainty, measured in images
    )
    write_csv(path, head, rows)


def _measured(
    names: Sequence[str], records: Records
) -> Iterator[tuple[str, float, Sequence[Measured]]]:
    """For :func:`write_scores`, the least certain first."""
    for name in sorted(names, key=lambda name: (records.entries[name].certainty, name)):
        record = records.read(name)
        areas = Counter[int]()
        for one in record['annotations']:
            areas[one['category_id']] += one['area']
        pixels = record['height'] * record['width']
        both = zip(record['scores'], record['confidence'], strict=True)
        yield (
            name,
            record['certainty'],
            [
                (score, label in areas, areas[label] / pixels, confidence)
                for label, (score, confidence) in enumerate(both, 1)
            ],
        )


def write_coco(
    path: Path, names: Sequence[str], classes: Sequence[str], records: Readable
) -> Counter[int]:
    """Write annotations.json, one item at a time: the file may be larger than the memory.

    Args:
        path: of the file.
        names: of the images.
        classes: names of the labels 1..N.
        records: of each image what :func:`.records.describe_label` says, and 'scores'.

    Returns:
        How many annotations there are of each category.
    """
    counts = Counter[int]()
    dumps = partial(json.dumps, ensure_ascii=False)
    info = dict(description='labels predicted by mmfss (tools/label.py)')
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
    with atomic(path) as part, open(part, 'w', encoding='utf-8') as file:
        file.write(f'{{"info": {dumps(info)},\n"categories": {dumps(categories)},\n"images": [')
        for number, name in enumerate(names, 1):
            record = records.read(name)
            size = dict(width=record['width'], height=record['height'])
            item = dict(id=number, file_name=name, **size)
            file.write(('\n' if number == 1 else ',\n') + dumps(item))
        file.write('],\n"annotations": [')
        identity = 0
        for number, name in enumerate(names, 1):
            record = records.read(name)
            for annotation in record['annotations']:
                identity += 1
                category = annotation['category_id']
                counts[category] += 1
                # an object has a score of its own, unless a person has drawn it
                score = annotation.pop('score', record['scores'][category - 1])
                item = dict(id=identity, image_id=number, **annotation, iscrowd=0, score=score)
                file.write(('\n' if identity == 1 else ',\n') + dumps(item))
        file.write(']}\n')
    return counts


_DATASET = '''\
# The images and their labels as a dataset of mmseg; written by mmfss (tools/label.py). Names and
# paths are in {names}, beside this file.
# In a config of mmseg:
#   _base_ = ['<model>.py', '<schedule>.py', '<this file>']
#   train_dataloader = dict(
#       batch_size=8, num_workers=4, sampler=dict(type='InfiniteSampler', shuffle=True),
#       dataset={{{{_base_.labelled_dataset}}}})
# or, with a pipeline of your own, which begins with labelled_load:
#       dataset=dict(type='ConcatDataset', datasets=[
#           dict(part, pipeline=[_base_.labelled_load, *augmentation])
#           for part in _base_.labelled_dataset.datasets]))
# Label 0 is the background, so reduce_zero_label stays False and decode_head.num_classes is
# len(labelled_metainfo['classes']).
# labelled_load reads photos as they were read for labelling: upright, and of all formats. Where
# mmfss is not installed dict(type='LoadImageFromFile') can take its place, if all of them are JPEGs
# and PNGs in RGB of 8 bits.

# without import statements, for which mmengine would take it for a config of its other kind
__code = __import__('sys')._getframe().f_code  # which mmengine names by its file
__here = __import__('pathlib').Path(__code.co_filename).parent
__known = __import__('json').loads((__here / '{names}').read_text(encoding='utf-8'))
labelled_metainfo = dict(classes=tuple(__known['classes']), palette=__known['palette'])
labelled_load = dict(
    type='mmfss.datasets.transforms.LoadImage',
    exif_orientation=True,
    grey_values=__known['grey_values'],
)
labelled_pipeline = [
    labelled_load,
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
labelled_dataset = dict(
    type='ConcatDataset',
    datasets=[
        dict(
            type='BaseSegDataset',
            img_suffix=suffix,
            seg_map_suffix='.png',
            ann_file=str(__here / listed),
            data_prefix=dict(img_path=__known['images'], seg_map_path=str(__here / '{labels}')),
            metainfo=labelled_metainfo,
            pipeline=labelled_pipeline,
        )
        for suffix, listed in __known['lists'].items()
    ],
)
'''


def _write_dataset(
    out: Path,
    root: Path,
    names: Sequence[str],
    classes: tuple[str, ...],
    grey_values: Mapping[str, Any] | None,
) -> None:
    """Code that is always the same, and a file of names and paths, so that none is run as code."""
    by_suffix: dict[str, list[str]] = {}
    for name in names:
        by_suffix.setdefault(PurePosixPath(name).suffix, []).append(stem_of(name))
    lists = {suffix: f'{LISTS}/{suffix[1:] or "none"}.txt' for suffix in sorted(by_suffix)}
    for suffix, listed in lists.items():
        write_text(out / listed, ''.join(f'{stem}\n' for stem in by_suffix[suffix]))
    known = dict(
        classes=['background', *classes],
        palette=label_palette(len(classes)),
        images=str(root),
        lists=lists,
        grey_values=grey_values,
    )
    write_text(out / DATASET_NAMES, json.dumps(known, indent=1, ensure_ascii=False) + '\n')
    write_text(out / DATASET, _DATASET.format(names=DATASET_NAMES, labels=ANN_DIR))
