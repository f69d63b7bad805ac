"""The CPU that this runs on."""

from __future__ import annotations

import functools
import platform
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_NAMES = {'model name': 'name', 'flags': 'flags', 'Features': 'flags'}


class CPU(NamedTuple):
    """Its model, and what instructions it has as Linux names them; none on other systems."""

    name: str
    flags: frozenset[str]


@functools.cache
def cpu() -> CPU:
    """This one."""
    found = dict(name=platform.processor() or platform.machine(), flags='')
    with suppress(OSError):
        for line in Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines():
            key, _, value = line.partition(':')
            if key.strip() in _NAMES:
                found[_NAMES[key.strip()]] = value.strip()
    return CPU(found['name'], frozenset(found['flags'].split()))
