from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


def write_voc(root, number=40, seed=0, size=(24, 30)):
    """A tiny dataset in the VOC layout: 1 to 3 rectangles of the classes 1..20 per image."""
    rng = np.random.default_rng(seed)
    for folder in ('JPEGImages', 'SegmentationClassAug', 'ImageSets/Segmentation'):
        (root / folder).mkdir(parents=True)
    names = [f'im{i:03d}' for i in range(number)]
    for i, name in enumerate(names):
        height, width = size[0] + i % 5, size[1] - i % 3
        label = np.zeros((height, width), np.uint8)
        for class_id in rng.integers(1, 21, rng.integers(1, 4)):
            h, w = rng.integers(3, 14, 2)
            y, x = rng.integers(0, height - h), rng.integers(0, width - w)
            label[y : y + h, x : x + w] = class_id
        label[0] = 255
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / f'JPEGImages/{name}.jpg')
        Image.fromarray(label).save(root / f'SegmentationClassAug/{name}.png')
    (root / 'ImageSets/Segmentation/train.txt').write_text('\n'.join(names) + '\n')
    return root


@pytest.fixture
def voc(tmp_path):
    """Writable, 40 images."""
    return write_voc(tmp_path / 'VOC2012')


@pytest.fixture(scope='session')
def big_voc(tmp_path_factory):
    """Shared by tests that only read: 150 images, every class in several."""
    return write_voc(tmp_path_factory.mktemp('data') / 'VOC2012', number=150)
