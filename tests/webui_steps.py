"""What tests of the web page share: known images, known masks, and the steps of a visitor."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from types import SimpleNamespace

import numpy as np
from PIL import Image

from mmfss.apis.prompts import Prompt


class BoxProposer:
    """Proposes the box itself, or 9 x 9 pixels around the points on the object."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []

    def propose(self, image: np.ndarray, prompt: Prompt) -> SimpleNamespace:
        """See :class:`mmfss.webui.worker.Proposes`."""
        self.prompts.append(prompt)
        mask = np.zeros(image.shape[:2], bool)
        if prompt.box is not None:
            x1, y1, x2, y2 = prompt.box
            mask[int(y1) : int(y2), int(x1) : int(x2)] = True
        for (x, y), label in zip(prompt.points, prompt.labels):
            mask[max(int(y) - 4, 0) : int(y) + 5, max(int(x) - 4, 0) : int(x) + 5] = label == 1
        if not mask.any():
            raise ValueError('the prompt gives an empty mask; mark more points')
        return SimpleNamespace(mask=mask)


def pixels(seed: int, width: int = 96, height: int = 80) -> np.ndarray:
    """Noise with a bright rectangle at x 30..59, y 20..49: uint8 (height, width, 3)."""
    image = np.random.default_rng(seed).integers(0, 150, (height, width, 3), np.uint8)
    image[20:50, 30:60] += 90
    return image


def marked(session, photo, names=('cup',), corner=(30, 20), other=(59, 49)):
    """Mark an image per class by a box."""
    for i, name in enumerate(names):
        session.add_photos([photo(f'{i}.png', i)])
        session.choose_photo(len(session.photos) - 1)
        click_box(session, corner, other)
        session.use_mask(name)


def click_box(session, corner, other):
    """Two clicks on the preview at pixels (x, y) of the image."""
    height, width = session.current_preview().shape[:2]
    tall, wide = session.photos[session.current].shape
    for x, y in (corner, other):
        session.click('corner', (x + 0.5) * width / wide, (y + 0.5) * height / tall)


def painted(mask):
    """A mask, bool (h, w), as the page's canvas sends it."""
    layer = np.zeros((*mask.shape, 4), np.uint8)
    layer[mask] = (255, 0, 170, 255)
    encoded = BytesIO()
    Image.fromarray(layer).save(encoded, 'PNG')
    return f'data:image/png;base64,{b64encode(encoded.getvalue()).decode()}'


def box_mask():
    mask = np.zeros((80, 96), bool)
    mask[20:50, 30:60] = True
    return mask
