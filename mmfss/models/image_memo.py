"""Memory of what a frozen encoder gave for an image."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor


class ImageMemo:
    """Outputs of a frozen, deterministic encoder, kept in memory by the content of its input.

    The key is a hash of the input tensor's bytes, its dtype, shape and device, and of the autocast
    dtype, so an entry can't be of another image, size or augmentation; whoever changes the
    encoder's weights calls :meth:`clear`. Images that are not known are encoded one at a time,
    which makes an output independent of the batch that an image came in. Least recently used
    entries go first.

    Args:
        max_bytes: budget; 0 keeps nothing and encodes batches as they come.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f'cache_bytes must be >= 0, got {max_bytes}')
        self.max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.entries: OrderedDict[bytes, list[Tensor]] = OrderedDict()
        self.bytes = self.hits = self.misses = 0

    def __call__(self, encode: Callable[[Tensor], list[Tensor]], images: Tensor) -> list[Tensor]:
        """``encode(images)`` for (N, ...) images, as a list of (N, ...) tensors."""
        if not self.max_bytes:
            return encode(images)
        rows = [self._one(encode, image) for image in images.unbind()]
        return [torch.cat(level) for level in zip(*rows)]

    def _one(self, encode: Callable[[Tensor], list[Tensor]], image: Tensor) -> list[Tensor]:
        key = self._key(image)
        if key in self.entries:
            self.hits += 1
            self.entries.move_to_end(key)
            return self.entries[key]
        self.misses += 1
        outputs = encode(image[None])
        self.entries[key] = outputs
        self.bytes += _size(outputs)
        while self.bytes > self.max_bytes and self.entries:
            self.bytes -= _size(self.entries.popitem(last=False)[1])
        return outputs

    @staticmethod
    def _key(image: Tensor) -> bytes:
        content = image.detach().cpu().contiguous()
        # outputs live on the image's device, and under autocast they have another dtype
        kind = image.device.type
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        digest = hashlib.blake2b(
            f'{content.dtype} {tuple(content.shape)} {image.device} {cast}'.encode()
        )
        digest.update(content.view(torch.uint8).numpy())
        return digest.digest()


def _size(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
