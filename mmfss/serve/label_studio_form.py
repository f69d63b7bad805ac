"""Label Studio's forms: its labelling config, its regions as masks, masks as its regions.

Places are in percent of the image as it is shown, upright.
"""

from __future__ import annotations

import math
import secrets
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfss.apis.marks import Prompt
from mmfss.apis.prediction import Prediction
from mmfss.labelling.annotations import objects_of
from mmfss.regions import brush_code, brush_mask, decoded, ellipse, filled, joined, outlines_of
from mmfss.regions import rectangle as turned_rectangle

_CONTROLS = dict(
    BrushLabels='brushlabels',
    PolygonLabels='polygonlabels',
    RectangleLabels='rectanglelabels',
    EllipseLabels='ellipselabels',
    KeyPointLabels='keypointlabels',
)
"""Tag of the config -> type of its regions. Of those that a class has, the first one that is made
here is what predictions are written as."""
_MADE = ('brushlabels', 'polygonlabels', 'rectanglelabels')
_PROMPTS = ('rectanglelabels', 'keypointlabels')
SMALLEST = 0.01
"""Of the area of the largest object of a class: smaller ones become no polygon and no rectangle."""
TOLERANCE = 1.0
"""How far polygons may leave the border of a mask, in pixels."""

Propose = Callable[[Prompt], np.ndarray]


@dataclass(frozen=True)
class Control:
    """A tag that regions are drawn with: type of the regions, its name, and that of the image."""

    kind: str
    name: str
    image: str


