"""Label Studio's forms: its labelling config, its regions as masks, masks as its regions.

Places are in percent of the image as it is shown, upright.
"""

from __future__ import annotations

import math
import secrets
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfss.apis.prediction import Prediction
from mmfss.regions import brush_code, brush_mask, cropped, ellipse, joined, outlines_of
from mmfss.regions import rectangle as turned_rectangle
from mmfss.serve.marks import TOLERANCE, Marks, objects_in

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
            if not isinstance(text, str):
                raise ValueError(f'it must be a text, got {text!r:.80}')
            if '<!doctype' in text.casefold():
                raise ValueError('it has a document type')
            root = ElementTree.fromstring(text)
        except (ElementTree.ParseError, ValueError) as error:
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


def marks_of(regions: Sequence[Any], image: str, width: int, height: int) -> Marks:
    """What regions mark.

    Args:
        regions: of an annotation's ``result``.
        image: name of the image tag; regions on others are left alone.
        width, height: of the upright photo.
    """
    marks = Marks(height, width)
    for region in regions:
        if not isinstance(region, Mapping) or region.get('to_name', image) != image:
            continue
        kind, value = f'{region.get("type")}', region.get('value')
        if kind not in _CONTROLS.values() or not isinstance(value, Mapping):
            continue  # choices, ratings, relations: not drawn
        given = value.get(kind)
        texts = [f'{one}'.strip() for one in given] if isinstance(given, list) else []
        names = [text for text in texts if text]
        if not names:
            marks.notes.append(f'a region ({kind}) has no label: choose one for it')
        for name in names:
            try:
                _mark(marks, name, kind, value, region)
            except (ValueError, KeyError, TypeError, ArithmeticError) as error:
                marks.notes.append(f'a region of {name} ({kind}) cannot be read: {error}')
    return marks


def _mark(
    marks: Marks, name: str, kind: str, value: Mapping[str, Any], region: Mapping[str, Any]
) -> None:
    width, height = marks.width, marks.height
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
        return marks.draw(name, brush_mask(value['rle'], height, width))
    if kind == 'polygonlabels':
        return marks.outline(name, np.array(value['points'], np.float64).reshape(-1, 2) * scale)
    at = np.array([value['x'], value['y']], np.float64) * scale
    if kind == 'keypointlabels':
        return marks.point(name, at, region.get('is_positive') not in (0, False))
    degrees = value.get('rotation', 0)
    if kind == 'ellipselabels':
        radii = np.array([value['radiusX'], value['radiusY']], np.float64) * scale
        return marks.outline(name, ellipse(tuple(at), tuple(radii), degrees))
    far = at + np.array([value['width'], value['height']], np.float64) * scale
    return marks.box(name, turned_rectangle(tuple(at), tuple(far), degrees, about=tuple(at)))


# ---------------------------------------------------------------------------------- regions out


def regions_of(prediction: Prediction, config: LabelConfig) -> list[dict[str, Any]]:
    """A prediction as regions: a brush region for each class, or a polygon or rectangle for each
    object, as the config has it. The score of a brush region is the object score of its class."""
    found: list[dict[str, Any]] = []
    by_object = set[str]()
    for label, name in enumerate(prediction.classes, 1):
        control, mask = config.target(name), prediction.labels == label
        if control is None or not mask.any():
            continue
        if control.kind == 'brushlabels':
            found += drawn_regions(mask, name, control, float(prediction.scores[label - 1]))
        else:
            by_object.add(name)
    for one in objects_in(prediction) if by_object else ():
        if one.name in by_object:
            control = config.target(one.name)
            assert control is not None
            found += drawn_regions(one.mask, one.name, control, one.score)
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
        part, left, top = cropped(mask)
        x, y = scale * (left, top)
        wide, high = scale * part.shape[::-1]
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
