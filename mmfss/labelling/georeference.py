"""Where on earth an image lies, carried over to its label: GeoTIFF, with rasterio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmfss.apis.photos import large_photos
from mmfss.datasets.io import BROKEN
from mmfss.datasets.tiff import ORIENTATION
from mmfss.files import atomic

WRITTEN = 'written'
NO_RASTERIO = "rasterio is not installed: pip install 'mmfss[geo]'"
TURNED = 'their orientation tag turns them, which georeferences do not follow'
_ENDINGS = ('.tif', '.tiff')
_WORLD_FILES = ('.tfw', '.tifw', '.tiffw', '.wld')
_SCALE, _TIE_POINTS, _MATRIX = 33550, 33922, 34264
_TILE = 256  # sides of blocks of a GeoTIFF are multiples of 16


def write_georeferenced(
    source: Path, path: Path, labels: np.ndarray, palette: Sequence[Sequence[int]]
) -> str | None:
    """Write a label as GeoTIFF with the georeference of its image: coordinate system and affine
    transform, or ground control points, or rational polynomials. Blocks of 256 x 256, deflate.

    Args:
        source: the image.
        path: of the GeoTIFF.
        labels: uint8 (H, W).
        palette: RGB colours of the label values.

    Returns:
        ``WRITTEN``; why a georeference that is there is not carried over; None where there is none.

    Raises:
        OSError: It cannot be written.
    """
    if source.suffix.lower() not in _ENDINGS:
        return None
    has_tags, turned = _tags(source)
    try:
        import rasterio
        from rasterio.errors import RasterioError, RasterioIOError
    except ImportError:
        beside = any(source.with_suffix(ending).exists() for ending in _WORLD_FILES)
        return NO_RASTERIO if has_tags or beside else None
    try:
        with rasterio.open(source) as image:
            points, system = image.gcps
            known = dict(crs=image.crs or system, transform=image.transform, rpcs=image.rpcs)
            size = (image.height, image.width)
    except RasterioError:
        return None  # no TIFF for GDAL, though it could be read
    if known['transform'].is_identity:
        del known['transform']
        if points:
            known['gcps'] = points
    if not any(value is not None for value in known.values()):
        return None
    if turned or size != labels.shape:
        return TURNED
    kind = dict(driver='GTiff', height=size[0], width=size[1], count=1, dtype='uint8')
    form = dict(tiled=True, blockxsize=_TILE, blockysize=_TILE, compress='deflate')
    with atomic(path) as part:
        try:
            with rasterio.open(part, 'w', **kind, **form, **known) as label:
                label.write(labels, 1)
                label.write_colormap(1, {i: tuple(colour) for i, colour in enumerate(palette)})
        except RasterioIOError as error:
            raise OSError(f'{path} cannot be written: {error}') from error
    return WRITTEN


def _tags(source: Path) -> tuple[bool, bool]:
    """Whether a TIFF has tags of a georeference, and whether it is turned."""
    try:
        with large_photos(), Image.open(source) as image:
            tags = getattr(image, 'tag_v2', {})
            there = any(tag in tags for tag in (_SCALE, _TIE_POINTS, _MATRIX))
            return there, tags.get(ORIENTATION, 1) != 1
    except BROKEN:
        return False, False
