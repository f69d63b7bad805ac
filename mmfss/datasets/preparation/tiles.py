"""Large pictures cut into tiles with label maps: what has been cut is noted per picture."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from mmfss.datasets.class_index import class_areas
from mmfss.datasets.io import read_image, save_png
from mmfss.datasets.preparation.jobs import Done, is_older, read_complete
from mmfss.datasets.prepared import mask_path
from mmfss.files import write_text

Box = tuple[int, int, int, int]
"""(top, bottom, left, right), the second and the last outside."""
Boxes = Mapping[str, Box]
"""Name of a tile in the image folder, without suffix -> where it is in the picture."""


def sliding_boxes(shape: tuple[int, ...], size: int, stride: int) -> list[Box]:
    """Windows of ``size`` every ``stride`` pixels, the last one flush with the border.

    A picture that is smaller than a window gives one window of its own size.

    Args:
        shape: (height, width) of the picture.
        size, stride: In pixels.
    """
    rows, columns = (
        sorted({*range(0, max(side - size, 0), stride), max(side - size, 0)}) for side in shape
    )
    return [
        (top, min(top + size, shape[0]), left, min(left + size, shape[1]))
        for top in rows
        for left in columns
    ]


def grid_boxes(shape: tuple[int, ...], parts: int) -> list[Box]:
    """``parts`` x ``parts`` windows that share no pixel and leave none over, row by row."""
    rows, columns = ([i * side // parts for i in range(parts + 1)] for side in shape)
    return [
        (rows[i], rows[i + 1], columns[j], columns[j + 1])
        for i in range(parts)
        for j in range(parts)
    ]


def save_tiles(
    out: Path,
    name: str,
    files: tuple[Path, Path],
    labels: Callable[[], np.ndarray],
    choose: Callable[[np.ndarray], Boxes],
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
        With ``{tile: {class: pixels}}`` as its result.
    """

    def there(tile: str, shape: tuple[int, ...]) -> bool:
        if read_complete(mask_path(out, f'{tile}.png'), shape, *files) is None:
            return False
        with suppress(FileNotFoundError, ValueError):
            return read_image(out / 'images' / f'{tile}.png').shape[:2] == tuple(shape)
        return False

    note = out / 'tiles' / f'{name}.json'
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        tiles = json.loads(note.read_text(encoding='utf-8'))
        found = {f'{t["name"]}.png': {int(c): n for c, n in t['areas'].items()} for t in tiles}
        if all(there(t['name'], t['shape']) for t in tiles) and not is_older(note, *files):
            return Done(kept=len(found), result=found)
    truth, rgb = labels(), read_image(files[0])[..., ::-1]
    written, tiles = 0, []
    for tile, (top, bottom, left, right) in choose(truth).items():
        part = np.ascontiguousarray(truth[top:bottom, left:right])
        if not there(tile, part.shape):
            written += 1
            picture = np.ascontiguousarray(rgb[top:bottom, left:right])
            save_png(out / 'images' / f'{tile}.png', picture)
            save_png(mask_path(out, f'{tile}.png'), part)
        tiles.append(dict(name=tile, shape=part.shape, areas=class_areas(part)))
    write_text(note, json.dumps(tiles) + '\n')
    found = {f'{t["name"]}.png': t['areas'] for t in tiles}
    return Done(written, len(found) - written, found)


def class_counts(tiles: Iterable[Mapping[int, int]], classes: Sequence[str], min_area: int) -> str:
    """In words: in how many tiles, of which the areas are given, each class has ``min_area``
    pixels."""
    counts = Counter(c for areas in tiles for c, pixels in areas.items() if pixels >= min_area)
    return ', '.join(f'{name} {counts[c]}' for c, name in enumerate(classes, 1))
