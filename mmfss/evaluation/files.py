"""Writing results: known to be possible before the work starts, and whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def check_writable(path: str | Path, what: str) -> Path:
    """Make sure that a file can be written, before the work that it is to hold is done.

    Makes its folder; the file itself is neither made nor changed.

    Args:
        path: The file.
        what: What it is called in messages, e.g. '--out'.

    Raises:
        ValueError: The path is a folder, or its folder cannot be made or written to.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError('it is a folder')
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(
            f'{what}: {path} cannot be written ({error.strerror or error}); give the path of a '
            'file in a folder that you may write to'
        ) from error
    return path


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8) so that readers meet the old one or the new one, never a part.

    Raises:
        OSError: It cannot be written; an older file is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'w', encoding='utf-8', newline='') as file:
            file.write(text)
        os.chmod(partial, 0o644)  # temporary files are private, results are to be read
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
