"""A support set: classes, each with K marked images (shots) and M images of what is not the class;
and its file.

A support file is safetensors: no code can hide in it. It holds each image and mask at the model's
size S as PNG bytes, so it is small and independent of weights::

    image.<class>.<shot>   uint8 (n,)  PNG, RGB (S, S)
    mask.<class>.<shot>    uint8 (n,)  PNG, grey (S, S) of 0, 1, 255
    not_image..., not_mask...          the same of what is not the class; in version 2 alone
    metadata               'mmfss-support': JSON of version, image_size, classes with their shots

A set without negatives is written as version 1, which readers that know nothing of them take.

S side of the model's images, K shots of a class and M negatives, N classes.
"""

from __future__ import annotations

import io
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from mmfss.apis.images import ImageInput, as_bgr, mask_to_model_size, to_model_size
from mmfss.apis.marks import Prompt
from mmfss.datasets.account import Account
from mmfss.datasets.grey_values import GreyValues
from mmfss.datasets.io import BROKEN
from mmfss.datasets.preparation.mask_files import read_values
from mmfss.files import atomic
from mmfss.functional import RESIZES

FORMAT, VERSIONS = 'mmfss-support', (1, 2)
MAX_CLASSES = 254
"""Labels are one byte: 0 background, 255 ignored."""
MAX_NAME = 100

Pairs = list[tuple[np.ndarray, np.ndarray]]
"""Images uint8 (S, S, 3) BGR with masks uint8 (S, S) of 0, 1, 255."""


@dataclass(frozen=True)
class Shot:
    """A marked image, at the model's size.

    Attributes:
        image: uint8 (S, S, 3) BGR.
        mask: uint8 (S, S): 1 the object (of a negative: where the class is not), 255 unknown, 0
            the rest.
        shape: (height, width) of the original.
        source: what messages and pictures call it.
        prompts: what a person marked, where the mask was made from it, in pixels of the original;
            not kept in a support file.
    """

    image: np.ndarray
    mask: np.ndarray
    shape: tuple[int, int]
    source: str
    prompts: tuple[Prompt, ...] = ()


def make_shot(
    pair: Any,
    image_size: int,
    name: str,
    resize: str = 'bilinear',
    grey_values: GreyValues | None = None,
) -> Shot:
    """Read an (image, mask) pair and bring both to the model's size.

    Args:
        pair: The two; see :func:`as_bgr` and :func:`as_mask`.
        image_size: S.
        name: What messages call it where there is no path.
        resize: that of the model.
        grey_values: see :func:`as_bgr`.

    Raises:
        FileNotFoundError, ValueError: One cannot be read, they differ in size, or the mask is
            empty, marks everything, or vanishes at the model's size.
    """
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f'{name} must be a pair (image, mask), got {pair!r:.80}')
    source = str(pair[0]) if isinstance(pair[0], (str, os.PathLike)) else name
    image = as_bgr(pair[0], name, grey_values)
    mask = as_mask(pair[1], f'the mask of {source}')
    return _shot(image, mask, image_size, source, resize, pair[1])


def make_negative(
    item: Any,
    image_size: int,
    name: str,
    resize: str = 'bilinear',
    grey_values: GreyValues | None = None,
) -> Shot:
    """Read what is not a class, though it may look like it.

    Args:
        item: An image, in which the class is nowhere; or a pair (image, mask), whose mask marks
            where it is not. The rest of that image says nothing.
        image_size, name, resize, grey_values: See :func:`make_shot`.

    Raises:
        FileNotFoundError, ValueError: As :func:`make_shot`, but all of an image may be marked.
    """
    alone = not isinstance(item, (tuple, list))
    if not alone and len(item) != 2:
        raise ValueError(f'{name} must be an image or a pair (image, mask), got {item!r:.80}')
    given = item if alone else item[0]
    source = str(given) if isinstance(given, (str, os.PathLike)) else name
    image = as_bgr(given, name, grey_values)
    if alone:
        return _shot(image, np.ones(image.shape[:2], np.uint8), image_size, source, resize)
    mask = as_mask(item[1], f'the mask of {source}', negative=True)
    return _shot(image, mask, image_size, source, resize, item[1])


