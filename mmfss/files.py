"""Writing files so that no reader, and no later run, ever meets half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to; it takes its place when all went well.

    The folder is made. After an error, an interruption or a kill, what was at ``path`` is still
    there as it was.

    Raises:
        OSError: The folder cannot be written to, the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name[:100]}.', suffix='.part')
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)  # temporary files are private, results are not
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding='utf-8')
