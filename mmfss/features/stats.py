"""Counters of a feature cache."""

from __future__ import annotations

from dataclasses import dataclass

from mmfss.features.folders import in_words


@dataclass
class CacheStats:
    """What a cache did; ``misses`` include the damaged."""

    memory_hits: int = 0
    disk_hits: int = 0
    misses: int = 0
    damaged: int = 0
    written: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def __str__(self) -> str:
        return (
            f'{self.memory_hits} from memory, {self.disk_hits} from disk '
            f'({in_words(self.bytes_read)}), {self.misses} computed ({self.damaged} of them '
            f'damaged on disk), {self.written} written ({in_words(self.bytes_written)})'
        )
