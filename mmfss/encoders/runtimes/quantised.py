"""int8 by NNCF: weights and activations of matrix products and convolutions, fitted to photos."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mmcv
import numpy as np

from mmfss.datasets.io import read_photo
from mmfss.files import digest_of

from .converted import EXTRA, NotConverted, first_line, no_reports

if TYPE_CHECKING:
    import openvino

MOST_PHOTOS = 300
"""Of more, as many are taken, evenly spread over the list."""
_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


def check() -> None:
    """Make sure that NNCF is there.

    Raises:
        ValueError: it is not.
    """
    if importlib.util.find_spec('nncf') is None:
        raise ValueError(f'encoder_runtime: int8 is made by NNCF, which is not installed ({EXTRA})')


def photos_of(calibration: str | Sequence[str]) -> list[Path]:
    """The photos that int8 is fitted to.

    Args:
        calibration: a folder, whose photos and those in folders below are taken, or files.

    Raises:
        FileNotFoundError: no such folder or file. ValueError: no photo in it.
    """
    if isinstance(calibration, str):
        folder = Path(calibration).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f'calibration: there is no folder {folder}; give one of photos like those that '
                'the model will see'
            )
        found = sorted(p for p in folder.rglob('*') if p.suffix.lower() in _SUFFIXES)
    else:
        found = [Path(file) for file in calibration]
        for file in found:
            if not file.is_file():
                raise FileNotFoundError(f'calibration: there is no photo {file}')
    if not found:
        raise ValueError(f'calibration: {calibration} holds no photo ({", ".join(_SUFFIXES)})')
    step = -(-len(found) // MOST_PHOTOS)
    return found[::step]


def account(photos: Sequence[Path], ignored: Sequence[str]) -> dict[str, Any]:
    """What int8 was fitted to, for records and keys: number and digest of the photos, and how."""
    digest = hashlib.sha256(''.join(sorted(digest_of(p) for p in photos)).encode()).hexdigest()
    version = importlib.metadata.version('nncf')
    return dict(nncf=version, photos=len(photos), sha256=digest, ignored=list(ignored))


def quantised(
    model: openvino.Model,
    photos: Sequence[Path],
    ignored: Sequence[str] = (),
    names: Sequence[str] = (),
) -> openvino.Model:
    """A model in int8; the one that it is made of stays as it is.

    Args:
        model: of one static shape (1, 3, S, S), RGB 0..255.
        photos: that the ranges of activations are taken from.
        ignored: regular expressions of names of operations that stay in floats.
        names: of such operations.

    Raises:
        NotConverted: NNCF cannot.
        ValueError, FileNotFoundError: a photo that cannot be read.
    """
    side = model.input(0).get_shape()[-2:]
    images = list(pixels(photos, (side[0], side[1])))
    try:
        with no_reports():
            import nncf

            nncf.set_log_level(logging.ERROR)
            return nncf.quantize(
                model,
                nncf.Dataset(images),
                subset_size=len(images),
                preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER,
                ignored_scope=nncf.IgnoredScope(
                    names=list(names), patterns=list(ignored), validate=False
                ),
            )
    except Exception as error:  # it raises whatever it likes
        raise NotConverted(f'NNCF: {type(error).__name__}: {first_line(error)}') from error


def pixels(photos: Sequence[Path], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Photos as an encoder for images of a size (H, W) is given them: (1, 3, H, W) float32 RGB
    0..255 each."""
    for photo in photos:
        image = mmcv.imresize(read_photo(photo, ''), size[::-1])
        yield np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None], np.float32)
