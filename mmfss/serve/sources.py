"""Where the photos of a labelling program are: files of folders that are served, the program's own
server, hosts that are named on the command line. Nothing else is read or asked."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from mmfss.webui.limits import Limits
from mmfss.webui.uploads import clean_name, read_upload

LOCAL_FILES = '/data/local-files/'
CONNECT_S, READ_S = 5.0, 60.0


@dataclass(frozen=True)
class Photo:
    """A photo as it came: its bytes, or its file, and its name."""

    data: bytes | Path
    name: str

    def pixels(self, limits: Limits) -> np.ndarray:
        """Check and decode it: uint8 (H, W, 3) BGR, upright.

        Raises:
            ValueError: See :func:`mmfss.webui.uploads.read_upload`.
        """
        if isinstance(self.data, Path):
            return read_upload(self.data, self.name, limits)
        with tempfile.NamedTemporaryFile(suffix=Path(self.name).suffix) as file:
            file.write(self.data)
            file.flush()
            return read_upload(file.name, self.name, limits)


def from_data_uri(text: Any, limits: Limits, name: str = 'the image') -> Photo:
    """A photo in ``data:image/...;base64,...``.

    Raises:
        ValueError: It is none, or too large.
    """
    head, comma, code = text.partition(',') if isinstance(text, str) else ('', '', '')
    if not (comma and head.startswith('data:image/') and head.endswith(';base64')):
        raise ValueError(f'{name} must be a text data:image/...;base64,..., got {str(text)[:40]!r}')
    if len(code) > limits.max_upload_bytes * 4 / 3 + 4:
        raise ValueError(f'{name} has more than {limits.max_upload_mb} MB; make it smaller')
    try:
        data = base64.b64decode(code, validate=True)
    except binascii.Error as error:
        raise ValueError(f'{name} is no base64 ({error})') from error
    return Photo(data, name)


def inside(folder: Path, path: str) -> Path:
    """A file in a folder or below.

    Raises:
        PermissionError: The path, or where its links lead, is outside.
        FileNotFoundError: There is no such file.
    """
    root = folder.resolve()
    try:
        found = (root / path.lstrip('/\\')).resolve()
    except (OSError, ValueError) as error:  # a loop of links, a zero byte
        raise PermissionError(f'{path!r:.200} cannot be read ({error})') from error
    if not found.is_relative_to(root):
        raise PermissionError(f'{path!r:.200} is outside the folder that is served')
    if not found.is_file():
        raise FileNotFoundError(f'there is no file {path!r:.200} in the folder that is served')
    return found


@dataclass
class LabelStudioPhotos:
    """Photos of the tasks of a Label Studio.

    Args:
        url: of that Label Studio.
        local_files: its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, if photos are to be read from the
            disk; None asks Label Studio for them.
        token: of its API, a personal access token or a legacy one; None takes the one that Label
            Studio sends with each project.
        hosts: further ones that photos may be fetched from, without token.
        limits: of photos.
    """

    url: str
    local_files: Path | None
    token: str | None
    hosts: Sequence[str]
    limits: Limits
    _access: dict[str, str] = field(default_factory=dict)

    def get(self, value: Any, access_token: str | None) -> Photo:
        """The photo that a task names.

        Args:
            value: of the task's data.
            access_token: that came with the project.

        Raises:
            FileNotFoundError: It is gone.
            PermissionError: It is where nothing is read, or Label Studio refuses it.
            ValueError: No address of a photo.
            ConnectionError: The server does not answer.
        """
        if not isinstance(value, str) or not value:
            raise ValueError(f'the task has no address of an image, but {value!r:.80}')
        if value.startswith('data:'):
            return from_data_uri(value, self.limits)
        address = urlsplit(value)
        if address.path == LOCAL_FILES and not address.netloc and self.local_files is not None:
            path = parse_qs(address.query).get('d', [''])[0]
            return Photo(inside(self.local_files, path), clean_name(path))
        asked = parse_qs(address.query).get('d', [address.path])[0]
        name = clean_name(asked)
        own = urlsplit(self.url)
        if value.startswith('/') and not value.startswith('//'):
            return Photo(self.own(value, access_token), name)
        if address.scheme in ('http', 'https') and address.netloc == own.netloc:
            rest = address.path + (f'?{address.query}' if address.query else '')
            return Photo(self.own(rest, access_token), name)
        if address.scheme in ('http', 'https') and address.hostname in self.hosts:
            return Photo(fetch(value, {}, self.limits.max_upload_bytes), name)
        raise PermissionError(
            f'{value!r:.200} is not fetched: photos come from {self.url} (--label-studio), from '
            '--local-files, and from hosts that are named with --image-host'
        )

    def own(self, path: str, access_token: str | None, max_bytes: int | None = None) -> bytes:
        """What Label Studio has at a path of its own.

        Args:
            path: with its query.
            access_token: that came with the project.
            max_bytes: default: those of a photo.

        Raises:
            PermissionError: A token that it does not take.
            FileNotFoundError, ValueError, ConnectionError: See :func:`fetch`.
        """
        url, token = self.url.rstrip('/') + path, self.token or access_token
        most = self.limits.max_upload_bytes if max_bytes is None else max_bytes
        try:
            return fetch(url, self._headers(token), most)
        except PermissionError:
            if self._access.pop(token or '', None) is None:
                raise
            return fetch(url, self._headers(token), most)  # access had run out

    def _headers(self, token: str | None) -> dict[str, str]:
        """That tell Label Studio who asks."""
        if token is None:
            return {}
        if token.count('.') != 2:
            return {'Authorization': f'Token {token}'}
        if token not in self._access:  # a personal access token, which gives a short-lived one
            import httpx

            url = f'{self.url.rstrip("/")}/api/token/refresh'
            try:
                answer = httpx.post(url, json=dict(refresh=token), timeout=CONNECT_S)
            except httpx.HTTPError as error:
                raise ConnectionError(f'{url} does not answer ({error})') from error
            if answer.status_code != 200:
                raise PermissionError(f'{url} does not take the token ({answer.status_code})')
            self._access[token] = str(answer.json()['access'])
        return {'Authorization': f'Bearer {self._access[token]}'}


def fetch(url: str, headers: dict[str, str], max_bytes: int) -> bytes:
    """What is at an address, at most so many bytes; redirections are not followed.

    Raises:
        FileNotFoundError, PermissionError, ValueError, ConnectionError: There is nothing, it is
            refused, it is larger, the server does not answer.
    """
    import httpx

    timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
    try:
        with httpx.stream('GET', url, headers=headers, timeout=timeout) as answer:
            if answer.status_code in (401, 403):
                raise PermissionError(
                    f'{url} is refused ({answer.status_code}): set LABEL_STUDIO_API_KEY to a token '
                    'of somebody who may see the project, and start the service again'
                )
            if answer.status_code == 404:
                raise FileNotFoundError(f'there is nothing at {url} any more')
            if answer.status_code != 200:
                raise ConnectionError(f'{url} answers with status {answer.status_code}')
            parts, size = [], 0
            for part in answer.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > max_bytes:
                    raise ValueError(f'{url} has more than {max_bytes / 2**20:.0f} MB')
            return b''.join(parts)
    except httpx.HTTPError as error:
        raise ConnectionError(f'{url} does not answer ({error})') from error
