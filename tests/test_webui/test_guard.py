"""Foreign names, foreign pages, files of others: what the page refuses, over HTTP."""

from __future__ import annotations

import errno
import fcntl
import http.client
import json
import os
import shutil
import stat
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from mmfss.commands import webui as cli
from mmfss.webui.folders import clear_stale, kept_folder, page_folder, signing_key
from mmfss.webui.limits import Limits
from mmfss.webui.worker import Models

pytest.importorskip('gradio')
TEXT = b'a visitor wrote this'


@pytest.fixture(scope='module')
def serve(tiny_model, tmp_path_factory):
    """Starts pages: ``serve(*names)`` gives the port and the folder of their files."""
    from webui_steps import BoxProposer

    from mmfss.apis import FewShotInferencer
    from mmfss.webui.worker import ModelWorker

    worker = ModelWorker(FewShotInferencer(tiny_model, threshold=0.3), BoxProposer())
    pages = []

    def start(*names: str, kept: Path | None = None):
        root = tmp_path_factory.mktemp('page')
        pages.append(cli.make_page(Models(worker), Limits(), root, kept))
        address = cli.launch(pages[-1], '127.0.0.1', 0, names, block=False)
        return urlsplit(address).port, root

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('GRADIO_TEMP_DIR', '')
        patch.setenv('GRADIO_ANALYTICS_ENABLED', 'False')
        yield start
    for page in pages:
        page.blocks.close(verbose=False)
    worker.close()


@pytest.fixture(scope='module')
def port(serve):
    return serve()[0]


def ask(port, path='/', method='GET', body=None, host=None, **headers):
    """(status, text, cookie) of a request."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
    sent = {name.replace('_', '-'): value for name, value in headers.items()}
    if host is not None:
        sent['Host'] = host
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    text = answer.read().decode('utf-8', 'replace')
    cookie = (answer.getheader('set-cookie') or '').partition(';')[0]
    connection.close()
    return answer.status, text, cookie


def post(port, name, data, **headers):
    body = json.dumps(dict(data=data))
    return ask(
        port, f'/gradio_api/call/{name}', 'POST', body, Content_Type='application/json', **headers
    )


def upload(port, cookie, name='a.png'):
    """Path on the server of a file that a visitor sends."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n'
        b'Content-Type: image/png\r\n\r\n%s\r\n--x--\r\n' % (name.encode(), TEXT)
    )
    kind = 'multipart/form-data; boundary=x'
    status, text, _ = ask(
        port, '/gradio_api/upload', 'POST', body, Content_Type=kind, Cookie=cookie
    )
    assert status == 200, text
    return json.loads(text)[0]


@pytest.mark.parametrize('name', ['127.0.0.1', 'localhost', 'LOCALHOST', '[::1]'])
def test_names_of_this_machine_are_answered_to(port, name):
    assert ask(port, host=f'{name}:{port}')[0] == 200
    assert ask(port, host=name)[0] == 200  # a tunnel may listen on another port


@pytest.mark.parametrize('name', ['evil.example', '192.0.2.7', 'localhost.evil.example', '', '['])
def test_other_names_are_not(port, name):
    status, text, cookie = ask(port, host=f'{name}:{port}' if name else name)
    assert (status, cookie) == (403, '')
    assert 'does not answer to the name' in text and '--allowed-host' in text
    assert post(port, 'start', [], host=name)[0] == 403


def test_a_name_that_was_allowed(serve):
    port, _ = serve('label.example')
    assert ask(port, host='label.example')[0] == 200
    assert ask(port, host='other.example')[0] == 403
    # the server before the page may have put another Host in its place
    assert post(port, 'start', [], Origin='https://label.example')[0] == 200
    assert post(port, 'start', [], Origin='https://other.example')[0] == 403


def test_requests_of_foreign_pages_are_refused(port):
    own, name = f'127.0.0.1:{port}', 'start'
    assert post(port, name, [], Origin=f'http://{own}')[0] == 200
    assert post(port, name, [])[0] == 200  # no browser
    foreign = (
        'http://evil.example', 'null', f'http://localhost:{port}', f'http://127.0.0.1:{port + 1}',
        f'http://{own}.evil.example', '', 'http://[',
    )  # fmt: skip
    for origin in foreign:
        status, text, _ = post(port, name, [], Origin=origin)
        assert status == 403 and 'it is not this page' in text, origin
    assert ask(port, '/gradio_api/upload', 'POST', b'', Origin='http://evil.example')[0] == 403


