"""The episodes of an evaluation as CSV, one line each."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import replace

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
_NUMBERS = ('episode', 'class_id', *(name for name in COLUMNS if name[-3:] in ('_bg', '_fg')))


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


def read_episodes(text: str) -> tuple[list[EpisodeCounts], dict[int, str]]:
    """The episodes of CSV text of :func:`episodes_csv`, and the names of their class ids.

    Raises:
        ValueError: It is of another form.
    """
    counts, names = [], {}
    try:
        for row in csv.DictReader(io.StringIO(text)):
            if not set(COLUMNS) <= set(row):
                raise ValueError(f'columns {", ".join(map(str, row))}')
            episode, class_id, *pixels = (int(row[name]) for name in _NUMBERS)
            names[class_id] = from_cell(row['class'])
            supports = tuple(filter(None, from_cell(row['supports']).split(';')))
            pairs = (pixels[0], pixels[1]), (pixels[2], pixels[3])
            counts.append(
                EpisodeCounts(episode, class_id, *pairs, from_cell(row['query']), supports)
            )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f'it is no list of episodes with the columns {", ".join(COLUMNS)} ({error})'
        ) from error
    return counts, names


def holds(text: str, counts: Iterable[EpisodeCounts]) -> bool:
    """Whether CSV text of :func:`episodes_csv` is of these episodes; supports are not compared."""
    try:
        found, _ = read_episodes(text)
    except ValueError:
        return False
    return [replace(row, supports=()) for row in found] == [
        replace(row, supports=()) for row in each_once(counts)
    ]