def _shot(
    image: np.ndarray, mask: np.ndarray, image_size: int, source: str, resize: str, made: Any = None
) -> Shot:
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
    prompts = tuple(getattr(made, 'prompts', ()))
    return Shot(to_model_size(image, image_size, resize), small, mask.shape, source, prompts)


def as_mask(mask: Any, name: str, negative: bool = False) -> np.ndarray:
    """A mask as uint8 (H, W): 1 the object, 255 unknown, 0 the rest.

    Args:
        mask: A file of two values (see :func:`.mask_files.read_values`); a bool array; a uint8
            array of two values; or anything with a ``mask`` attribute that is one (a proposal from
            a prompt). Where 1 occurs, it is the object and 255 is unknown; else 255 is the object,
            as drawing programs save it.
        name: What messages call it.
        negative: It marks where a class is not, which may be everywhere.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Other values, another shape or dtype, an empty mask, or all foreground where
            that is not ``negative``.
    """
    mask = getattr(mask, 'mask', mask) if not isinstance(mask, np.ndarray) else mask
    if isinstance(mask, (str, os.PathLike)):
        name, mask = f'{name} ({mask})', read_values(Path(mask), two=True)
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
        if negative:
            raise ValueError(
                f'{name} marks nothing as not the class; draw where it is not, or give the image '
                'alone if it is nowhere in it'
            )
        raise ValueError(f'{name} marks no pixel as object; draw it, or leave the image out')
    if 0 not in values and not negative:
        raise ValueError(
            f'{name} marks every pixel; the method compares the object with what is around it. '
            'Use an image that shows some background, and check that the mask is not inverted'
        )
    return mask


