"""A tiny FewShotSegmentor, its support set and a few images, for tests of it and of mmseg on it."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path

import cv2
import numpy as np
import torch
from mmseg.registry import MODELS
from tiny_models import FULL, SIZE, randomised

from mmfss.apis import FewShotSegmentor

CLASSES = ('disc', 'bar')
META = ('background', *CLASSES)
SEED = 2  # of weights that mark both classes in every image


def scene(seed: int, size: tuple[int, int], shapes: tuple[str, ...] = CLASSES):
    """An image uint8 (H, W, 3) BGR of noise with bright forms, and its label map of 0, 1, 2."""
    rng = np.random.default_rng(seed)
    height, width = size
    image = rng.integers(0, 120, (height, width, 3)).astype(np.uint8)
    label = np.zeros(size, np.uint8)
    for name in shapes:
        y, x = (int(rng.integers(side // 4, 3 * side // 4)) for side in size)
        reach, value = min(size) // 5, CLASSES.index(name) + 1
        form = np.zeros(size, np.uint8)
        if name == 'disc':
            cv2.circle(form, (x, y), reach, 1, -1)
        else:
            form[y - reach // 2 : y + reach // 2, x - reach : x + reach] = 1
        label[form == 1] = value
        image[form == 1] //= 4
        image[form == 1] += np.array([(20, 90, 190), (190, 150, 30)][value - 1], np.uint8)
    return image, label


def support(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Files of two shots of one class and one of the other."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[tuple[str, str]]] = {}
    for i, name in enumerate(('disc', 'disc', 'bar')):
        image, label = scene(100 + i, (70 + 9 * i, 80), (name,))
        paths = (str(folder / f'{name}_{i}.png'), str(folder / f'{name}_{i}_mask.png'))
        cv2.imwrite(paths[0], image)
        cv2.imwrite(paths[1], (label > 0).astype(np.uint8))
        found.setdefault(name, []).append(paths)
    return found


def images(folder: Path, sizes: tuple[tuple[int, int], ...]) -> list[str]:
    """Write ``images/*.png`` and ``masks/*.png``; one pixel row of each mask is ignored."""
    for name in ('images', 'masks'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    paths = []
    for i, size in enumerate(sizes):
        image, label = scene(i, size)
        label[-1] = 255
        paths.append(str(folder / f'images/{i:02d}.png'))
        cv2.imwrite(paths[-1], image)
        cv2.imwrite(str(folder / f'masks/{i:02d}.png'), label)
    return paths


def model_config(shown, **changes) -> dict:
    """Config of the tiny segmentor; ``changes`` are its arguments, or else those of its method."""
    own = set(inspect.signature(FewShotSegmentor.__init__).parameters)
    inner = {key: value for key, value in changes.items() if key not in own}
    outer = {key: value for key, value in changes.items() if key in own}
    held = dict(copy.deepcopy(FULL), **inner)
    return dict(type='FewShotSegmentor', model=held, support=shown, **{"threshold": 0.0, **outer})


def build(shown, **changes):
    """The tiny segmentor in eval mode, with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(model_config(shown, **changes))
    return randomised(model, SEED).eval()


def checkpoint(path: Path, meta: dict | None = None) -> str:
    """Weights of a tiny FSSAM, as a training saves them, with the classes of its benchmark."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomised(MODELS.build(copy.deepcopy(FULL)), SEED)
    if meta is None:
        meta = dict(dataset_meta=dict(classes=('cat', 'dog'), palette=[[1, 2, 3], [4, 5, 6]]))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return str(path)


PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(SIZE, SIZE)),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
