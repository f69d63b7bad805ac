"""Where visitors' files are: a folder that goes with the page, and one that stays."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmfss.files import atomic, take_lock
from mmfss.webui.uploads import clean_name

SESSION = 'session.json'
"""In the folder of a visitor: what is to be gone on with."""
KEPT_DAYS, MAX_KEPT = 30, 64
"""Of visitors whose sessions stay: days since their last step, and how many of the last ones."""
_PAGE, _VISITOR, _LOCK, _KEY = 'mmfss_webui_', 'visitor_', '.lock', '.key'
_KEY_BYTES = 32


@contextmanager
def page_folder(within: Path | None = None) -> Iterator[Path]:
    """A folder for the files of a page's visitors, which goes with the page. Those of pages that
    were killed are removed before: a lock, which ends with its process, tells them.

    Args:
        within: default: the system's folder for temporary files.
    """
    place = Path(within or tempfile.gettempdir()).resolve()
    for old in place.glob(f'{_PAGE}*'):
        with suppress(OSError):  # gone already, or not ours to look into
            mine = old.stat(follow_symlinks=False).st_uid == os.getuid() and old.is_dir()
            if mine and not old.is_symlink():
                with open(old / _LOCK, 'r+') as file:  # kept where locks tell nothing
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(old, ignore_errors=True)
    # locked under another name, so that no page that starts now takes it for a left one
    made = Path(tempfile.mkdtemp(prefix=f'.{_PAGE}', dir=place))
    with open(made / _LOCK, 'w') as file:
        take_lock(file)
        made = made.rename(made.with_name(made.name[1:]))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def default_sessions(port: int) -> Path:
    """Where sessions stay: ``$XDG_STATE_HOME/mmfss/webui/PORT``, a folder for each port, as
    browsers know visitors of a port."""
    state = os.environ.get('XDG_STATE_HOME') or os.path.expanduser('~/.local/state')
    return Path(state, 'mmfss', 'webui', str(port))


@contextmanager
def kept_folder(path: Path) -> Iterator[Path]:
    """A folder in which visitors' sessions stay. Nobody else may look into it, and one page at a
    time has it. What nobody comes back for is removed before: sessions of :data:`KEPT_DAYS` ago,
    those beyond the last :data:`MAX_KEPT`, and folders without one.

    Raises:
        ValueError: Another page has it, or others may write to it.
        OSError: It cannot be made or written to.
    """
    path = Path(path).expanduser().absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = path.resolve()
    state = path.stat()
    if state.st_uid != os.getuid() or stat.S_IMODE(state.st_mode) & 0o077:
        raise ValueError(
            f'sessions are not kept in {path}: others may look into it; chmod 700 it, give another '
            'folder with --sessions, or keep nothing with --forget'
        )
    with open(path / _LOCK, 'a+') as file:
        try:
            take_lock(file)
        except BlockingIOError as error:
            raise ValueError(
                f'another page keeps its sessions in {path}; give another folder with --sessions, '
                'or keep nothing with --forget'
            ) from error
        clear_stale(path)
        yield path


def clear_stale(root: Path, days: float = KEPT_DAYS, most: int = MAX_KEPT) -> None:
    """Remove the folders of visitors that nobody comes back for, see :func:`kept_folder`."""
    seen: list[tuple[float, Path]] = []
    for folder in root.glob(f'{_VISITOR}*'):
        last = -1.0
        with suppress(OSError):
            last = (folder / SESSION).stat().st_mtime
        seen.append((last, folder))
    oldest = time.time() - days * 24 * 3600
    for number, (last, folder) in enumerate(sorted(seen, reverse=True)):
        if number >= most or last < oldest:
            shutil.rmtree(folder, ignore_errors=True)


def signing_key(root: Path | None) -> bytes:
    """What visitors' cookies are signed with: kept in a folder of :func:`kept_folder`, as a file
    that its owner alone may read, so that cookies outlive the page; made anew where there is none
    or others could have read it. Of no folder: one for now.

    Raises:
        OSError: It cannot be written.
    """
    if root is None:
        return secrets.token_bytes(_KEY_BYTES)
    path = root / _KEY
    with suppress(FileNotFoundError):
        mode, key = path.lstat().st_mode, path.read_bytes()
        if stat.S_ISREG(mode) and not mode & 0o077 and len(key) == _KEY_BYTES:
            return key
    key = secrets.token_bytes(_KEY_BYTES)
    with atomic(path, mode=0o600) as part:
        part.write_bytes(key)
    return key


class VisitorFolder:
    """A folder of one visitor, made when its first file is.

    Attributes:
        path: the folder.
        stays: whether it outlives this object; else it is removed with it, or at exit.
    """

    def __init__(self, path: Path, stays: bool = False) -> None:
        self.path, self.stays = path, stays
        numbers = [int(f.name[:5]) for f in path.glob('[0-9]' * 5 + '*')] if stays else []
        self._number = max(numbers, default=0)
        # the page may forget a session without a word
        remove = weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        self._remove = (lambda: shutil.rmtree(path, ignore_errors=True)) if stays else remove
        if stays:
            remove.detach()

    @classmethod
    def below(cls, root: Path) -> VisitorFolder:
        """A new one that goes with its object."""
        return cls(root / f'{_VISITOR}{secrets.token_hex(8)}')

    @classmethod
    def kept(cls, root: Path, name: str) -> VisitorFolder:
        """One that stays, of a name that says nothing of the visitor."""
        return cls(root / f'{_VISITOR}{name}', stays=True)

    def remove(self) -> None:
        """Remove the folder."""
        self._remove()

    def new(self, suffix: str) -> Path:
        """A path for a file of the folder: a number that was not there, and an ending."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._number += 1
        return self.path / f'{self._number:05d}{suffix}'

    def keep(self, path: Path) -> Path:
        """Copy an upload into the folder; there its name is a number and its ending."""
        kept = self.new(Path(clean_name(path.name)).suffix.lower())
        with atomic(kept, flush=self.stays) as part:
            shutil.copyfile(path, part)
        return kept

    def remove_others(self, names: set[str]) -> None:
        """Remove all files of :meth:`new`, and what lies beside them, but those of these names."""
        for file in self.path.glob('[0-9]' * 5 + '*'):
            if file.name not in names:
                file.unlink(missing_ok=True)
