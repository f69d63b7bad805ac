"""Small folders as a user may have them, in the three layouts."""

from __future__ import annotations

import json

import numpy as np
from prepared_checks import picture, save

SHAPE = (40, 50)
NAMES = ('ant', 'bee', 'cat')


def blob(seed: int, inside: int = 255, outside: int = 0) -> np.ndarray:
    """A rectangle of 20 x 20 somewhere."""
    y, x = np.random.default_rng(seed).integers(0, 20, 2)
    mask = np.full(SHAPE, outside, np.uint8)
    mask[y : y + 20, x : x + 20] = inside
    return mask


def by_class(src, form='beside', number=4, inside=255):
    """A folder per class, in one of the three forms; class masks by image name."""
    masks = {}
    for c, name in enumerate(NAMES, 1):
        for i in range(number):
            folders = {
                'beside': (f'{name}', f'{name}'),
                'inner': (f'{name}/images', f'{name}/masks'),
                'outer': (f'images/{name}', f'masks/{name}'),
            }[form]
            picture(src / folders[0] / f'{i}.jpg', SHAPE, i)
            save(src / folders[1] / f'{i}.png', blob(10 * c + i, inside))
            image = f'{folders[0]}/{i}.jpg'.removeprefix('images/')
            masks[image] = blob(10 * c + i, c)
    return masks


def by_value(src, number=8):
    (src / 'masks').mkdir(parents=True)
    (src / 'classes.txt').write_text('background\nant\nbee\ncat\n')
    for i in range(number):
        mask = blob(i, i % 3 + 1)
        mask[0] = 255
        picture(src / f'images/{i}.jpg', SHAPE, i)
        save(src / f'masks/{i}.png', mask)


def corners(mask: np.ndarray) -> list[float]:
    """The polygon of a rectangle."""
    ys, xs = np.nonzero(mask)
    y, x, y2, x2 = (float(v) for v in (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1))
    return [x, y, x2, y, x2, y2, x, y2]


def by_coco(src, overlap=True, number=6):
    """Two instances per image, of classes 1 and 2 or 3; without overlap they lie side by side."""
    images, annotations = [], []
    for i in range(number):
        picture(src / f'images/{i}.jpg', SHAPE, i)
        images.append(dict(id=i, file_name=f'{i}.jpg', height=SHAPE[0], width=SHAPE[1]))
        for k, category in enumerate((7, 20 + i % 2)):
            left = 10 * k if overlap else 20 * k
            mask = np.zeros(SHAPE, np.uint8)
            mask[5 : 25 + 5 * k, left : left + 20] = 1
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=i,
                    category_id=category,
                    iscrowd=0,
                    segmentation=[corners(mask)],
                )
            )
    categories = [dict(id=k, name=n) for k, n in ((7, 'ant'), (20, 'bee'), (21, 'cat'), (3, 'x'))]
    content = dict(images=images, annotations=annotations, categories=categories)
    (src / 'annotations.json').write_text(json.dumps(content))
    return content
