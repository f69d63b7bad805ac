"""Who may ask the page for what: the names that it answers to, the pages that may ask it, and the
files that are a visitor's own."""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmfss.hosts import HostNames

COOKIE = 'mmfss_visitor'
VISITOR = 'mmfss.visitor'
"""In the scope of a request that came through: the name of its visitor, which is none's to make up.
"""
MAX_VISITORS = 256
"""Whose files are remembered; of others the one who asked last longest ago goes first."""
MAX_FILES = 5000
"""Of a visitor, the last ones named: what a page shows at a time is a few hundred."""
_FILE = re.compile(r'^.*?/file(?:=|/)(.*)$', re.DOTALL)
_ADDRESS = ('http://', 'https://')
_UPLOAD = 'multipart/form-data'
_TEXT = re.compile('json|event-stream')
_LONGEST = 4096  # of a path, in characters
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class Guard:
    """Refuses requests under foreign names, from foreign pages and for files of others.

    What names and pages are foreign says :class:`mmfss.hosts.HostNames`.

    A visitor is told from others by a cookie, which is signed so that nobody can make one up. Of
    files below ``roots``, a visitor may name and fetch those that answers to this visitor have
    named before: results and own uploads.

    Args:
        app: what is guarded.
        names: that are answered to.
        roots: folders of files of visitors.
        key: that cookies are signed with, see :func:`mmfss.webui.folders.signing_key`.
        days: that a browser keeps its cookie; None until it is closed.
        max_json_bytes: of a request.
    """

    def __init__(
        self,
        app: ASGIApp,
        names: HostNames,
        roots: Iterable[Path],
        key: bytes,
        days: int | None = None,
        max_json_bytes: int = 64 * 2**20,
    ) -> None:
        self.app, self.names, self.max_json_bytes = app, names, max_json_bytes
        self.roots = [os.path.realpath(root) for root in roots]
        self._key = key
        self._age = '' if days is None else f'; Max-Age={days * 24 * 3600}'
        self._kept = '' if days is None else '_kept'
        self._given: OrderedDict[str, dict[str, None]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] not in ('http', 'websocket'):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self.names.refusal(headers.get('host', ''), headers.get('origin'))
        if refusal is None and scope['type'] == 'http':
            await self._answer(scope, receive, send, headers)
        elif scope['type'] == 'http':
            await PlainTextResponse(refusal, 403)(scope, receive, send)
        else:
            await send({'type': 'websocket.close', 'code': 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        # a browser sends a host's cookies to all of its ports, so that two pages need two names
        # and a page that keeps nothing must not put its own in the place of one that leads back
        cookie = f'{COOKIE}{self._kept}_{(scope.get("server") or ("", ""))[1]}'
        visitor = self._visitor(headers.get('cookie', ''), cookie)
        new = visitor is None
        visitor = visitor or self._new_visitor()
        scope[VISITOR] = visitor.partition('.')[0]
        asked = _FILE.match(scope['path'])
        if asked and not self._may(visitor, asked[1]):
            await PlainTextResponse('There is no such file of yours', 403)(scope, receive, send)
            return
        if scope['method'] == 'POST' and not headers.get('content-type', '').startswith(_UPLOAD):
            body = await self._body(receive)
            if body is None:
                most = f'{self.max_json_bytes / 2**20:g} MB'
                await PlainTextResponse(f'A request has at most {most}', 413)(scope, receive, send)
                return
            # JSON in UTF-16 would hide what it names from us, and has a zero byte
            if b'\0' in body or not all(self._may(visitor, path) for path in self._named(body)):
                text = 'A file that is not yours was named'
                await PlainTextResponse(text, 403)(scope, receive, send)
                return
            receive = _replay(body, receive)
        asked_for = unquote(scope['path'] + scope.get('query_string', b'').decode('latin-1'))
        giving = not any(root in asked_for for root in self.roots)
        new |= bool(self._age) and scope['path'] == '/'  # whoever comes back has it for longer
        telling = self._telling(visitor, cookie if new else None, send, giving)
        await self.app(scope, receive, telling)

    def _telling(self, visitor: str, cookie: str | None, send: Send, giving: bool) -> Send:
        """``send``, which sets the cookie of a new visitor and, if ``giving``, notes what files are
        named: not in answers that may repeat what was asked."""
        text, waiting = False, b''

        async def told(message: Message) -> None:
            nonlocal text, waiting
            if message['type'] == 'http.response.start':
                headers = MutableHeaders(scope=message)
                kind = headers.get('content-type', '')
                text = giving and message['status'] == 200 and bool(_TEXT.search(kind))
                if cookie is not None:
                    value = f'{cookie}={visitor}; Path=/; HttpOnly; SameSite=Lax{self._age}'
                    headers.append('set-cookie', value)
            elif message['type'] == 'http.response.body' and text:
                waiting += message.get('body', b'')
                # events end in an empty line; what is before the last one is whole
                end = waiting.rfind(b'\n\n') + 2 if message.get('more_body') else len(waiting)
                whole, waiting = waiting[: max(end, 0)], waiting[max(end, 0) :]
                self._give(visitor, self._named(whole))
            await send(message)

        return told

    # ------------------------------------------------------------------ visitors and their files

    def _new_visitor(self) -> str:
        name = secrets.token_hex(16)
        return f'{name}.{self._sign(name)}'

    def _sign(self, name: str) -> str:
        return hmac.digest(self._key, name.encode(), 'sha256').hex()

    def _visitor(self, cookies: str, cookie: str) -> str | None:
        """The visitor of a request, None where its cookie is not one of ours."""
        try:
            found = SimpleCookie(cookies).get(cookie)
        except CookieError:
            return None
        name, _, signature = ('' if found is None else found.value).partition('.')
        known = hmac.compare_digest(signature.encode(), self._sign(name).encode())
        return f'{name}.{signature}' if known else None

    def _named(self, text: bytes) -> Iterator[str]:
        """Files below the roots in the strings of JSON, however they are spelled."""
        for literal in _STRING.findall(text.decode('utf-8', 'replace')):
            if '/' not in literal and '\\' not in literal:
                continue
            try:
                string = json.loads(literal)
            except ValueError:
                continue
            spelled = {string, *_FILE.findall(string)}
            if not string.startswith(_ADDRESS):
                yield from self._below(spelled)
                continue
            # in an address a blank is %20, unless there is a file that is really called so
            meant = {unquote(one) for one in spelled}
            yield from self._below(meant)
            yield from filter(os.path.lexists, self._below(spelled - meant))

    def _below(self, paths: Iterable[str]) -> Iterator[str]:
        """Those of paths that are below the roots."""
        for path in paths:
            inside = [root for root in self.roots if root in path]
            for root in inside:
                yield os.path.normpath(path[path.index(root) :])
            if not inside and len(path) < _LONGEST and '\0' not in path:
                real = os.path.realpath(path)
                if any(real == root or real.startswith(root + os.sep) for root in self.roots):
                    yield real

    def _give(self, visitor: str, paths: Iterable[str]) -> None:
        found = set(paths)
        if not found:
            return
        names = self._given.setdefault(visitor, {})
        for path in found:  # pictures of later steps have other names
            names.pop(path, None)
            names[path] = None
        for path in [*names][: max(0, len(names) - MAX_FILES)]:
            del names[path]
        self._given.move_to_end(visitor)
        while len(self._given) > MAX_VISITORS:
            self._given.popitem(last=False)

    def _may(self, visitor: str, path: str) -> bool:
        if visitor in self._given:
            self._given.move_to_end(visitor)
        return os.path.normpath(path) in self._given.get(visitor, ())

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole of a request, None where it is too long."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message['type'] != 'http.request':
                return b''.join(parts)
            parts.append(message.get('body', b''))
            size += len(parts[-1])
            if size > self.max_json_bytes:
                return None
            if not message.get('more_body'):
                return b''.join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """``receive`` that gives a body once more, then what comes after it."""
    first: list[Message] = [{'type': 'http.request', 'body': body, 'more_body': False}]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again
