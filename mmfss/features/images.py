"""Deferred images, which are not read before somebody needs their pixels, and keys that name them.

With a feature cache most images of an evaluation need not be opened at all: what the encoders
gave for them is kept under :attr:`DeferredImage.key`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SETTLED = 0.02  # seconds; file systems count time in steps of at most this


@dataclass(frozen=True)
class ImageSteps:
    """The transforms that make the pixels of an image, none of which is random.

    Attributes:
        transforms: from the one that reads ``img_path`` on; each takes and returns mmcv's dict.
        digest: of all that decides about their result, see
            :func:`mmfss.datasets.deferred.image_steps`.
    """

    transforms: tuple[Callable[[dict], dict | None], ...]
    digest: str

    def __call__(self, path: str) -> Tensor:
        """Read an image: uint8 (3, H, W) BGR.

        Raises:
            ValueError, FileNotFoundError: whatever goes wrong, with the file's path.
        """
        results: dict[str, Any] | None = dict(img_path=path, seg_fields=[])
        for transform in self.transforms:
            try:
                results = transform(results)  # type: ignore[arg-type]
            except Exception as error:
                if path in str(error):
                    raise
                raise ValueError(
                    f'{type(transform).__name__} failed on {path}: {type(error).__name__}: {error}'
                ) from error
            if results is None:
                raise ValueError(
                    f'{type(transform).__name__} gave None for {path}; images are never skipped'
                )
        return image_tensor(results['img'])  # type: ignore[index]


def image_tensor(image: np.ndarray) -> Tensor:
    """BGR image (H, W, 3) as a tensor (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def file_identity(path: str | os.PathLike) -> tuple[str, int, int, int, int]:
    """What changes whenever a file's content does: real path, inode, size, mtime and ctime (ns).

    ctime tells a rewrite whose mtime was put back. A file that was written just now could be
    written again within the same step of the file system's clock, so such a one is waited for.

    Raises:
        FileNotFoundError: there is no such file.
    """
    while True:
        try:
            real, found = os.path.realpath(path), os.stat(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'image file not found: {path}') from error
        identity = (real, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if time.time() - found.st_ctime > _SETTLED:
            return identity
        time.sleep(_SETTLED)
        if os.stat(path).st_ctime_ns == found.st_ctime_ns:  # a clock that is ahead counts too
            return identity


@dataclass(frozen=True)
class DeferredImage:
    """An image of an episode that has not been read.

    Attributes:
        path: the file.
        key: sha256 of the file's identity and of its transforms: what is kept of an image under
            its key is never that of another image, of another content or size.
        steps: its transforms.
        shape: (H, W) that its pixels will have.
    """

    path: str
    key: str
    steps: ImageSteps
    shape: tuple[int, int]

    @staticmethod
    def key_of(path: str, steps: ImageSteps) -> str:
        """Key of a file as it is now.

        Raises:
            FileNotFoundError: there is no such file.
        """
        said = json.dumps([file_identity(path), steps.digest])
        return hashlib.sha256(said.encode()).hexdigest()

    def read(self) -> Tensor:
        """The pixels: uint8 (3, H, W) BGR, as the pipeline gives them.

        Raises:
            ValueError: the file was changed since the key was made, is damaged, or its pixels
                are not uint8 (3, H, W). FileNotFoundError: it is gone.
        """
        image = self.steps(self.path)
        if self.key_of(self.path, self.steps) != self.key:
            raise ValueError(
                f'image file {self.path} was changed while it was in use, so that features of two '
                'contents would be mixed; run again when nothing writes to it any more'
            )
        if image.dtype != torch.uint8 or tuple(image.shape) != (3, *self.shape):
            raise ValueError(
                f'the image transforms gave {image.dtype} {tuple(image.shape)} for {self.path}, '
                f'expected torch.uint8 (3, {self.shape[0]}, {self.shape[1]}); transforms of '
                'deferred images keep the dtype, and their size depends on that of the image alone'
            )
        return image


@dataclass(frozen=True)
class DeferredImages:
    """Images of one episode, in the place of pixels: the query's, or those of the K supports.

    It is no Sequence, so that mmengine's collate functions leave it whole.
    """

    files: tuple[DeferredImage, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[DeferredImage]:
        return iter(self.files)

    def __getitem__(self, place: int) -> DeferredImage:
        return self.files[place]


class DeferredBatch:
    """N images in the place of a (N, 3, S, S) tensor; each is read when its pixels are asked for.

    Args:
        files: the images.
        bgr_to_rgb: flip the channels.
        device: where pixels go.
        non_blocking: do not wait for the transfer.
    """

    def __init__(
        self,
        files: Sequence[DeferredImage],
        bgr_to_rgb: bool = True,
        device: torch.device | str = 'cpu',
        non_blocking: bool = False,
    ) -> None:
        self.files = tuple(files)
        self.bgr_to_rgb, self.device = bgr_to_rgb, torch.device(device)
        self.non_blocking = non_blocking
        order = 'rgb' if bgr_to_rgb else 'bgr'
        #: of each image: that of its file, and what is done to its pixels here
        self.keys = [
            hashlib.sha256(f'{file.key} {order} float32'.encode()).hexdigest() for file in files
        ]

    def __len__(self) -> int:
        return len(self.files)

    def pixels(self, place: int) -> Tensor:
        """Read image ``place``: float32 (1, 3, S, S) 0..255 on the device.

        Raises:
            ValueError, FileNotFoundError: as :meth:`DeferredImage.read`.
        """
        image = self.files[place].read().to(self.device, non_blocking=self.non_blocking)
        image = image.flip(-3) if self.bgr_to_rgb else image
        return image.float()[None]


def content_key(image: Tensor) -> str:
    """Key of pixels by their content: hash of bytes, dtype and shape; any device."""
    content = image.detach().cpu().contiguous()
    digest = hashlib.blake2b(f'{content.dtype} {tuple(content.shape)}'.encode(), digest_size=32)
    digest.update(content.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
