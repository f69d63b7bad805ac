"""The account of what was left out of a user's data, by reason: one for all tools.

A reader adds what it leaves out, or reads otherwise than its file says, where it does so; parts of
several processes are merged; at the end there is a table for people and a CSV beside the output,
which training and testing read again when a class turns out to be scarce.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmfss.files import read_csv, write_csv
from mmfss.words import listed

FILE = 'left_out.csv'
"""Name of the CSV in an output folder."""
_COLUMNS = ('reason', 'left_out', 'class', 'what', 'file', 'remedy')
_TABLE_LINES = 10
_CLASSES, _EXAMPLES = 4, 2  # that a line of the table names
_WIDTHS = dict(reason=90, classes=40, examples=60)


@dataclass(frozen=True)
class Reason:
    """Why something was left out.

    Args:
        text: What is wrong and what became of it, e.g. 'box without an outline, left out'.
        remedy: What to do about it.
        lost: False where nothing is missing: it was only read in a way that has to be said.
    """

    text: str
    remedy: str = ''
    lost: bool = True


@dataclass(frozen=True)
class Row:
    """One thing that was left out.

    Args:
        class_name: Its class; '' where it is of none.
        what: What it is in its file, e.g. 'annotation 12'; '' for the file itself.
        file: Where it is.
    """

    class_name: str = ''
    what: str = ''
    file: str = ''


class Account:
    """What was left out, by reason. Plain and picklable, so that processes can return parts."""

    def __init__(self) -> None:
        self.rows: dict[Reason, list[Row]] = {}

    def add(
        self, reason: Reason, class_name: str = '', what: str = '', file: str | os.PathLike = ''
    ) -> None:
        """Note one thing; see :class:`Row`."""
        self.rows.setdefault(reason, []).append(Row(class_name, what, os.fspath(file)))

    def merge(self, other: Account) -> None:
        """Add all of another account behind what is here."""
        for reason, rows in other.rows.items():
            self.rows.setdefault(reason, []).extend(rows)

    def of(self, classes: Collection[str]) -> Account:
        """What was lost of some classes, and things of no class."""
        part, names = Account(), {'', *classes}
        for reason, rows in self.rows.items():
            some = [row for row in rows if row.class_name in names]
            if some and reason.lost:
                part.rows[reason] = some
        return part

    def count(self, reason: Reason | None = None) -> int:
        """Things noted, of one reason or of all."""
        found = self.rows.values() if reason is None else [self.rows.get(reason, [])]
        return sum(map(len, found))

    def __bool__(self) -> bool:
        return bool(self.rows)

    def table(self) -> list[str]:
        """At most ten lines: reasons from the most frequent on, with number, classes and the first
        of them; [] where there is nothing to say. What has no room is in the CSV."""
        ordered = sorted(self.rows.items(), key=lambda item: -len(item[1]))
        room = _TABLE_LINES - 1
        shown = ordered if len(ordered) <= room else ordered[: room - 1]
        cells = [('number', 'reason', 'classes', 'first of them')]
        cells += [_cells(reason, rows) for reason, rows in shown]
        if not ordered:
            return []
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = [
            f'{number:>{widths[0]}}  {reason:{widths[1]}}  {classes:{widths[2]}}  {first}'.rstrip()
            for number, reason, classes, first in cells
        ]
        rest = ordered[len(shown) :]
        if rest:
            number = sum(len(rows) for _, rows in rest)
            lines.append(f'{number:>{widths[0]}}  for {len(rest)} other reasons')
        return lines

    def because(self) -> str:
        """The same as a sentence for an error, with the remedies; '' where nothing is lost."""
        lost = {reason: rows for reason, rows in self.rows.items() if reason.lost}
        parts = []
        for reason, rows in sorted(lost.items(), key=lambda item: -len(item[1]))[:5]:
            number, text, classes, first = _cells(reason, rows)
            of = f' ({classes})' if classes else ''
            remedy = f' -> {reason.remedy}' if reason.remedy else ''
            parts.append(f'{number} x {text}{of}: {first}{remedy}')
        return '; '.join(parts)

    def write(self, folder: str | os.PathLike) -> Path | None:
        """Write FOLDER/left_out.csv, a line for each thing; with nothing to say, remove it.

        Returns:
            The file, None where there is none.

        Raises:
            OSError: It cannot be written.
        """
        path = Path(folder) / FILE
        if not self:
            path.unlink(missing_ok=True)
            return None
        rows = (
            [
                reason.text,
                'yes' if reason.lost else 'no',
                row.class_name,
                row.what,
                row.file,
                reason.remedy,
            ]
            for reason, row in self
        )
        write_csv(path, _COLUMNS, rows)
        return path

    @classmethod
    def read(cls, folder: str | os.PathLike) -> Account:
        """The account that :meth:`write` left in a folder, empty where there is none.

        Raises:
            ValueError: The file is of another form.
        """
        path, account = Path(folder) / FILE, cls()
        if not path.is_file():
            return account
        head, *lines = read_csv(path) or [[]]
        if tuple(head) != _COLUMNS or any(len(line) != len(_COLUMNS) for line in lines):
            raise ValueError(
                f'{path} must have the columns {",".join(_COLUMNS)}; remove it, or prepare again'
            )
        for reason, lost, class_name, what, named, remedy in lines:
            account.add(Reason(reason, remedy, lost == 'yes'), class_name, what, named)
        return account

    def __iter__(self) -> Iterator[tuple[Reason, Row]]:
        return ((reason, row) for reason, rows in self.rows.items() for row in rows)


def _cells(reason: Reason, rows: list[Row]) -> tuple[str, str, str, str]:
    """Number, reason, classes and first of them, each on one line."""
    classes = Counter(row.class_name for row in rows if row.class_name)
    names = [f'{name} {number}' for name, number in classes.most_common()]
    places = [' in '.join(filter(None, (row.what, row.file))) for row in rows]
    if len(', '.join(places[:_EXAMPLES])) > _WIDTHS['examples']:
        places = places[:1]
    shown = _CLASSES
    while shown > 1 and len(listed(names, shown)) > _WIDTHS['classes']:
        shown -= 1
    texts = dict(
        reason=reason.text, classes=listed(names, shown), examples=', '.join(places[:_EXAMPLES])
    )
    cut = [_cut(text, _WIDTHS[name]) for name, text in texts.items()]
    return str(len(rows)), cut[0], cut[1], cut[2]


def _cut(text: str, width: int) -> str:
    """On one line, with nothing that moves a terminal's cursor; its middle left out if too long."""
    plain = ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    half = (width - 3) // 2
    return plain if len(plain) <= width else f'{plain[:half]}...{plain[-half:]}'
