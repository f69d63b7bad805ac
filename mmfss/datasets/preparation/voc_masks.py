"""One mask of VOC 2012: from SegmentationClassAug, SegmentationClass or a .mat file of SBD."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmfss.datasets.class_names import PASCAL_CLASSES
from mmfss.datasets.io import read_mask
from mmfss.datasets.palette import label_palette
from mmfss.datasets.preparation.counts import class_areas, mask_values
from mmfss.datasets.preparation.jobs import Done, save_png
from mmfss.datasets.preparation.sources import check_size, image_size

AUG = 'SegmentationClassAug'
_LABELS = len(PASCAL_CLASSES)
_COLOURS = label_palette(255)


@dataclass(frozen=True)
class Job:
    """A mask to make or to check.

    Args:
        image: Its image.
        out: The mask; it stays when it is complete and right.
        sources: Files to make it from, best first; the first that is there is taken.
    """

    image: Path
    out: Path
    sources: tuple[Path, ...]


def need_scipy() -> None:
    """ValueError with the command that installs scipy, where it is not."""
    if importlib.util.find_spec('scipy') is None:
        raise ValueError(
            'scipy, which reads .mat files, is not installed; pip install -r requirements/tools.txt'
        )


def make(job: Job) -> Done:
    """Make a mask unless it is there, of the image's size and with VOC's labels.

    Returns:
        With ``{label: pixels}`` as its result.

    Raises:
        FileNotFoundError: No image, or no mask and nothing to make it from.
        ValueError: The image or mask is damaged, of another form, size or has other values.
    """
    shape = image_size(job.image)
    sources = [source for source in job.sources if source.is_file()]
    try:
        return Done(kept=1, result=class_areas(read_labels(job.out, shape)))
    except FileNotFoundError:
        if not sources:
            raise FileNotFoundError(
                f'no mask of image {job.image.stem}; looked for '
                f'{", ".join(map(str, (job.out, *job.sources)))}'
            ) from None
    except ValueError:
        if not sources:
            raise
    mask = read_labels(sources[0], shape)
    save_png(job.out, mask, _COLOURS)
    return Done(written=1, result=class_areas(mask))


def read_labels(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """The labels in a .png or .mat file, uint8 (height, width) of 0..20 and 255.

    Raises:
        FileNotFoundError: No such file. ValueError: As for :func:`make`.
    """
    try:
        mask = read_mat(path) if path.suffix == '.mat' else read_mask(path)
    except ValueError as error:
        raise ValueError(
            f'{error} (the masks of VOC are palette PNGs: one that was opened and saved as RGB '
            'must be unpacked from the download again)'
        ) from error
    check_size(mask, path, shape)
    wrong = [v for v in mask_values(mask) if v > _LABELS and v != 255]
    if wrong:
        raise ValueError(
            f'mask {path} has the values {wrong[:5]}, allowed are 0..{_LABELS} and 255; it is no '
            'class mask of VOC (SegmentationObject has numbers of objects): unpack it again'
        )
    return mask


def read_mat(path: Path) -> np.ndarray:
    """``GTcls.Segmentation`` of a file of SBD, uint8 (height, width).

    Raises:
        FileNotFoundError: No such file. ValueError: It is cut off, or has no such field.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise FileNotFoundError(f'mask file not found: {path}')
    try:
        content = loadmat(str(path), squeeze_me=True, struct_as_record=False)
        mask = np.asarray(content['GTcls'].Segmentation)
    except Exception as error:  # scipy raises nearly anything on a damaged file
        raise ValueError(
            f'cannot read {path}: it is cut off, or has no GTcls.Segmentation as the files in '
            f'cls/ of SBD have ({type(error).__name__}: {error}); unpack benchmark.tgz again'
        ) from error
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(
            f'GTcls.Segmentation of {path} must be 8-bit of two dimensions, got {mask.dtype} '
            f'{mask.shape}; unpack benchmark.tgz again'
        )
    return mask
