"""What tests of the service share: photos, and requests that programs have sent.

Recorded from the programs themselves, on generated photos; tokens and names are made up.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from webui_steps import pixels

RECORDED = Path(__file__).parent / 'data' / 'serve'
TOKEN = 'a-token-of-the-api'


def png(seed: int) -> bytes:
    """A photo of 96 x 80 pixels with a bright rectangle at x 30..59, y 20..49."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed)).save(buffer, 'PNG')
    return buffer.getvalue()


def recorded(name: str) -> list[dict]:
    """Requests of a program: method, path, body."""
    return json.loads((RECORDED / f'{name}.json').read_text(encoding='utf-8'))


def photos_of(requests: list[dict]) -> dict[str, bytes]:
    """The uploads that requests of Label Studio name."""
    named = set[str]()
    for request in requests:
        body = request['body'] or {}
        tasks = [one for one in (body.get('task'), *body.get('tasks', ())) if one]
        named |= {task['data']['image'] for task in tasks if 'data' in task}
    return {path: png(int(path[-5])) for path in sorted(named)}


LABEL_STUDIO = recorded('label_studio')
PHOTOS = photos_of(LABEL_STUDIO)


def request_of(path: str, action: str | None = None, number: int = 0) -> dict:
    """The body of a request of Label Studio, by its order among those alike; to be changed."""
    found = [
        one['body']
        for one in LABEL_STUDIO
        if one['path'] == path and (action is None or one['body']['action'] == action)
    ]
    return json.loads(json.dumps(found[number]))


def mask_of(x: slice, y: slice) -> np.ndarray:
    """bool (80, 96)."""
    mask = np.zeros((80, 96), bool)
    mask[y, x] = True
    return mask
