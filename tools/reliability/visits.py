"""Visits of the page: a visitor comes, marks, labels, takes the files and leaves; what the page's
process holds after each."""

from __future__ import annotations

import http.client
import io
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image


def resident(pid: int | str = 'self') -> float:
    """Resident memory of a process in MB (2^20 bytes)."""
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGESIZE') / 2**20


def photo(seed: int, width: int = 320, height: int = 240) -> bytes:
    """A JPEG of large squares of random colours."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.kron(small, np.ones((16, 16, 1), np.uint8))).save(file, 'JPEG')
    return file.getvalue()


class Visitor:
    """A browser with a cookie and a session of its own, as far as the page's events go.

    Args:
        url: of the page.
        origin: what it says that it is a page of; None says nothing, as programs.
        host: what it says that it asked for; None is the page itself.
    """

    def __init__(self, url: str, origin: str | None = None, host: str | None = None) -> None:
        place = urlsplit(url)
        self._connection = http.client.HTTPConnection(place.hostname or '', place.port, timeout=120)
        self._headers = {'Origin': origin} if origin else {}
        if host is not None:
            self._headers['Host'] = host
        self._session = secrets.token_hex(8)
        status, headers, _ = self.ask('GET', '/')
        self.status = status
        cookie = headers.get('set-cookie', '')
        self._headers['Cookie'] = cookie.partition(';')[0]

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = 'application/json'
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of an answer."""
        headers = self._headers | ({'Content-Type': kind} if body is not None else {})
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError):  # it was idle for too long
            self._connection.close()
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
        content = answer.read()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, content

    def upload(self, name: str, data: bytes) -> dict[str, Any]:
        """Send a file; what events name it by."""
        end = secrets.token_hex(8)
        head = f'--{end}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + f'\r\n--{end}--\r\n'.encode()
        kind = f'multipart/form-data; boundary={end}'
        status, _, content = self.ask('POST', '/gradio_api/upload', body, kind)
        if status != 200:
            raise ConnectionError(f'upload: {status} {content[:200]!r}')
        (path,) = json.loads(content)
        return dict(path=path, orig_name=name, meta={'_type': 'gradio.FileData'})

    def step(self, name: str, *data: Any) -> Any:
        """Run an event of the page; what it gives."""
        text = json.dumps(dict(data=data, session_hash=self._session)).encode()
        status, _, content = self.ask('POST', f'/gradio_api/call/{name}', text)
        if status != 200:
            raise ConnectionError(f'{name}: {status} {content[:200]!r}')
        event = json.loads(content)['event_id']
        _, _, stream = self.ask('GET', f'/gradio_api/call/{name}/{event}')
        said = stream.decode().rpartition('event: ')[2]
        if not said.startswith('complete'):
            raise ConnectionError(f'{name}: {said[:300]}')
        return json.loads(said.partition('data: ')[2])

    def visit(self, support: bytes, photos: list[bytes]) -> int:
        """All that a visitor does; the number of files that may be taken away."""
        self.step('start')
        self.step('add_photos', [self.upload('support.safetensors', support)])
        files = [self.upload(f'{i}.jpg', data) for i, data in enumerate(photos)]
        self.step('add_queries', files)
        self.step('label')
        _, _, files, _ = self.step('take', ['png'])  # the session itself is none of a visitor's
        return len(files['value'])

    def leave(self) -> None:
        """Close the connection."""
        self._connection.close()


def visits(url: str, pid: int, number: int, support: bytes, photos: int = 3) -> Iterator[float]:
    """Visit the page again and again; its resident memory in MB after each visit."""
    for i in range(number):
        visitor = Visitor(url)
        visitor.visit(support, [photo(10 * i + k) for k in range(photos)])
        visitor.leave()
        yield resident(pid)