@dataclass(frozen=True)
class LabelConfig:
    """A labelling config.

    Attributes:
        images: name of an image tag -> the key of the task's data that has its address.
        controls: class -> the tags that it can be drawn with, brushes first, then polygons.
    """

    images: Mapping[str, str]
    controls: Mapping[str, tuple[Control, ...]]

    @classmethod
    def parse(cls, text: Any) -> LabelConfig:
        """Read a config.

        Raises:
            ValueError: No XML, or it has no image with labels that are drawn.
        """
        try:
            if '<!doctype' in text.casefold():
                raise ValueError('it has a document type')
            root = ElementTree.fromstring(text)
        except (ElementTree.ParseError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(f'the labelling config is no XML ({error})') from error
        images = {
            tag.get('name', ''): tag.get('value', '')[1:]
            for tag in root.iter('Image')
            if tag.get('value', '').startswith('$')
        }
        controls: dict[str, list[Control]] = {}
        for tag_name, kind in _CONTROLS.items():
            for tag in root.iter(tag_name):
                for label in tag.iter('Label'):
                    name = (label.get('alias') or label.get('value') or '').strip()
                    if name and tag.get('toName') in images:
                        control = Control(kind, tag.get('name', ''), tag.get('toName', ''))
                        controls.setdefault(name, []).append(control)
        if not controls:
            raise ValueError(
                'the labelling config has no Image (value="$...") with BrushLabels, PolygonLabels, '
                'RectangleLabels, EllipseLabels or KeyPointLabels on it'
            )
        return cls(images, {name: tuple(some) for name, some in controls.items()})

    def target(self, name: str) -> Control | None:
        """What predictions of a class are drawn with; None for one that is unknown here or has only
        ellipses and points."""
        found = (one for one in self.controls.get(name, ()) if one.kind in _MADE)
        return next(found, None)


# ---------------------------------------------------------------------------------- regions in


def masks_of(
    regions: Sequence[Any],
    image: str,
    width: int,
    height: int,
    propose: Propose,
    notes: list[str],
) -> dict[str, np.ndarray]:
    """What regions mark.

    Boxes and points are prompts: they become a mask where their class has none that is drawn.

    Args:
        regions: of an annotation's ``result``.
        image: name of the image tag; regions on others are left alone.
        width, height: of the upright photo.
        propose: makes a mask of a prompt.
        notes: gets why regions were left out.

    Returns:
        Class -> bool (H, W), some pixel of which is True.
    """
    drawn: dict[str, np.ndarray] = {}
    prompts: dict[str, list[Mapping[str, Any]]] = {}
    for region in regions:
        if not isinstance(region, Mapping) or region.get('to_name', image) != image:
            continue
        kind, value = region.get('type'), region.get('value')
        if kind not in _CONTROLS.values() or not isinstance(value, Mapping):
            continue  # choices, ratings, relations: not drawn
        names = [f'{one}'.strip() for one in value.get(kind) or () if f'{one}'.strip()]
        if not names:
            notes.append(f'a region ({kind}) has no label: choose one for it')
            continue
        try:
            if kind in _PROMPTS:
                for name in names:
                    prompts.setdefault(name, []).append(region)
                continue
            mask = _drawn(f'{kind}', value, region, width, height)
        except (ValueError, KeyError, TypeError) as error:
            notes.append(f'a region of {names[0]} ({kind}) cannot be read: {error}')
            continue
        if not mask.any():
            notes.append(f'a region of {names[0]} ({kind}) covers no pixel')
            continue
        for name in names:
            drawn[name] = drawn[name] | mask if name in drawn else mask
    for name, some in prompts.items():
        if name not in drawn:
            try:
                drawn[name] = _prompted(some, width, height, propose)
            except (ValueError, KeyError, TypeError) as error:
                notes.append(f'{name}: {error}')
    return drawn


def _drawn(
    kind: str, value: Mapping[str, Any], region: Mapping[str, Any], width: int, height: int
) -> np.ndarray:
    if region.get('image_rotation'):
        raise ValueError('the image was turned in Label Studio; turn it back and draw it again')
    drawn_on = region.get('original_width'), region.get('original_height')
    if drawn_on == (height, width) != (width, height):
        raise ValueError(
            f'it was drawn on {height} x {width} pixels, upright the photo has {width} x {height}: '
            'the browser did not turn it as its EXIF tag says; draw it again'
        )
    scale = np.array([width, height]) / 100
    if kind == 'brushlabels':
        return brush_mask(value['rle'], height, width)
    if kind == 'polygonlabels':
        ring = np.array(value['points'], np.float64).reshape(-1, 2) * scale
    else:
        centre, radii = (
            np.array([value[a], value[b]]) * scale for a, b in (('x', 'y'), ('radiusX', 'radiusY'))
        )
        flat = ellipse(tuple(centre), tuple(radii), value.get('rotation', 0))
        ring = np.array(flat).reshape(-1, 2)
    return filled([(ring,)], height, width)


def _prompted(
    regions: Sequence[Mapping[str, Any]], width: int, height: int, propose: Propose
) -> np.ndarray:
    """Each box by itself, all points of a class as one prompt; together."""
    scale = np.array([width, height]) / 100
    found = np.zeros((height, width), bool)
    points, labels = [], []
    for region in regions:
        value = region['value']
        corner = np.array([value['x'], value['y']], np.float64) * scale
        if region['type'] == 'keypointlabels':
            place = np.clip(corner, 0, [width - 1, height - 1])
            points.append((float(place[0]), float(place[1])))
            labels.append(0 if region.get('is_positive') in (0, False) else 1)
            continue
        far = corner + np.array([value['width'], value['height']], np.float64) * scale
        degrees = value.get('rotation', 0)
        ring = np.array(turned_rectangle(tuple(corner), tuple(far), degrees, tuple(corner)))
        ring = np.clip(ring.reshape(-1, 2), 0, [width, height])
        (left, top), (right, bottom) = ring.min(0).tolist(), ring.max(0).tolist()
        found |= propose(Prompt(box=(left, top, right, bottom)))
    if points:
        found |= propose(Prompt(points=tuple(points), labels=tuple(labels)))
    return found


# ---------------------------------------------------------------------------------- regions out


def regions_of(prediction: Prediction, config: LabelConfig) -> list[dict[str, Any]]:
    """A prediction as regions: a brush region for each class, or a polygon or rectangle for each
    object, as the config has it. The score of a brush region is the object score of its class."""
    found: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] | None = None
    for label, name in enumerate(prediction.classes, 1):
        control = config.target(name)
        mask = prediction.labels == label
        if control is None or not mask.any():
            continue
        if control.kind == 'brushlabels':
            found += drawn_regions(mask, name, control, float(prediction.scores[label - 1]))
            continue
        if objects is None:
            objects = objects_of(prediction.labels, len(prediction.classes), prediction)
        own = [one for one in objects if one['category_id'] == label]
        least = SMALLEST * max(one['area'] for one in own)
        for one in own:
            if one['area'] >= least:
                mask = decoded(one['segmentation'], *mask.shape)
                found += drawn_regions(mask, name, control, one['score'])
    return found


def drawn_regions(
    mask: np.ndarray, name: str, control: Control, score: float | None = None
) -> list[dict[str, Any]]:
    """A mask bool (H, W) with some pixel as one brush region, the rectangle around it, or a polygon
    for each of its parts."""
    height, width = mask.shape
    scale = np.array([100 / width, 100 / height])
    values: list[dict[str, Any]]
    if control.kind == 'brushlabels':
        values = [dict(format='rle', rle=brush_code(mask))]
    elif control.kind == 'rectanglelabels':
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        x, y = scale * (columns[0], rows[0])
        wide, high = scale * (columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])
        values = [dict(x=float(x), y=float(y), width=float(wide), height=float(high), rotation=0)]
    else:
        rings = [joined(outline) * scale for outline in outlines_of(mask, TOLERANCE)]
        values = [dict(points=ring.tolist(), closed=True) for ring in rings]
    return [
        _region(control, {**value, control.kind: [name]}, width, height, score) for value in values
    ]


def _region(
    control: Control, value: Mapping[str, Any], width: int, height: int, score: float | None
) -> dict[str, Any]:
    region: dict[str, Any] = dict(
        id=secrets.token_hex(5),
        type=control.kind,
        from_name=control.name,
        to_name=control.image,
        original_width=width,
        original_height=height,
        image_rotation=0,
        value=dict(value),
        origin='prediction',
    )
    if score is not None and math.isfinite(score):
        region['score'] = round(score, 4)
    return region