@dataclass(frozen=True)
class SupportSet:
    """Classes by name, in the order of their labels 1..N, each with its shots.

    Attributes:
        shots: name of the class -> its K >= 1 shots; K may differ between classes.
        image_size: S.
        resize: how photos were brought to S x S, that of the model.
        negatives: name of a class -> its M >= 1 negatives, for classes that have some.
        account: what was left out of the folder that it was read from.
    """

    shots: Mapping[str, tuple[Shot, ...]]
    image_size: int
    resize: str = 'bilinear'
    negatives: Mapping[str, tuple[Shot, ...]] = field(default_factory=dict)
    account: Account = field(default_factory=Account, compare=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes 1..N."""
        return tuple(self.shots)

    def pairs(self) -> tuple[list[Pairs], list[Pairs]]:
        """(image, mask) of the shots of each class, and of its negatives, which may be none."""
        return (
            [[(shot.image, shot.mask) for shot in shots] for shots in self.shots.values()],
            [[(n.image, n.mask) for n in self.negatives.get(name, ())] for name in self.shots],
        )

    @classmethod
    def build(
        cls,
        support: Mapping[str, Sequence[tuple[ImageInput, Any]]],
        image_size: int,
        resize: str = 'bilinear',
        negatives: Mapping[str, Sequence[Any]] | None = None,
        grey_values: GreyValues | None = None,
    ) -> SupportSet:
        """Read and check images and masks.

        Args:
            support: name of a class -> its (image, mask) pairs; see :func:`make_shot` for
                what each may be.
            image_size, resize: of the model.
            negatives: name of a class -> images of what is not the class, or (image, mask) pairs
                that mark it; see :func:`make_negative`.
            grey_values: see :func:`as_bgr`.

        Raises:
            FileNotFoundError, ValueError: See :func:`make_shot`, :func:`make_negative` and
                :func:`check_classes`; negatives of a class that has no support.
        """
        if not isinstance(support, Mapping):
            raise ValueError(
                "support must be a dict {'cat': [(image, mask), ...], ...}, got "
                f'{type(support).__name__}'
            )
        names = check_classes(list(support))
        shots = {}
        for name, pairs in zip(names, support.values()):
            if not isinstance(pairs, (list, tuple)) or not pairs:
                raise ValueError(
                    f'class {name!r} needs a list of at least one (image, mask), got {pairs!r:.80}'
                )
            shots[name] = tuple(
                make_shot(pair, image_size, f'support {i} of {name!r}', resize, grey_values)
                for i, pair in enumerate(pairs, 1)
            )
        if not isinstance(negatives, Mapping | None):
            raise ValueError(
                "negatives must be a dict {'cat': [image, (image, mask), ...], ...}, got "
                f'{type(negatives).__name__}'
            )
        given = negatives or {}
        found: dict[str, tuple[Shot, ...]] = {}
        for name, items in zip(check_classes(list(given)) if given else (), given.values()):
            if name not in shots:
                raise ValueError(
                    f'{name!r} has negatives and no support; the classes with supports are '
                    f'{", ".join(names)}. Mark at least one image of it, too'
                )
            if not isinstance(items, (list, tuple)):
                raise ValueError(
                    f'negatives of {name!r} must be a list of images or (image, mask) pairs, got '
                    f'{items!r:.80}'
                )
            found[name] = tuple(
                make_negative(item, image_size, f'negative {i} of {name!r}', resize, grey_values)
                for i, item in enumerate(items, 1)
            )
        return cls(shots, image_size, resize, {n: found[n] for n in names if found.get(n)})

    def check_image_size(self, image_size: int, resize: str = 'bilinear') -> None:
        """Make sure that the set is for models that see photos at this size.

        Raises:
            ValueError: It is for another one.
        """
        if (self.image_size, self.resize) != (image_size, resize):
            by = f', resized by {resize}' if self.resize != resize else ''
            own = f', resized by {self.resize}' if by else ''
            raise ValueError(
                f'the support set is for models of {self.image_size} x {self.image_size} pixels'
                f'{own}, this one takes {image_size}{by}; make it anew from the images'
            )

    def save(self, path: str | os.PathLike) -> None:
        """Write a support file, whole or not at all.

        Raises:
            OSError: The folder cannot be written to.
        """
        tensors, classes = {}, []
        for c, (name, shots) in enumerate(self.shots.items()):
            entry: dict[str, Any] = dict(name=name)
            for kind, prefix, some in (
                ('shots', '', shots),
                ('negatives', 'not_', self.negatives.get(name, ())),
            ):
                for k, shot in enumerate(some):
                    rgb = np.ascontiguousarray(shot.image[..., ::-1])
                    tensors[f'{prefix}image.{c}.{k}'] = _png(rgb)
                    tensors[f'{prefix}mask.{c}.{k}'] = _png(shot.mask)
                if some:
                    entry[kind] = [dict(source=s.source, shape=list(s.shape)) for s in some]
            classes.append(entry)
        version = VERSIONS[1] if self.negatives else VERSIONS[0]
        content = dict(version=version, image_size=self.image_size, classes=classes)
        if self.resize != 'bilinear':
            content['resize'] = self.resize
        # one entry: safetensors writes several in any order
        data = to_bytes(tensors, {FORMAT: json.dumps(content, sort_keys=True)})
        with atomic(path) as part:
            part.write_bytes(data)

    @classmethod
    def load(cls, path: str | os.PathLike) -> SupportSet:
        """Read a support file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, of another format or of another version.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f'support file {path} not found; make one with save_support or tools/label.py'
            )
        try:
            with safe_open(path, 'pt') as file:
                metadata = file.metadata() or {}
                if FORMAT not in metadata:
                    raise ValueError(
                        f'{path} is no support file of mmfss: it holds other tensors '
                        f'({", ".join(sorted(metadata)) or "without a description"}); make one '
                        'with save_support or tools/label.py'
                    )
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f'{path} is no support file of mmfss, or damaged ({error}); copy it again, or make '
                'it anew with save_support'
            ) from error
        try:
            content = json.loads(metadata[FORMAT])
            if content['version'] in VERSIONS:
                return cls._from_content(content, tensors)
        except (TypeError, AttributeError, Image.DecompressionBombError, *BROKEN) as error:
            raise ValueError(
                f'support file {path} is damaged ({type(error).__name__}: {error}); copy it again, '
                'or make it anew with save_support'
            ) from error
        raise ValueError(
            f'support file {path} is of version {content["version"]!r}, this mmfss reads '
            f'{" and ".join(map(str, VERSIONS))}; make it anew with save_support, or use the mmfss '
            'that wrote it'
        )

    @classmethod
    def _from_content(cls, content: dict, tensors: dict[str, torch.Tensor]) -> SupportSet:
        side, resize = content['image_size'], content.get('resize', 'bilinear')
        shots: dict[str, tuple[Shot, ...]] = {}
        negatives: dict[str, tuple[Shot, ...]] = {}
        if resize not in RESIZES:
            raise ValueError(f'photos were resized by {resize!r}, known are {list(RESIZES)}')
        names = check_classes([entry['name'] for entry in content['classes']])
        for c, (name, entry) in enumerate(zip(names, content['classes'])):
            for prefix, found, listed in (
                ('', shots, entry['shots']),
                ('not_', negatives, entry.get('negatives', ())),
            ):
                of_class = []
                for k, shot in enumerate(listed):
                    rgb = _from_png(tensors[f'{prefix}image.{c}.{k}'], 'RGB', side)
                    mask = _from_png(tensors[f'{prefix}mask.{c}.{k}'], 'L', side)
                    if not np.isin(mask, (0, 1, 255)).all() or not (mask == 1).any():
                        raise ValueError('a mask holds other values than 0, 1, 255, or no object')
                    height, width = (int(shot['shape'][i]) for i in (0, 1))
                    image = rgb[..., ::-1].copy()
                    of_class.append(Shot(image, mask, (height, width), str(shot['source'])))
                if of_class:
                    found[name] = tuple(of_class)
            if name not in shots:
                raise ValueError(f'class {name!r} has no shot')
        return cls(shots, side, resize, negatives)


