"""Who may ask the service, and how much may be sent."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmfss.hosts import HostNames
from mmfss.serve.answers import plain

OPEN = ('/health',)
"""Paths that need no token: whether the service is there."""


class ServiceGuard:
    """Refuses requests under foreign names, from foreign pages, without the token, and too large
    ones; these before they are read.

    The token comes as ``Authorization: Bearer TOKEN`` or ``Token TOKEN``, as the password of basic
    authentication whatever the user (Label Studio), or in the header ``Token`` (X-AnyLabeling).

    Args:
        app: what is guarded.
        names: that are answered to.
        token: None: everybody may ask.
        max_bytes: of a request.
    """

    def __init__(self, app: ASGIApp, names: HostNames, token: str | None, max_bytes: int) -> None:
        self.app, self.names, self.token, self.max_bytes = app, names, token, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            if scope['type'] == 'lifespan':
                await self.app(scope, receive, send)
            else:
                await send({'type': 'websocket.close', 'code': 1008})
            return
        headers = Headers(scope=scope)
        refusal = self.names.refusal(headers.get('host', ''), headers.get('origin'))
        if refusal is not None:
            await _refusal(403, refusal)(scope, receive, send)
        elif not (scope['path'] in OPEN or self._knows_token(headers)):
            text = 'Wrong or no token: give the one that the service was started with'
            asking = {'www-authenticate': 'Basic realm="mmfss serve"'}
            await _refusal(401, text, asking)(scope, receive, send)
        elif _length(headers) > self.max_bytes:
            await self._too_large()(scope, receive, send)
        else:
            await self._limited(scope, receive, send)

    def _knows_token(self, headers: Headers) -> bool:
        if self.token is None:
            return True
        kind, _, given = headers.get('authorization', '').partition(' ')
        if kind.casefold() == 'basic':
            try:
                given = base64.b64decode(given).decode().partition(':')[2]
            except ValueError:  # no base64, letters that are not of it, no UTF-8
                return False
        wanted = self.token.encode()
        asked = (given.strip(), headers.get('token', ''))
        return any(hmac.compare_digest(one.encode(), wanted) for one in asked)

    def _too_large(self) -> JSONResponse:
        most = f'{self.max_bytes / 2**20:.0f} MB'
        return _refusal(413, f'A request has at most {most}; see --max-upload-mb')

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, whose request ends with an error where it is longer than it said."""
        size, begun = 0, False

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get('body', b''))
            if size > self.max_bytes:
                raise _TooLarge
            return message

        async def told(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, counted, told)
        except _TooLarge:
            if begun:
                raise
            await self._too_large()(scope, receive, send)


class _TooLarge(Exception):
    pass


def _length(headers: Headers) -> int:
    try:
        return int(headers.get('content-length', '0'))
    except ValueError:
        return 0


def _refusal(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(plain(text), status, {'connection': 'close', **(headers or {})})
