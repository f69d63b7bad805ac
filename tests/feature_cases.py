"""What tests of the feature cache share."""

from __future__ import annotations

import torch

from mmfss.features import FeatureCache

ENCODER = 'e' * 64


def opened(directory=None, encoder: str = ENCODER, about: dict | None = None, **kwargs):
    """A cache with one encoder key."""
    cache = FeatureCache(None if directory is None else str(directory), **kwargs)
    cache.open(encoder, dict(what=['encoder']) if about is None else about)
    return cache


def features_of(image: int | str, encoder: str = ENCODER) -> list[torch.Tensor]:
    """The truth of an image: 20 KB of noise in 3 tensors."""
    generator = torch.Generator().manual_seed(hash_of(f'{encoder} {image}'))
    sides = ((1, 4, 32, 32), (1, 8, 8, 8), (1, 2, 16, 4))
    return [torch.randn(*side, generator=generator) for side in sides]


def hash_of(text: str) -> int:
    """The same in every process, unlike Python's."""
    return int.from_bytes(text.encode(), 'big') % (2**61 - 1)


def bits(tensor: torch.Tensor) -> bytes:
    """The values in the order of their indices."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(found, truth) -> None:
    """Bit for bit, also where NaN is."""
    assert found is not None and len(found) == len(truth)
    for a, b in zip(found, truth):
        assert (a.dtype, a.shape, a.device) == (b.dtype, b.shape, b.device)
        assert bits(a) == bits(b)
        assert not a.requires_grad and not a.is_inference()