def check_classes(names: Sequence[str]) -> list[str]:
    """Names of classes, in Unicode's composed form and without surrounding blanks.

    Raises:
        ValueError: None or more than 254, an empty or very long name, control characters, the name
            'background', or two classes of one name (letter case aside).
    """
    if not 1 <= len(names) <= MAX_CLASSES:
        raise ValueError(f'there must be 1 to {MAX_CLASSES} classes, got {len(names)}')
    clean: list[str] = []
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f'names of classes must be text, got {name!r}')
        text = unicodedata.normalize('NFC', name).strip()
        odd = any(unicodedata.category(c)[0] == 'C' for c in text)
        if not text or len(text) > MAX_NAME or odd or text.casefold() == 'background':
            raise ValueError(
                f'the name of a class must have 1 to {MAX_NAME} printable characters and not be '
                f"'background' (label 0, which needs no support), got {name!r:.140}"
            )
        if text.casefold() in {other.casefold() for other in clean}:
            raise ValueError(f'two classes are named {text!r}; rename or join them')
        clean.append(text)
    return clean


def _png(array: np.ndarray) -> torch.Tensor:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, 'PNG')
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _from_png(data: torch.Tensor, mode: str, side: int) -> np.ndarray:
    with Image.open(io.BytesIO(data.numpy().tobytes()), formats=('PNG',)) as image:
        if image.mode != mode or image.size != (side, side):  # before anything is decoded
            raise ValueError(f'a PNG is {image.mode} {image.size}, not {mode} {(side, side)}')
        return np.array(image)
