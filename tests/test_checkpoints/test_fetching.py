"""Fetching weights from a server that resumes, drops connections, lies, or is not there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import re
import resource
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from mmfss.checkpoints import fetching
from mmfss.checkpoints.fetching import fetch
from mmfss.checkpoints.official import Official


@dataclass
class Served:
    """What the server does.

    Attributes:
        content: of the file.
        drop: bytes after which each connection ends, one for each; none: never.
        ranges: whether it can go on in the middle.
        length: what it states instead of the length.
        etag: of this version.
        status: of the answer, with no content where it is an error.
        kind: stated type of the content.
        asked: the Range of each request.
    """

    content: bytes
    drop: list[int] = field(default_factory=list)
    ranges: bool = True
    length: int | None = None
    etag: str | None = '"1"'
    status: int = 200
    asked: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        served = self.server.served
        wanted = self.headers.get('Range')
        served.asked.append(wanted)
        if served.status >= 400:
            self.send_error(served.status)
            return
        start, total = 0, len(served.content) if served.length is None else served.length
        if wanted and served.ranges and self.headers.get('If-Range', served.etag) == served.etag:
            start = int(re.fullmatch(r'bytes=(\d+)-', wanted)[1])
            if start >= total:
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{total}')
                self.end_headers()
                return
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {start}-{total - 1}/{total}')
        else:
            self.send_response(200)
        self.send_header('Content-Length', str(total - start))
        if served.etag:
            self.send_header('ETag', served.etag)
        self.end_headers()
        body = served.content[start:]
        if served.drop:
            body = body[: served.drop.pop(0)]
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of weights, not made yet."""
    monkeypatch.setenv('MMFSS_WEIGHTS', str(tmp_path / 'new/weights'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr(fetching, 'PAUSE', 0)
    monkeypatch.setattr(fetching, 'BLOCK', 1000)
    return tmp_path / 'new/weights'


@pytest.fixture
def content(tmp_path):
    torch.save({'w': torch.arange(5000.0)}, tmp_path / 'x.pth')
    return (tmp_path / 'x.pth').read_bytes()


@pytest.fixture
def serve(content):
    """Starts the server with a behaviour; gives it and the weights that it has."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()

    def start(**behaviour) -> tuple[Served, Official]:
        server.served = Served(**{'content': content, **behaviour})
        url = f'http://127.0.0.1:{server.server_port}/dino.pth'
        one = Official('dinov2', 'base', 'dino.pth', len(content), url, 'https://page')
        return server.served, one

    yield start
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once_and_its_digest_kept(serve, folder, content, capsys):
    served, one = serve()
    said = []
    path = fetch(one, said.append)
    assert path == folder / 'dino.pth' and path.read_bytes() == content
    assert sorted(p.name for p in folder.iterdir()) == ['dino.pth', 'dino.pth.sha256']
    kept = (folder / 'dino.pth.sha256').read_text()
    assert kept == f'{hashlib.sha256(content).hexdigest()}  dino.pth\n'
    assert said[-1].endswith(
        'authors publish no checksum, so dino.pth.sha256 keeps this one for later'
    )
    assert 'dinov2_base: 100%' in capsys.readouterr().err
    assert fetch(one, said.append) == path and served.asked == [None]
    assert 'is there; its checksum is as ' in said[-1] and 'from an earlier fetch' in said[-1]


@pytest.mark.parametrize('etag', ['"1"', None, 'W/"1"'])
def test_a_dropped_connection_goes_on_where_it_ended(serve, folder, content, etag):
    served, one = serve(drop=[7000, 5000, 1], etag=etag)
    assert fetch(one, str, progress=False).read_bytes() == content
    assert served.asked == [None, 'bytes=7000-', 'bytes=12000-', 'bytes=12001-']


def test_a_part_of_an_earlier_command_is_gone_on_with(serve, folder, content):
    served, one = serve(drop=[7000] + [0] * 5)
    with pytest.raises(ConnectionError) as caught:
        fetch(one, str, progress=False)
    assert (
        'the connection ended early. The 7000 bytes that came are kept, and the command goes '
        in (str(caught.value))
    )
    assert (folder / 'dino.pth.part').stat().st_size == 7000 and len(served.asked) == 6
    served, one = serve()
    said = []
    assert fetch(one, said.append, progress=False).read_bytes() == content
    assert served.asked == ['bytes=7000-'] and said[0].startswith('dinov2_base: goes on http://127')


def test_a_server_that_cannot_go_on_or_has_another_version_sends_all(serve, folder, content):
    for behaviour in (dict(ranges=False), dict(etag='"2"')):
        served, one = serve(drop=[7000] + [0] * 5)
        with pytest.raises(ConnectionError):
            fetch(one, str, progress=False)
        served, one = serve(**behaviour)
        path = fetch(one, str, progress=False)
        assert path.read_bytes() == content and served.asked == ['bytes=7000-']
        path.unlink()


def test_a_part_that_is_whole_or_too_long(serve, folder, content):
    folder.mkdir(parents=True)
    for part, asked in ((content, 1), (content + b'more', 2)):
        (folder / 'dino.pth.part').write_bytes(part)
        served, one = serve()
        path = fetch(one, str, progress=False)
        assert path.read_bytes() == content and len(served.asked) == asked
        path.unlink()


def test_a_connection_that_always_drops_at_once(serve, folder):
    served, one = serve(drop=[0] * 9)
    with pytest.raises(
        ConnectionError, match=r'ended early\. Run `mmfss weights fetch dinov2_base`'
    ):
        fetch(one, str, progress=False)
    assert len(served.asked) == fetching.ATTEMPTS and not list(folder.iterdir())


def test_no_network(serve, folder):
    _, one = serve()
    one = replace(one, url='http://127.0.0.1:9/dino.pth')
    with pytest.raises(ConnectionError) as caught:
        fetch(one, str)
    assert re.search(
        rf'cannot be fetched: .*refused.* without a network, put into {folder} what is at http://127',
        str(caught.value),
    )
    assert not list(folder.iterdir())


@pytest.mark.parametrize('status, said', [(404, 'HTTP Error 404: Not Found'), (403, 'Error 403')])
def test_what_the_server_refuses(serve, folder, status, said):
    served, one = serve(status=status)
    with pytest.raises(ConnectionError, match=said):
        fetch(one, str)
    assert len(served.asked) == 1


# ---------------------------------------------------------------------------- what is not the file
def test_a_page_in_its_place(serve, folder):
    served, one = serve(content=b'<html>Sign in to the network</html>')
    with pytest.raises(
        ValueError, match=rf'offers 35 bytes, and dinov2_base has {one.bytes}: some'
    ):
        fetch(one, str)
    with pytest.raises(
        ValueError, match='is a web page that was saved under this name. It was rem'
    ):
        fetch(replace(one, bytes=None), str)
    assert not list(folder.glob('*.p*'))


def test_a_page_leaves_the_part_that_came_before(serve, folder):
    folder.mkdir(parents=True)
    (folder / 'dino.pth.part').write_bytes(b'PK' + bytes(98))
    _, one = serve(content=b'<html>Sign in</html>', ranges=False)
    with pytest.raises(ValueError, match='offers 20 bytes'):
        fetch(one, str)
    assert (folder / 'dino.pth.part').stat().st_size == 100


def test_a_server_that_states_too_little_or_too_much(serve, folder, content):
    _, one = serve(length=9000)
    with pytest.raises(ValueError, match='is not dinov2_base: it is cut off: its end is missing'):
        fetch(replace(one, bytes=None), str, progress=False)
    _, one = serve(length=len(content) + 10)
    with pytest.raises(
        ConnectionError, match=rf'early. The {len(content)} bytes that came are kept'
    ):
        fetch(replace(one, bytes=None), str, progress=False)


@pytest.mark.parametrize('kind', ['md5', 'sha256'])
def test_the_checksum_that_the_name_states(serve, folder, content, kind):
    _, one = serve()
    right = hashlib.new(kind, content).hexdigest()[:8]
    with pytest.raises(
        ValueError, match=rf'has the {kind.upper()} {right}\.\.\., not 01234567 as '
    ):
        fetch(replace(one, digest=(kind, '01234567')), str, progress=False)
    assert not (folder / 'dino.pth').exists() and not list(folder.glob('*.part'))
    said = []
    fetch(replace(one, digest=(kind, right)), said.append, progress=False)
    assert said[-1].endswith('its checksum is as its name states')


def test_a_digest_of_an_earlier_fetch(serve, folder, content, tmp_path):
    _, one = serve()
    path = fetch(one, str, progress=False)
    path.unlink()
    torch.save({'w': torch.arange(5000.0) + 1}, tmp_path / 'x.pth')
    _, one = serve(content=(tmp_path / 'x.pth').read_bytes())
    with pytest.raises(
        ValueError, match=r'not [0-9a-f]{64} as .*dino.pth.sha256 keeps it from an ea'
    ):
        fetch(one, str, progress=False)


@pytest.mark.parametrize('damage', ['cut', 'changed', 'page'])
def test_a_file_that_is_not_whole_is_fetched_anew(serve, folder, content, damage):
    folder.mkdir(parents=True)
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 255])
    (folder / 'dino.pth').write_bytes(
        dict(
            cut=content[:900],
            changed=content[:middle] + flipped + content[middle + 1 :],
            page=b'<html></html>',
        )[damage]
    )
    said = []
    _, one = serve()
    assert fetch(one, said.append, progress=False).read_bytes() == content
    reason = dict(
        cut=f'is cut off: its end is missing (900 of {len(content)} bytes)',
        changed='is damaged (',
        page='is a web page that was saved under this name (13 of',
    )
    assert reason[damage] in said[0] and said[0].endswith(', and is fetched anew')


def test_a_damaged_file_stays_until_another_is_whole(serve, folder, content):
    folder.mkdir(parents=True)
    (folder / 'dino.pth').write_bytes(content[:900])
    _, one = serve(drop=[7000] + [0] * 5)
    with pytest.raises(ConnectionError):
        fetch(one, str, progress=False)
    assert (folder / 'dino.pth').read_bytes() == content[:900]


# ------------------------------------------------------------------------------------ the folder
def test_a_folder_that_cannot_be_written_to(serve, folder, monkeypatch):
    folder.parent.mkdir()
    folder.write_text('a file')
    _, one = serve()
    with pytest.raises(OSError, match=r'cannot be written to; set MMFSS_WEIGHTS to one that can'):
        fetch(one, str)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, 'Read-only file system')

    folder.unlink()
    folder.mkdir()
    monkeypatch.setattr(fetching, 'open', refuse, raising=False)
    with pytest.raises(OSError, match=r'Read-only file system: the folder of weights cannot be wr'):
        fetch(one, str)


def test_a_file_in_a_folder_that_is_read_alone_is_taken(serve, folder, content, monkeypatch):
    _, one = serve()
    folder.mkdir(parents=True)
    (folder / 'dino.pth').write_bytes(content)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, 'Read-only file system')

    monkeypatch.setattr(fetching, 'atomic', refuse)
    assert fetch(one, str) == folder / 'dino.pth'


def test_a_disk_that_gets_full(serve, folder, content):
    _, one = serve()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # as a full disk does
    try:
        with pytest.raises(
            OSError, match='free some space, or set MMFSS_WEIGHTS .* what came is kept'
        ):
            fetch(one, str, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 0 < (folder / 'dino.pth.part').stat().st_size <= 5000
    assert fetch(one, str, progress=False).read_bytes() == content


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(serve, folder, monkeypatch):
    _, one = serve()
    monkeypatch.setattr(fetching.shutil, 'disk_usage', lambda path: type('U', (), dict(free=9)))
    with pytest.raises(OSError, match=rf'{one.bytes} bytes are to come and 9 are free: free some'):
        fetch(one, str)
    assert not list(folder.iterdir())


def test_two_processes(serve, folder):
    _, one = serve()
    folder.mkdir(parents=True)
    with open(folder / 'dino.pth.part', 'wb') as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match='another process fetches dinov2_base to .*part; wait'):
            fetch(one, str)


def test_gated_weights(folder):
    one = Official('dinov3', 'large', 'v3.pth', None, '', 'https://ask', digest=('sha256', '0123'))
    with pytest.raises(ValueError, match=r'dinov3_large is gated: ask for it at https://ask and p'):
        fetch(one, str)
    folder.mkdir(parents=True)
    torch.save({'w': torch.ones(1)}, folder / 'v3.pth')
    with pytest.raises(ValueError, match='dinov3_large is gated'):  # and has another checksum
        fetch(one, str)