def test_files_are_given_to_those_who_sent_them_alone(port):
    cookies = [ask(port)[2] for _ in 'ab']
    assert cookies[0] != cookies[1] and all(
        one.startswith(f'mmfss_visitor_{port}=') for one in cookies
    )
    path = upload(port, cookies[0])
    for form in ('file=', 'file/'):
        status, text, _ = ask(port, f'/gradio_api/{form}{path}', Cookie=cookies[0])
        assert status == 200 and text == TEXT.decode()
    name, signature = cookies[0].split('.')
    made_up = f'{name}.{"0" * len(signature)}'
    for cookie in (cookies[1], '', f'mmfss_visitor_{port}=x', made_up, name):
        for form in ('file=', 'file/'):
            status, text, _ = ask(port, f'/gradio_api/{form}{path}', Cookie=cookie)
            assert status == 403 and text == 'There is no such file of yours', cookie


def test_files_of_others_cannot_be_named(port):
    mine, others = (ask(port)[2] for _ in 'ab')
    path = upload(port, mine)
    data = dict(path=path, meta=dict(_type='gradio.FileData'))
    assert post(port, 'add_photos', [[data]], Cookie=mine)[0] == 200
    folder, name = os.path.split(path)
    spelled = (
        path, f'{folder}/./{name}', f'{folder}/../{os.path.basename(folder)}/{name}',
        f'/{path}', f'http://127.0.0.1:{port}/gradio_api/file={path}',
        f'/proc/self/root{path}', f'http://127.0.0.1:{port}/gradio_api/file={quote(path, "")}',
        f'https://127.0.0.1/x/../..{folder}/%61.png',
    )  # fmt: skip
    for one in spelled:
        for text in (json.dumps(one), json.dumps(one).replace('/', '\\u002f')):
            body = f'{{"data": [[{{"path": {text}}}]]}}'.encode()
            for kind in ('application/json', 'text/plain'):
                given = dict(Content_Type=kind, Cookie=others)
                status, said, _ = ask(port, '/gradio_api/call/add_photos', 'POST', body, **given)
                assert status == 403 and said == 'A file that is not yours was named', (one, kind)
    body = json.dumps(dict(data=[[data]])).encode('utf-16')
    given = dict(Content_Type='application/json', Cookie=others)
    assert ask(port, '/gradio_api/call/add_photos', 'POST', body, **given)[0] == 403
    # and asking about one does not make it one's own
    ask(port, f'/gradio_api/call/{path}', 'POST', b'{}', Cookie=others)
    ask(port, f'/gradio_api/queue/data?session_hash={path}', 'HEAD', Cookie=others)
    assert ask(port, f'/gradio_api/file={path}', Cookie=others)[0] == 403


@pytest.mark.parametrize('name', ['a b.png', 'é.png', '50% ä#.png', 'a%20b.png'])
def test_names_with_blanks_and_accents_are_names(port, name):
    """A browser sends a file's address, too, as addresses are spelled."""
    mine, others = (ask(port)[2] for _ in 'ab')
    path = upload(port, mine, name)
    assert os.path.basename(path) == name
    address = f'http://127.0.0.1:{port}/gradio_api/file={quote(path)}'
    data = dict(path=path, url=address, orig_name=name, meta=dict(_type='gradio.FileData'))
    assert post(port, 'add_photos', [[data]], Cookie=mine)[0] == 200
    assert post(port, 'add_photos', [[data]], Cookie=others)[0] == 403
    del data['path']
    assert post(port, 'add_photos', [[data]], Cookie=others)[0] == 403
    assert ask(port, f'/gradio_api/file={quote(path)}', Cookie=mine)[0] == 200
    assert ask(port, f'/gradio_api/file={quote(path)}', Cookie=others)[0] == 403


def test_a_request_has_bounds(port):
    body = b'{"data": ["' + b'x' * 65 * 2**20 + b'"]}'
    given = dict(Content_Type='application/json')
    status, text, _ = ask(port, '/gradio_api/call/start', 'POST', body, **given)
    assert status == 413 and text == 'A request has at most 64 MB'


