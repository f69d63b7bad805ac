"""Photos with annotations in COCO's format in any frame and unit, with the masks that are right."""

from __future__ import annotations

import json

import numpy as np
from own_folders import corners
from PIL import Image
from prepared_checks import read

SHAPE = (60, 90)
"""(height, width) of a photo as a viewer shows it."""
_OPERATIONS = {  # what Pillow does to a picture for a viewer, the other way round
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}


def stored(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Upright pixels as a phone stores them."""
    return np.ascontiguousarray(_OPERATIONS[orientation](pixels))


def rectangle(number: int, shape=SHAPE) -> np.ndarray:
    """bool, a rectangle that tells all turns apart, wider than the photo is high."""
    mask = np.zeros(shape, bool)
    height, width = shape
    top, left = height // 2 - 2 + number % 3, 4 + 2 * (number % 5)
    mask[top : height - 5, left : left + 5 * width // 6] = True
    return mask


def box(mask: np.ndarray) -> list[float]:
    """x, y, width, height."""
    x, y, right, _, _, bottom, _, _ = corners(mask)
    return [x, y, right - x, bottom - y]


def counts(mask: np.ndarray) -> list[int]:
    """Runs of a mask down its columns, the first of background."""
    runs, last = [0], False
    for value in mask.ravel(order='F').tolist():
        if value != last:
            runs.append(0)
            last = value
        runs[-1] += 1
    return runs


def write(src, content: dict) -> None:
    (src / 'annotations.json').write_text(json.dumps(content))


def coco_folder(src, number=4, orientation=1, frame='upright', code=False, shape=SHAPE):
    """Photos with a rectangle of class 'mug'; what annotations.json holds, and the upright masks.

    Args:
        src: The folder to make.
        number: Of photos.
        orientation: In EXIF, of all.
        frame: What annotations and sizes are of: 'upright' or 'stored'.
        code: Run-length codes, not polygons.
        shape: Upright.
    """
    (src / 'images').mkdir(parents=True)
    images, annotations, masks = [], [], {}
    for i in range(number):
        mask = rectangle(i, shape)
        pixels = np.random.default_rng(i).integers(0, 80, (*shape, 3), dtype=np.uint8)
        pixels[mask] = (200, 40, 40)
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(stored(pixels, orientation))
        image.save(src / f'images/{i}.png', exif=exif if orientation > 1 else None)
        drawn = mask if frame == 'upright' else stored(mask, orientation)
        size = [int(side) for side in drawn.shape]
        images.append(dict(id=i, file_name=f'{i}.png', height=size[0], width=size[1]))
        outline = dict(size=size, counts=counts(drawn)) if code else [corners(drawn)]
        annotations.append(
            dict(
                id=i,
                image_id=i,
                category_id=1,
                segmentation=outline,
                bbox=box(drawn),
                area=int(drawn.sum()),
                iscrowd=0,
            )
        )
        masks[f'{i}.png'] = mask.astype(np.uint8)
    categories = [dict(id=1, name='mug', supercategory='')]
    content = dict(images=images, annotations=annotations, categories=categories)
    write(src, content)
    return content, masks


def same(out, masks) -> None:
    for image, mask in masks.items():
        np.testing.assert_array_equal(read(out / 'masks' / image), mask)
