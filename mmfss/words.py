"""Names in messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable
from itertools import islice
from typing import TypeVar

Name = TypeVar('Name', bound=Hashable)


def listed(
    names: Collection[object],
    limit: int = 20,
    separator: str = ', ',
    more: str = ' and {rest} more',
) -> str:
    """The first names, and how many others there are: ``'a, b and 3 more'``.

    Args:
        names: What is named, in its order.
        limit: How many are named at most.
        separator: What stands between them.
        more: What stands behind them where there are others; ``{rest}`` is their number,
            ``{total}`` that of all.
    """
    said = separator.join(map(str, islice(names, limit)))
    rest = len(names) - limit
    return said + more.format(rest=rest, total=len(names)) if rest > 0 else said


def repeated(names: Iterable[Name]) -> list[Name]:
    """What stands there more than once, in the order of the first time."""
    return [name for name, count in Counter(names).items() if count > 1]