def test_folders_of_killed_pages_are_cleared_and_no_others(tmp_path):
    with page_folder(tmp_path) as there:
        (there / 'photo').touch()
        left = tmp_path / 'mmfss_webui_left'  # as a page has it, but for its process, whose end
        shutil.copytree(there, left)  # gives up the lock
        (tmp_path / 'mmfss_webui_other').mkdir()  # without a lock: of something else
        elsewhere = tmp_path / 'kept'
        elsewhere.mkdir()
        (elsewhere / '.lock').touch()
        (tmp_path / 'mmfss_webui_link').symlink_to(elsewhere)
        with page_folder(tmp_path) as made:
            assert made.is_dir() and not left.exists()
            assert (there / 'photo').exists()
            assert (tmp_path / 'mmfss_webui_other').exists() and elsewhere.exists()
        assert not made.exists()
    assert not there.exists()


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """The page starts, and takes no folder for one that is left."""

    def none(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    with page_folder(tmp_path) as there:
        monkeypatch.setattr(fcntl, 'flock', none)
        with page_folder(tmp_path) as made:
            assert made.is_dir() and there.is_dir()
        assert not made.exists()


# ---------------------------------------------------------------------------------- what stays
def test_a_kept_visitor_is_known_after_a_restart_and_nobody_else(serve, tmp_path):
    with kept_folder(tmp_path / 'kept') as kept:
        port, _ = serve(kept=kept)
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
        connection.request('GET', '/')
        answer = connection.getresponse()
        text = answer.getheader('set-cookie')
        connection.close()
        cookie, _, rest = text.partition(';')
        assert cookie.startswith(f'mmfss_visitor_kept_{port}=') and 'Max-Age=2592000' in rest
        assert 'HttpOnly' in rest and 'SameSite=Lax' in rest
        key = signing_key(kept)
        assert signing_key(kept) == key != signing_key(None)
        # another page of the same folder, as after a restart, knows the cookie; a made-up one not
        value = cookie.partition('=')[2]
        other, _ = serve(kept=kept)
        known = f'mmfss_visitor_kept_{other}={value}'
        assert ask(other, '/config', Cookie=known)[2] == ''
        name, signature = value.split('.')
        for made_up in (f'{name}.{"0" * len(signature)}', f'{"0" * len(name)}.{signature}', name):
            given = ask(other, '/config', Cookie=f'mmfss_visitor_kept_{other}={made_up}')[2]
            assert given.startswith('mmfss_visitor_kept_') and made_up not in given
        # what lies in the folder is given to nobody and named by nobody
        secret = kept / 'visitor_x' / '00001.png'
        secret.parent.mkdir()
        secret.write_text('secret')
        for file in (secret, kept / '.key'):
            for one in (known, ''):
                assert ask(other, f'/gradio_api/file={file}', Cookie=one)[0] == 403
            data = dict(path=str(file), meta=dict(_type='gradio.FileData'))
            status, said, _ = post(other, 'add_photos', [[data]], Cookie=known)
            assert status == 403 and said == 'A file that is not yours was named'


def test_the_key_is_its_owners_alone(tmp_path):
    with kept_folder(tmp_path / 'a' / 'kept') as kept:
        assert stat.S_IMODE(kept.stat().st_mode) == 0o700
        key = signing_key(kept)
        assert len(key) == 32 and stat.S_IMODE((kept / '.key').stat().st_mode) == 0o600
        (kept / '.key').chmod(0o644)  # others could have read it
        new = signing_key(kept)
        assert new != key and stat.S_IMODE((kept / '.key').stat().st_mode) == 0o600
        (kept / '.key').write_bytes(b'short')
        assert len(signing_key(kept)) == 32
        (kept / '.key').unlink()
        (tmp_path / 'elsewhere').write_bytes(bytes(32))
        (kept / '.key').symlink_to(tmp_path / 'elsewhere')
        assert signing_key(kept) != bytes(32) and not (kept / '.key').is_symlink()
        with pytest.raises(ValueError, match='another page keeps its sessions in'):
            kept_folder(kept).__enter__()
    open_one = tmp_path / 'open'
    open_one.mkdir(mode=0o755)
    open_one.chmod(0o755)
    with pytest.raises(ValueError, match='others may look into it; chmod 700'):
        kept_folder(open_one).__enter__()


def test_folders_of_nobody_are_cleared(tmp_path):
    for i in range(5):
        folder = tmp_path / f'visitor_{i}'
        folder.mkdir()
        if i:
            (folder / 'session.json').write_text('{}')
            os.utime(folder / 'session.json', (1e9 * (i == 1) or 2e9 + i,) * 2)
    (tmp_path / 'other').mkdir()
    clear_stale(tmp_path, most=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['other', 'visitor_3', 'visitor_4']
