"""The files about all images, made from the records: the same for the same records."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from mmfss.datasets.classes import label_palette
from mmfss.files import atomic, write_text
from mmfss.labelling.folder import ANN_DIR, COCO, DATASET, FAILED, LISTS, SCORES
from mmfss.labelling.records import Records
from mmfss.labelling.sources import Sources, stem_of


def write_tables(out: Path, sources: Sources, classes: tuple[str, ...], records: Records) -> None:
    """Write annotations.json, scores.csv, failed.csv, lists/ and dataset.py.

    Args:
        out: the output folder.
        sources: the images; what the folder holds of others is left out.
        classes: names of the labels 1..N.
        records: with all of them.

    Raises:
        OSError: Something cannot be written.
    """
    known = [name for name in sources.names if name in records.entries]
    labelled = [name for name in known if records.entries[name].ok]
    with atomic(out / COCO) as part, open(part, 'w', encoding='utf-8') as file:
        _write_coco(file, labelled, classes, records)
    with atomic(out / SCORES) as part, _csv_file(part) as file:
        _write_scores(file, labelled, classes, records)
    with atomic(out / FAILED) as part, _csv_file(part) as file:
        rows = csv.writer(file, lineterminator='\n')
        rows.writerow(('image', 'error'))
        for name in known:
            if not records.entries[name].ok:
                rows.writerow((name, records.read(name)['error']))
    _write_dataset(out, sources.root, labelled, classes)


def _csv_file(path: Path) -> TextIO:
    """Names of files that are no UTF-8 are in the list of failures, with their bytes shown."""
    return open(path, 'w', encoding='utf-8', errors='backslashreplace', newline='')


# ------------------------------------------------------------------------------------ COCO
def _write_coco(
    file: TextIO, names: Sequence[str], classes: Sequence[str], records: Records
) -> None:
    """One item at a time: the file may be larger than the memory."""
    info = dict(description='labels predicted by mmfss (tools/label.py)')
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
    file.write(f'{{"info": {_json(info)},\n"categories": {_json(categories)},\n"images": [')
    _write_items(file, _images(names, records))
    file.write('],\n"annotations": [')
    _write_items(file, _annotations(names, records))
    file.write(']}\n')


def _images(names: Sequence[str], records: Records) -> Iterator[dict[str, Any]]:
    for number, name in enumerate(names, 1):
        record = records.read(name)
        yield dict(id=number, file_name=name, width=record['width'], height=record['height'])


def _annotations(names: Sequence[str], records: Records) -> Iterator[dict[str, Any]]:
    identity = 0
    for number, name in enumerate(names, 1):
        record = records.read(name)
        for annotation in record['annotations']:
            identity += 1
            score = record['scores'][annotation['category_id'] - 1]
            yield dict(id=identity, image_id=number, **annotation, iscrowd=0, score=score)


def _write_items(file: TextIO, items: Iterator[dict[str, Any]]) -> None:
    for i, item in enumerate(items):
        file.write(('\n' if i == 0 else ',\n') + _json(item))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------------------------- scores
def _write_scores(
    file: TextIO, names: Sequence[str], classes: Sequence[str], records: Records
) -> None:
    rows = csv.writer(file, lineterminator='\n')
    rows.writerow(score_columns(classes))
    for name in sorted(names, key=lambda name: (records.entries[name].certainty, name)):
        record = records.read(name)
        areas = {one['category_id']: one['area'] for one in record['annotations']}
        pixels = record['height'] * record['width']
        measured = [
            (score, label in areas, areas.get(label, 0) / pixels, confidence)
            for label, (score, confidence) in enumerate(
                zip(record['scores'], record['confidence'], strict=True), 1
            )
        ]
        rows.writerow(score_row(name, record['certainty'], measured))


def score_columns(classes: Sequence[str]) -> list[str]:
    """Heads of the columns of scores.csv."""
    parts = ('score', 'present', 'share', 'confidence')
    return ['image', 'certainty', *(f'{name} {part}' for name in classes for part in parts)]


def score_row(
    name: str, certainty: float, measured: Sequence[tuple[float, bool, float, float]]
) -> list[str]:
    """A row of scores.csv; of each class its object score, whether it is there, its share of the
    pixels, and its confidence."""
    row = [name, f'{certainty:.6f}']
    for score, there, share, confidence in measured:
        row += [f'{score:.6f}', str(int(there)), f'{share:.6f}', f'{confidence:.6f}']
    return row


# ----------------------------------------------------------------------------------- mmseg
_HEAD = '''\
# The images and their labels as a dataset of mmseg; written by mmfss (tools/label.py).
# In a config of mmseg:
#   _base_ = ['<model>.py', '<schedule>.py', '<this file>']
#   train_dataloader = dict(
#       batch_size=8, num_workers=4, sampler=dict(type='InfiniteSampler', shuffle=True),
#       dataset={{_base_.labelled_dataset}})
# or, with a pipeline of your own:
#       dataset=dict(type='ConcatDataset', datasets=[
#           dict(part, pipeline=train_pipeline) for part in _base_.labelled_dataset.datasets]))
# Label 0 is the background, so reduce_zero_label stays False and decode_head.num_classes is
# len(labelled_metainfo['classes']).
'''


def _write_dataset(out: Path, root: Path, names: Sequence[str], classes: tuple[str, ...]) -> None:
    by_suffix: dict[str, list[str]] = {}
    for name in names:
        by_suffix.setdefault(PurePosixPath(name).suffix, []).append(stem_of(name))
    for suffix, stems in by_suffix.items():
        write_text(out / LISTS / _list_name(suffix), ''.join(f'{stem}\n' for stem in stems))
    palette = label_palette(len(classes))
    lines = [
        _HEAD + 'labelled_metainfo = dict(',
        f'    classes={("background", *classes)!r},',
        f'    palette={palette!r},',
        ')',
        'labelled_pipeline = [',
        "    dict(type='LoadImageFromFile'),",
        "    dict(type='LoadAnnotations'),",
        "    dict(type='PackSegInputs'),",
        ']',
        "labelled_dataset = dict(type='ConcatDataset', datasets=[",
    ]
    for suffix in sorted(by_suffix):
        lines += [
            '    dict(',
            "        type='BaseSegDataset',",
            f'        img_suffix={suffix!r},',
            "        seg_map_suffix='.png',",
            # triple quotes: mmengine puts the path there as it is, and it may hold quotes
            f'        ann_file="""{{{{ fileDirname }}}}/{LISTS}/{_list_name(suffix)}""",',
            '        data_prefix=dict(',
            f'            img_path={str(root)!r},',
            f'            seg_map_path="""{{{{ fileDirname }}}}/{ANN_DIR}""",',
            '        ),',
            '        metainfo=labelled_metainfo,',
            '        pipeline=labelled_pipeline,',
            '    ),',
        ]
    write_text(out / DATASET, '\n'.join([*lines, '])']) + '\n')


def _list_name(suffix: str) -> str:
    return f'{suffix[1:] or "none"}.txt'
