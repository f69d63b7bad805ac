"""A support set: classes, each with K marked images; and its file.

A support file is safetensors: no code can hide in it. It holds each image and mask at the model's
size S as PNG bytes, so it is small and independent of weights::

    image.<class>.<shot>   uint8 (n,)  PNG, RGB (S, S)
    mask.<class>.<shot>    uint8 (n,)  PNG, grey (S, S) of 0, 1, 255
    metadata               'mmfss-support': JSON of version, image_size, classes with their shots

S side of the model's images, K shots of a class, N classes.
"""

from __future__ import annotations

import io
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from mmfss.apis.images import ImageInput
from mmfss.apis.shots import Shot, make_shot
from mmfss.datasets.io import BROKEN
from mmfss.files import atomic

FORMAT, VERSION = 'mmfss-support', 1
MAX_CLASSES = 254
"""Labels are one byte: 0 background, 255 ignored."""
MAX_NAME = 100


@dataclass(frozen=True)
class SupportSet:
    """Classes by name, in the order of their labels 1..N, each with its shots.

    Attributes:
        shots: name of the class -> its K >= 1 shots; K may differ between classes.
        image_size: S.
    """

    shots: Mapping[str, tuple[Shot, ...]]
    image_size: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes 1..N."""
        return tuple(self.shots)

    @classmethod
    def build(
        cls, support: Mapping[str, Sequence[tuple[ImageInput, Any]]], image_size: int
    ) -> SupportSet:
        """Read and check images and masks.

        Args:
            support: name of a class -> its (image, mask) pairs; see :func:`make_shot` for
                what each may be.
            image_size: S of the model.

        Raises:
            FileNotFoundError, ValueError: See :func:`make_shot` and :func:`check_classes`.
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
                make_shot(pair, image_size, f'support {i} of {name!r}')
                for i, pair in enumerate(pairs, 1)
            )
        return cls(shots, image_size)

    def check_image_size(self, image_size: int) -> None:
        """Make sure that the set is for models of this size.

        Raises:
            ValueError: It is for another one.
        """
        if self.image_size != image_size:
            raise ValueError(
                f'the support set is for models of {self.image_size} x {self.image_size} '
                f'pixels, this one takes {image_size}; make it anew from the images'
            )

    def save(self, path: str | os.PathLike) -> None:
        """Write a support file, whole or not at all.

        Raises:
            OSError: The folder cannot be written to.
        """
        tensors, classes = {}, []
        for c, (name, shots) in enumerate(self.shots.items()):
            for k, shot in enumerate(shots):
                tensors[f'image.{c}.{k}'] = _png(np.ascontiguousarray(shot.image[..., ::-1]))
                tensors[f'mask.{c}.{k}'] = _png(shot.mask)
            listed = [dict(source=shot.source, shape=list(shot.shape)) for shot in shots]
            classes.append(dict(name=name, shots=listed))
        content = dict(version=VERSION, image_size=self.image_size, classes=classes)
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
                _check_format(metadata, path)
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f'{path} is no support file of mmfss, or damaged ({error}); copy it again, or make '
                'it anew with save_support'
            ) from error
        try:
            content = json.loads(metadata[FORMAT])
            _check_version(content['version'], path)
            return cls._from_content(content, tensors)
        except _OtherVersion:
            raise
        except (TypeError, AttributeError, Image.DecompressionBombError, *BROKEN) as error:
            raise ValueError(
                f'support file {path} is damaged ({type(error).__name__}: {error}); copy it again, '
                'or make it anew with save_support'
            ) from error

    @classmethod
    def _from_content(cls, content: dict, tensors: dict[str, torch.Tensor]) -> SupportSet:
        side, shots = content['image_size'], {}
        names = check_classes([entry['name'] for entry in content['classes']])
        for c, (name, entry) in enumerate(zip(names, content['classes'])):
            shots[name] = tuple(
                Shot(
                    _from_png(tensors[f'image.{c}.{k}'], 'RGB', side)[..., ::-1].copy(),
                    _check_values(_from_png(tensors[f'mask.{c}.{k}'], 'L', side)),
                    (int(shot['shape'][0]), int(shot['shape'][1])),
                    str(shot['source']),
                )
                for k, shot in enumerate(entry['shots'])
            )
            if not shots[name]:
                raise ValueError(f'class {name!r} has no shot')
        return cls(shots, side)


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


def _check_values(mask: np.ndarray) -> np.ndarray:
    if not np.isin(mask, (0, 1, 255)).all() or not (mask == 1).any():
        raise ValueError('a mask holds other values than 0, 1, 255, or no object')
    return mask


class _OtherVersion(ValueError):
    """The file is whole, and not for this mmfss."""


def _check_format(metadata: dict[str, str], path: str | os.PathLike) -> None:
    if FORMAT not in metadata:
        raise ValueError(
            f'{path} is no support file of mmfss: it holds other tensors '
            f'({", ".join(sorted(metadata)) or "without a description"}); make one with '
            'save_support or tools/label.py'
        )


def _check_version(version: object, path: str | os.PathLike) -> None:
    if version != VERSION:
        raise _OtherVersion(
            f'support file {path} is of version {version!r}, this mmfss reads {VERSION}; make it '
            'anew with save_support, or use the mmfss that wrote it'
        )
