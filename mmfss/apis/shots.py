"""A marked image: read, checked, brought to the model's size S."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmfss.apis.images import as_bgr, mask_to_model_size, to_model_size
from mmfss.datasets.io import read_mask


@dataclass(frozen=True)
class Shot:
    """A marked image, at the model's size.

    Attributes:
        image: uint8 (S, S, 3) BGR.
        mask: uint8 (S, S): 1 the object, 255 unknown, 0 the rest.
        shape: (height, width) of the original.
        source: what messages and pictures call it.
    """

    image: np.ndarray
    mask: np.ndarray
    shape: tuple[int, int]
    source: str


def make_shot(pair: Any, image_size: int, name: str) -> Shot:
    """Read an (image, mask) pair and bring both to the model's size.

    Args:
        pair: The two; see :func:`as_bgr` and :func:`as_mask`.
        image_size: S.
        name: What messages call it where there is no path.

    Raises:
        FileNotFoundError, ValueError: One cannot be read, they differ in size, or the mask is
            empty, marks everything, or vanishes at the model's size.
    """
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f'{name} must be a pair (image, mask), got {pair!r:.80}')
    source = str(pair[0]) if isinstance(pair[0], (str, os.PathLike)) else name
    image = as_bgr(pair[0], name)
    mask = as_mask(pair[1], f'the mask of {source}')
    if mask.shape != image.shape[:2]:
        turned = mask.shape == image.shape[1::-1]
        hint = (
            '; an EXIF tag may turn the photo: masks belong to the upright one, as viewers show it'
        )
        raise ValueError(
            f'the mask of {source} is {mask.shape[1]} x {mask.shape[0]} pixels (width x height), '
            f'the image {image.shape[1]} x {image.shape[0]}; they must be equal'
            f'{hint if turned else ""}'
        )
    small = mask_to_model_size(mask, image_size)
    if not (small == 1).any():
        raise ValueError(
            f'the object of {source} has {int((mask == 1).sum())} pixels and vanishes at the '
            f"model's {image_size} x {image_size}; cut out the part of the image around it"
        )
    return Shot(to_model_size(image, image_size), small, mask.shape, source)


def as_mask(mask: Any, name: str) -> np.ndarray:
    """A mask as uint8 (H, W): 1 the object, 255 unknown, 0 the rest.

    Args:
        mask: A palette or grey file of two values; a bool array; a uint8 array of two values; or
            anything with a ``mask`` attribute that is one (a proposal from a prompt). Where 1
            occurs, it is the object and 255 is unknown; else 255 is the object, as drawing
            programs save it.
        name: What messages call it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Other values, another shape or dtype, an empty mask, or all foreground.
    """
    mask = getattr(mask, 'mask', mask) if not isinstance(mask, np.ndarray) else mask
    if isinstance(mask, (str, os.PathLike)):
        name, mask = f'{name} ({mask})', read_mask(mask)
    if isinstance(mask, Image.Image):
        mask = np.asarray(mask)
    if isinstance(mask, torch.Tensor):
        mask = mask.cpu().numpy()
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or 0 in mask.shape:
        got = f'{mask.dtype} {mask.shape}' if isinstance(mask, np.ndarray) else repr(mask)[:80]
        raise ValueError(f'{name} must be a path or an array (H, W), got {got}')
    if mask.dtype != bool and mask.dtype != np.uint8:
        raise ValueError(f'{name} must be of bool or uint8, got {mask.dtype}; use mask > 0')
    mask = mask.astype(np.uint8)
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
    if not set(values) <= {0, 1, 255}:
        raise ValueError(
            f'{name} has the values {values[:8]}, allowed are 0 with 1 or 255 for the object (0, 1 '
            'and 255 = unknown); smoothed edges and JPEG leave values in between: save it as PNG '
            'without smoothing'
        )
    if 1 not in values and 255 in values:
        mask = (mask == 255).astype(np.uint8)
        values = [1 if v == 255 else v for v in values]
    if 1 not in values:
        raise ValueError(f'{name} marks no pixel as object; draw it, or leave the image out')
    if 0 not in values:
        raise ValueError(
            f'{name} marks every pixel; the method compares the object with what is around it. '
            'Use an image that shows some background, and check that the mask is not inverted'
        )
    return mask
