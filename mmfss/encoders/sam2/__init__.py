"""SAM 2, on top of the sam2 package."""

from .memory_attention import SAM2MemoryAttention
from .model import SAM2

__all__ = ['SAM2', 'SAM2MemoryAttention']
