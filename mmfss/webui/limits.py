"""How much a visitor may bring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """How much one visitor may bring.

    Attributes:
        max_pixels: width x height of an image.
        max_upload_mb: megabytes (2^20 bytes) of a file.
        max_photos: images to mark.
        max_shots: marked objects, over all classes.
        max_queries: images to label.
        grey_values: how photos of more than 8 bits are read, see
            :meth:`mmfss.datasets.grey_values.GreyValues.of`.
    """

    max_pixels: int = 50_000_000
    max_upload_mb: int = 50
    max_photos: int = 50
    max_shots: int = 50
    max_queries: int = 100
    grey_values: Mapping[str, Any] | None = None

    @property
    def max_upload_bytes(self) -> int:
        """Of a file."""
        return self.max_upload_mb * 2**20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name == 'grey_values':
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f'{name} must be a whole number of at least 1, got {value!r}')
