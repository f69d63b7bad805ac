"""The episodes of an evaluation as CSV, one line each."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable

from mmfss.evaluation.counts import EpisodeCounts, each_once

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
        writer.writerow((row.episode, row.class_id, name, *figures, row.query, supports))
    return text.getvalue()
