"""Who is at the page: a session for each visitor, few in memory, those that stay on disk."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import threading
from collections import OrderedDict
from pathlib import Path

from mmfss.webui.folders import VisitorFolder, clear_stale
from mmfss.webui.keeping import BROKEN, read_record, take_up
from mmfss.webui.limits import Limits
from mmfss.webui.memory import MAX_BYTES, MAX_IN_MEMORY, MAX_SESSIONS, give_back
from mmfss.webui.session import Session
from mmfss.webui.worker import Models


class Visitors:
    """The sessions of a page, by the names that :class:`mmfss.webui.guard.Guard` gives to visitors.

    Args:
        models: to pick from.
        limits: of each visitor.
        root: for the files of sessions that go with the page.
        kept: folder of sessions that stay, of :func:`mmfss.webui.folders.kept_folder`; None for
            none.
        most_bytes: that all sessions in memory hold together. Beyond that, and beyond a number of
            them, those idle longest go; one who is at work never, however much it holds.
    """

    def __init__(
        self,
        models: Models,
        limits: Limits,
        root: Path,
        kept: Path | None = None,
        most_bytes: int = MAX_BYTES,
    ) -> None:
        self.models, self.limits, self.root, self.kept = models, limits, root, kept
        self.most_bytes = most_bytes
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._bytes: dict[str, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, visitor: str) -> Session | None:
        """The session of a visitor, None where there is none any more."""
        with self._lock:
            if visitor not in self._sessions:
                folder = self._kept_folder(visitor)
                if folder is None:
                    return None
                self._add(visitor, folder)  # of one who has done nothing yet, an empty one
            self._sessions.move_to_end(visitor)
            return self._sessions[visitor]

    def start(self, visitor: str) -> tuple[Session, list[str]]:
        """The session of a visitor, a new one where there is none.

        Returns:
            It, and what of an earlier one could not be taken up.
        """
        found = self.find(visitor)
        if found is None:
            with self._lock:
                folder = self._kept_folder(visitor) or VisitorFolder.below(self.root)
                found = self._add(visitor, folder)
        notes, found.notes = found.notes, []
        return found, notes

    def forget(self, visitor: str) -> None:
        """Remove the session of a visitor and all its files.

        Raises:
            ValueError: A step of it is still running.
        """
        with self._lock:
            session = self._sessions.get(visitor)
            if session is not None:
                with session.step():
                    self._let_go(visitor)
                session.close()
            elif folder := self._kept_folder(visitor):
                folder.remove()

    def exports(self, session: Session) -> Path:
        """Where the files are made that a visitor takes away; it goes with the page."""
        return self.root / 'exports' / session.folder.path.name

    def _kept_folder(self, visitor: str) -> VisitorFolder | None:
        if self.kept is None:
            return None
        # not the visitor's name itself: paths are seen in more places than cookies
        name = hashlib.sha256(visitor.encode()).hexdigest()[:32]
        return VisitorFolder.kept(self.kept, name)

    def _add(self, visitor: str, folder: VisitorFolder) -> Session:
        session = self._taken_up(folder) if folder.stays else None
        session = session or Session(self.models.get(self.models.first), self.limits, folder)
        self._sessions[visitor] = session
        self._bound(visitor)
        if self.kept is not None:
            clear_stale(self.kept)
        return session

    def nbytes(self) -> int:
        """Bytes that all sessions hold, each as after its last step."""
        return sum(self._bytes.values())

    def seen(self, visitor: str) -> None:
        """Note that a step of a visitor has ended."""
        with self._lock:
            if visitor in self._sessions:
                self._sessions.move_to_end(visitor)
                self._bound(visitor)
        give_back()

    def _bound(self, visitor: str) -> None:
        """Let sessions go until the others are few and small enough; never this one."""
        self._bytes[visitor] = self._sessions[visitor].nbytes()
        most = MAX_SESSIONS if self.kept is None else MAX_IN_MEMORY
        for name in [*self._sessions]:
            if len(self._sessions) <= most and self.nbytes() <= self.most_bytes:
                return
            if name != visitor and not self._sessions[name].busy:
                self._let_go(name)

    def _let_go(self, name: str) -> Session:
        session = self._sessions.pop(name)
        self._bytes.pop(name, None)
        shutil.rmtree(self.exports(session), ignore_errors=True)
        if not session.folder.stays:
            session.close()
        return session

    def _taken_up(self, folder: VisitorFolder) -> Session | None:
        """The session that was kept in a folder, None where there is none."""
        try:
            known = read_record(folder.path)
            method = known['model']['method']
            worker = self.models.get(method if method in self.models.names else self.models.first)
            session = Session(worker, self.limits, folder)
            take_up(session, known)
        except FileNotFoundError:
            return None
        except BROKEN as error:  # is put aside, for a person to look at, until it is stale
            aside = folder.path.with_name(f'{folder.path.name}.{secrets.token_hex(4)}')
            folder.path.rename(aside)
            session = Session(self.models.get(self.models.first), self.limits, folder)
            session.notes = [f'{error}: it is begun anew']
        return session
