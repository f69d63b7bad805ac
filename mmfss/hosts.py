"""Under which names a server of ours answers, and which pages may ask it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

LOOPBACKS = ('127.0.0.1', 'localhost', '::1')
_ANYWHERE = ('0.0.0.0', '::')  # all addresses of this machine


class HostNames:
    """The names that a server answers to.

    A browser sends ``Host``, the name it asked for, and ``Origin``, the page that asks: a foreign
    page that reaches the server (by a name of its own that points to this machine, or by a form or
    script) gives itself away by one of them. Programs that are no browser send no ``Origin``.

    Args:
        hosts: names and numbers that are answered to.
        numbers: whether all other numbers are, too: no foreign page has a number of this machine.
        outer: further names, those of servers before this one, which may change ``Host``.
        what: what messages call the server.
    """

    def __init__(
        self, hosts: Iterable[str], numbers: bool, outer: Iterable[str], what: str = 'page'
    ) -> None:
        self.outer = {name.casefold() for name in outer}
        self.hosts = {name.casefold() for name in hosts} | self.outer
        self.numbers, self.what = numbers, what

    @classmethod
    def of(cls, host: str, outer: Sequence[str], what: str = 'page') -> HostNames:
        """Of a server that listens on an address."""
        everywhere = host in _ANYWHERE
        own = (socket.gethostname(), socket.getfqdn()) if everywhere else ()
        return cls((host, *LOOPBACKS, *own), everywhere, outer, what)

    def refusal(self, host: str, origin: str | None) -> str | None:
        """Why a request with these headers is refused, or None."""
        name = _hostname(f'//{host}')
        if name is None or not (name in self.hosts or (self.numbers and _is_number(name))):
            return (
                f'This {self.what} does not answer to the name {host[:100]!r}. Open it under the '
                'address that its start printed, or start it with --allowed-host and that name'
            )
        if origin is None or origin.casefold().partition('://')[2] == host.casefold():
            return None
        if _hostname(origin) in self.outer:  # a server before this one may have changed Host
            return None
        return f'Requests from {origin[:100]!r} are refused: it is not this {self.what}'


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
