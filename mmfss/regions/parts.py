"""Regions as the part of the image around them, with the place of that part: CVAT's masks, in its
XML and in its SDK, and mask shapes of LabelMe."""

from __future__ import annotations

import base64
import binascii
import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

_BROKEN = OSError, SyntaxError, EOFError, struct.error, zlib.error
"""What Pillow raises on files that are damaged or no images."""


def cropped(mask: np.ndarray) -> tuple[np.ndarray, int, int]:
    """The part of a mask around its region, bool (h, w), and its place: left, top.

    Raises:
        ValueError: There is no region.
    """
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        raise ValueError('the mask marks no pixel, so there is no region')
    top, left = int(rows[0]), int(columns[0])
    return mask[top : rows[-1] + 1, left : columns[-1] + 1], left, top


def placed(part: np.ndarray, left: int, top: int, height: int, width: int) -> np.ndarray:
    """The mask bool (height, width) of a part; what is outside the image is cut off."""
    whole = np.zeros((height, width), bool)
    y, x = max(top, 0), max(left, 0)
    inside = part[y - top : max(height - top, 0), x - left : max(width - left, 0)]
    whole[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return whole


# ---------------------------------------------------------------------------------- CVAT
def _row_runs(part: np.ndarray) -> list[int]:
    """Runs along the rows; the first is of pixels outside the region, and may be 0."""
    flat = part.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.r_[0, edges, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def _from_row_runs(runs: Sequence[float], height: int, width: int) -> np.ndarray:
    if not runs or height < 1 or width < 1:
        raise ValueError(f'a mask of {len(runs)} runs in a box of {width} x {height} pixels')
    counts = [int(run) for run in runs]
    if counts != [*runs] or min(counts) < 0 or sum(counts) != width * height:
        raise ValueError(f'its runs sum to {sum(counts)} of {width * height} pixels')
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)


def cvat_attributes(mask: np.ndarray) -> dict[str, str]:
    """The attributes of ``<mask>`` in CVAT's XML: rle, left, top, width, height."""
    part, left, top = cropped(mask)
    height, width = part.shape
    sides = dict(left=left, top=top, width=width, height=height)
    runs = ', '.join(map(str, _row_runs(part)))
    return dict(rle=runs, **{key: str(value) for key, value in sides.items()})


def cvat_mask(attributes: Mapping[str, str], height: int, width: int) -> np.ndarray:
    """The mask bool (height, width) of :func:`cvat_attributes`.

    Raises:
        KeyError, ValueError: An attribute is missing or no number, the runs do not fill the box.
    """
    left, top, w, h = (int(float(attributes[k])) for k in ('left', 'top', 'width', 'height'))
    runs = [float(value) for value in attributes['rle'].split(',')]
    return placed(_from_row_runs(runs, h, w), left, top, height, width)


def cvat_points(mask: np.ndarray) -> list[float]:
    """The points of a mask shape in CVAT's API: runs, then left, top, right, bottom, the last two
    within the region."""
    part, left, top = cropped(mask)
    height, width = part.shape
    corners = (left, top, left + width - 1, top + height - 1)
    return [float(value) for value in (*_row_runs(part), *corners)]


def cvat_points_mask(points: Sequence[float], height: int, width: int) -> np.ndarray:
    """The mask bool (height, width) of :func:`cvat_points`.

    Raises:
        ValueError: The runs do not fill the box.
    """
    if len(points) < 5:
        raise ValueError(f'a mask of CVAT has runs and a box of four numbers, got {len(points)}')
    left, top, right, bottom = (int(value) for value in points[-4:])
    part = _from_row_runs(points[:-4], bottom - top + 1, right - left + 1)
    return placed(part, left, top, height, width)


# ---------------------------------------------------------------------------------- LabelMe
def labelme_shape(mask: np.ndarray) -> dict[str, Any]:
    """'shape_type', 'points' (upper left and lower right pixel) and 'mask' (PNG in base 64) of a
    mask shape of LabelMe."""
    part, left, top = cropped(mask)
    height, width = part.shape
    png = io.BytesIO()
    Image.fromarray(part).save(png, 'PNG')  # of 1 bit, as LabelMe writes it
    return dict(
        shape_type='mask',
        points=[[left, top], [left + width - 1, top + height - 1]],
        mask=base64.b64encode(png.getvalue()).decode('ascii'),
    )


def labelme_mask(shape: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """The mask bool (height, width) of a mask shape.

    Raises:
        KeyError, TypeError, ValueError: Something is missing or malformed, the mask is too large.
    """
    try:
        data = base64.b64decode(shape['mask'], validate=True)
    except binascii.Error as error:
        raise ValueError(f'its mask is no base 64 ({error})') from error
    try:
        with Image.open(io.BytesIO(data)) as opened:
            part = np.array(opened.convert('L')) > 0
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise ValueError(f'its mask is no image, damaged or too large ({error})') from error
    left, top = (round(float(value)) for value in shape['points'][0])
    return placed(part, left, top, height, width)
