"""Large pictures cut into tiles with label maps: what has been cut is noted per picture."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmfss.datasets.io import read_image
from mmfss.datasets.preparation.jobs import Done, Tally, is_complete, is_older, save_png
from mmfss.datasets.prepared import Entry, mask_path
from mmfss.files import write_text

Box = tuple[int, int, int, int]
IGNORED = 255


@dataclass(frozen=True)
class Tile:
    """A tile worth keeping.

    Args:
        name: Its path in the image folder, without suffix.
        box: (top, bottom, left, right) in the picture.
    """

    name: str
    box: Box


def sliding_boxes(shape: tuple[int, ...], size: int, stride: int) -> list[Box]:
    """Windows of ``size`` every ``stride`` pixels, the last one flush with the border.

    A picture that is smaller than a window gives one window of its own size.

    Args:
        shape: (height, width) of the picture.
        size, stride: In pixels.
    """
    height, width = shape

    def starts(length: int) -> list[int]:
        last = max(length - size, 0)
        return sorted({*range(0, last, stride), last})

    return [
        (top, min(top + size, height), left, min(left + size, width))
        for top in starts(height)
        for left in starts(width)
    ]


def grid_boxes(shape: tuple[int, ...], parts: int) -> list[Box]:
    """``parts`` x ``parts`` windows that share no pixel and leave none over, row by row."""
    rows, columns = ([i * side // parts for i in range(parts + 1)] for side in shape)
    return [
        (rows[i], rows[i + 1], columns[j], columns[j + 1])
        for i in range(parts)
        for j in range(parts)
    ]


def areas(labels: np.ndarray) -> dict[int, int]:
    """``{class: pixels}`` of a label map, without background and ignored pixels."""
    counts = np.bincount(labels.ravel(), minlength=256)
    return {c: int(counts[c]) for c in range(1, IGNORED) if counts[c]}


def save_tiles(
    out: Path,
    name: str,
    files: tuple[Path, Path],
    labels: Callable[[], np.ndarray],
    choose: Callable[[np.ndarray], Sequence[Tile]],
) -> Done:
    """Write the tiles of a picture to OUT/images and OUT/masks; complete ones are kept.

    OUT/tiles/<name>.json lists them in the end, so that a finished picture is not read again.

    Args:
        out: Folder of the prepared dataset.
        name: Of the picture's note, with '/' between folders.
        files: The picture and its mask; tiles that are older are made again.
        labels: Reads its label map, uint8 (height, width) of the picture.
        choose: Its tiles, from the label map.

    Returns:
        With ``{tile name: {class: pixels}}`` as its result.
    """
    note = out / 'tiles' / f'{name}.json'
    noted = _noted(out, note, files)
    if noted is not None:
        return Done(kept=len(noted), result=noted)
    truth = labels()
    rgb = read_image(files[0])[..., ::-1]
    written, rows = 0, []
    for tile in choose(truth):
        top, bottom, left, right = tile.box
        part = truth[top:bottom, left:right]
        if not _there(out, tile.name, part.shape, files):
            written += 1
            save_png(_image(out, tile.name), np.ascontiguousarray(rgb[top:bottom, left:right]))
            save_png(mask_path(out, f'{tile.name}.png'), np.ascontiguousarray(part))
        rows.append(dict(name=tile.name, shape=part.shape, areas=areas(part)))
    write_text(note, json.dumps(rows) + '\n')
    found = {row['name']: row['areas'] for row in rows}
    return Done(written, len(found) - written, found)


def _noted(out: Path, note: Path, files: tuple[Path, Path]) -> dict[str, dict[int, int]] | None:
    """Tiles and areas of a note, if it is whole and all its tiles are, and none is outdated."""
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        tiles = json.loads(note.read_text(encoding='utf-8'))
        whole = all(_there(out, tile['name'], tuple(tile['shape']), files) for tile in tiles)
        if whole and not is_older(note, *files):
            return {t['name']: {int(c): n for c, n in t['areas'].items()} for t in tiles}
    return None


def _image(out: Path, name: str) -> Path:
    return out / 'images' / f'{name}.png'


def _there(out: Path, name: str, shape: tuple[int, ...], files: tuple[Path, Path]) -> bool:
    """Whether image and mask of a tile are complete, and made from the files as they are."""
    if not is_complete(mask_path(out, f'{name}.png'), (shape[0], shape[1]), *files):
        return False
    with suppress(FileNotFoundError, ValueError):
        return read_image(_image(out, name)).shape[:2] == shape
    return False


def tile_entries(tally: Tally) -> list[Entry]:
    """The lines of a split, picture by picture."""
    return [Entry(f'{name}.png') for found in tally.results for name in found]


def class_counts(tally: Tally, classes: Sequence[str], min_area: int) -> str:
    """In words: in how many tiles each class has at least ``min_area`` pixels."""
    counts = Counter(
        c
        for found in tally.results
        for pixels in found.values()
        for c, n in pixels.items()
        if n >= min_area
    )
    return ', '.join(f'{name} {counts[c]}' for c, name in enumerate(classes, 1))


def find_files(folder: str | os.PathLike, suffix: str) -> Iterator[Path]:
    """Every file below a folder whose name ends so, by name."""
    return iter(sorted(p for p in Path(folder).rglob(f'*{suffix}') if p.is_file()))
