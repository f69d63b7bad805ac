"""The canvas on which objects are marked: drag a box, click points, paint, erase, zoom.

Gradio's own components have no box to drag, and its editor, which has brushes, needs WebGL and has
no tool but paint; here a proposed mask can be painted on. What happens in the browser is in
``static/canvas.js``.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmfss.webui.marking import Click

STATIC = Path(__file__).with_name('static')
_TOOLS = {
    'box': ('Box', 'b', 'Drag a box around the object, or click two opposite corners'),
    'object': ('Point on it', 'p', 'Click on the object'),
    'rest': ('Point beside it', 'o', 'Click on what the mask should not hold'),
    'brush': ('Brush', 'd', 'Paint the mask; a proposed one, too'),
    'eraser': ('Eraser', 'e', 'Erase the mask'),
    'move': ('Move', 'm', 'Drag the picture where it is enlarged'),
}
_ACTIONS = {
    'out': ('−', '-', 'Smaller'),
    'fit': ('Fit', '0', 'The whole picture'),
    'in': ('+', '+', 'Larger; also ctrl and the wheel'),
    'undo': ('Undo', 'u', 'Take back the last stroke or click'),
    'clear': ('Clear', '', 'Take back all strokes and clicks'),
}
EDITS = ('brush', 'eraser', 'move')
LOOKS = ('move',)
MARKS = tuple(_TOOLS)


@dataclass(frozen=True)
class Drawn:
    """What a browser sends of a canvas.

    Attributes:
        picture: of which picture it is.
        mask: what was painted, as data URL; '' where nothing was.
        at: of the last click or box, in pixels of the picture.
    """

    picture: str = ''
    mask: str = ''
    at: tuple[float, ...] = ()

    @classmethod
    def of(cls, sent: Any) -> Drawn:
        """Of the value that a browser sends; an empty one for what no canvas sends."""
        known = sent if isinstance(sent, dict) else {}
        texts = (known.get(key) for key in ('id', 'mask'))
        picture, mask = (text if isinstance(text, str) else '' for text in texts)
        at = known.get('at')
        numbers = at if isinstance(at, list) and len(at) in (2, 4) else []
        right = all(type(x) in (int, float) and math.isfinite(x) for x in numbers)
        return cls(picture, mask, tuple(map(float, numbers)) if right else ())


def picture_of(image: np.ndarray, name: str) -> dict[str, Any]:
    """A picture as the canvas has it.

    Args:
        image: uint8 (h, w, 3) BGR.
        name: differs between pictures; strokes belong to one.
    """
    done, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise ValueError('the picture cannot be shown')
    url = f'data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}'
    return dict(id=name, url=url, width=image.shape[1], height=image.shape[0])


def marks_of(
    mask: np.ndarray | None, clicks: Sequence[Click] = (), scale: float = 1, points: bool = True
) -> dict[str, Any]:
    """Marks as the canvas has them.

    Args:
        mask: bool (h, w) of the picture, or None.
        clicks: in the whole image.
        scale: of the picture to the whole image.
        points: whether points are of use.
    """
    url = ''
    if mask is not None:
        layer = np.zeros((*mask.shape, 4), np.uint8)
        layer[mask] = 255
        done, data = cv2.imencode('.png', layer)
        if not done:
            raise ValueError('the mask cannot be shown')
        url = f'data:image/png;base64,{base64.b64encode(data.tobytes()).decode()}'
    at = [dict(kind=c.kind, x=(c.x + 0.5) * scale, y=(c.y + 0.5) * scale) for c in clicks]
    return dict(mask=url, clicks=at, points=points)


def template(tools: Sequence[str]) -> str:
    """HTML of the component.

    Args:
        tools: names out of :data:`MARKS`, the first to begin with.
    """

    def button(kind: str, name: str, known: dict[str, tuple[str, str, str]]) -> str:
        text, key, title = known[name]
        told = f'{title} ({key})' if key else title
        label = f'{text} <kbd>{key}</kbd>' if key and len(text) > 1 else text
        return (
            f'<button type="button" data-{kind}="{name}" data-key="{key}" title="{told}" '
            f'aria-label="{told}">{label}</button>'
        )

    picks = ''.join(button('tool', name, _TOOLS) for name in tools)
    out, fit, into, undo, clear = (button('action', name, _ACTIONS) for name in _ACTIONS)
    looks = ' cv-looks' if tuple(tools) == LOOKS else ''
    return f"""<div class="cv{looks}">
<div class="cv-bar"><span class="cv-group cv-tools">{picks}</span>
<label class="cv-group cv-width" title="Width of the brush, in pixels of the screen ([ and ])">Width
<input type="range" class="cv-size" min="3" max="120" value="28" aria-label="Width of the brush">
<button type="button" data-action="smaller" data-key="[" hidden></button>
<button type="button" data-action="larger" data-key="]" hidden></button></label>
<span class="cv-group">{out}<span class="cv-percent"></span>{into}{fit}</span>
<span class="cv-group cv-back">{undo}{clear}</span></div>
<div class="cv-frame"><div class="cv-view"><div class="cv-sheet">
<img class="cv-picture" alt="" draggable="false"><canvas class="cv-mask"></canvas>
<svg class="cv-signs" preserveAspectRatio="none"></svg><i class="cv-cursor"></i>
</div></div></div></div>"""
