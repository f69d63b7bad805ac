"""The episodes of an evaluation as CSV, one line each."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable

from mmfss.evaluation.counts import EpisodeCounts, each_once
from mmfss.files import as_cell, from_cell

COLUMNS = (
    'episode',
    'class_id',
    'class',
    'IoU',
    'intersection_bg',
    'intersection_fg',
    'union_bg',
    'union_fg',
    'query',
    'supports',
)


def episodes_csv(counts: Iterable[EpisodeCounts], name_of: Callable[[int], str]) -> str:
    """CSV text with a header and the columns :data:`COLUMNS`, sorted by episode, each once.

    IoU is that of the foreground in percent, not rounded, and empty where neither prediction
    nor truth has a foreground pixel; counts are pixels; support paths are joined with ';'.

    Args:
        counts: Of all episodes, in any order, repeats allowed.
        name_of: Name of a class id.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(COLUMNS)
    for row in each_once(counts):
        iou = 100.0 * row.intersection[1] / row.union[1] if row.union[1] else ''
        name, supports = name_of(row.class_id), ';'.join(row.supports)
        figures = (iou, *row.intersection, *row.union)
        texts = [as_cell(text) for text in (name, row.query, supports)]
        writer.writerow((row.episode, row.class_id, texts[0], *figures, *texts[1:]))
    return text.getvalue()


def holds(text: str, counts: Iterable[EpisodeCounts]) -> bool:
    """Whether CSV text of :func:`episodes_csv` is of these episodes; supports are not compared."""
    rows = list(csv.DictReader(io.StringIO(text)))
    if not all(set(COLUMNS) <= set(row) for row in rows):
        return False
    names = ('episode', 'class_id', *(name for name in COLUMNS if '_bg' in name or '_fg' in name))
    found = [(*(row[name] for name in names), from_cell(row['query'])) for row in rows]
    wanted = [
        (*map(str, (row.episode, row.class_id, *row.intersection, *row.union)), row.query)
        for row in each_once(counts)
    ]
    return found == wanted
