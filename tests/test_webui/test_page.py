"""The page over HTTP, and the command that starts it."""

from __future__ import annotations

import json
import signal
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mmfss.commands import webui as cli
from mmfss.commands.command_lines import WebuiArguments, parse
from mmfss.webui.limits import Limits


def served(worker, root: Path):
    """The page at a free port: (page, address)."""
    pytest.importorskip('gradio')
    page = cli.make_page(worker, Limits(), root)
    return page, cli.launch(page, '127.0.0.1', 0, block=False)


@pytest.fixture
def page(worker, tmp_path, monkeypatch):
    monkeypatch.setenv('GRADIO_TEMP_DIR', '')
    monkeypatch.setenv('GRADIO_ANALYTICS_ENABLED', 'True')
    page, address = served(worker, tmp_path)
    yield page, address
    page.blocks.close(verbose=False)


def status(address: str) -> int:
    try:
        with urllib.request.urlopen(address) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_nothing_is_told_elsewhere_and_no_file_of_the_server_is_given(page, worker, tmp_path):
    page, address = page
    config = page.blocks.config
    assert not page.blocks.analytics_enabled and not page.blocks.share
    assert config['analytics_enabled'] is False
    assert 'googleapis' not in page.blocks.theme_css
    secret = tmp_path / 'visitor_1' / '00001.png'
    secret.parent.mkdir()
    secret.write_text('secret')
    for file in (secret, Path('/etc/passwd'), Path('setup.py'), Path('../setup.py')):
        assert status(f'{address}gradio_api/file={file}') in (403, 404)
    assert status(address) == 200


def called(address: str, name: str, data: list) -> str:
    """What a handler answers to a request that no page made."""
    body = json.dumps(dict(data=data)).encode()
    request = urllib.request.Request(
        f'{address}gradio_api/call/{name}', body, {'Content-Type': 'application/json'}
    )
    with urllib.request.urlopen(request) as answer:
        event = json.load(answer)['event_id']
    with urllib.request.urlopen(f'{address}gradio_api/call/{name}/{event}') as answer:
        return answer.read().decode()


def test_paths_that_were_not_uploaded_are_refused(page):
    _, address = page
    assert 'event: complete' in called(address, 'add_photos', ['Box', None])
    file = dict(path='/etc/passwd', meta=dict(_type='gradio.FileData'))
    for path in ('/etc/passwd', str(Path('setup.py').resolve())):
        answer = called(address, 'add_photos', ['Box', [{**file, 'path': path}]])
        assert 'event: error' in answer and 'Traceback' not in answer


def test_a_session_that_is_gone_is_said_and_made_no_fuss_of(page, worker):
    page, _ = page
    said = []
    import mmfss.webui.page as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, '_warn', said.append)
        assert page.label(None) == {page.session: None}
        session = page.start()[page.session]
        assert page.label(session) == {page.session: session}
        patch.setattr(type(session), 'label', lambda *_: 1 / 0)
        assert page.label(session) == {page.session: session}
    assert said[0].startswith('This page was open for too long')
    assert said[1] == 'no object is marked yet; mark one in step 1 first'
    assert said[2].startswith('This step failed')
    session.close()


def test_messages_and_names_are_text_not_html(page, new_session, photo, monkeypatch):
    from webui_steps import marked

    import mmfss.webui.page as module
    from mmfss.webui import views

    shown = []
    monkeypatch.setattr(module.gr, 'Warning', lambda text, duration: shown.append(text))
    module._warn('<img src=x onerror=alert(1)> is not an image')
    assert shown == ['&lt;img src=x onerror=alert(1)&gt; is not an image']
    session = new_session()
    marked(session, photo, ('<script>',))
    session.add_queries([(photo('q.png', 9)[0], 'a&b.png')])
    session.label()
    html = views.score_table(session) + views.support_summary(session)
    assert '<script>' not in html and '&lt;script&gt;' in html and 'a&amp;b.png' in html


def test_the_default_listens_to_this_machine_only():
    args = parse(WebuiArguments, [])
    assert (args.host, args.method, args.config, args.weights) == ('127.0.0.1', None, None, None)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--method', 'fssam', '--weights', 'no.pth'], 'error: weights no.pth not found'),
        (['--weights', 'no.pth'], 'error: weights no.pth are given without the config of their'),
        (['--config', 'nothing'], 'error: config nothing not found'),
        (['--port', '70000'], 'error: --port must be in 0..65535, got 70000'),
        (['--host', '192.0.2.1'], 'error: cannot listen on 192.0.2.1:0'),
        (['--max-pixels', '0'], 'error: max_pixels must be a whole number of at least 1, got 0'),
    ],
)
def test_wrong_arguments_are_explained(arguments, message, capsys):
    pytest.importorskip('gradio')
    assert cli.main(['--port', '0', *arguments]) == 1
    assert message in capsys.readouterr().err


def test_without_gradio_the_command_to_install_it_is_said(monkeypatch, capsys):
    monkeypatch.setattr(cli, 'find_spec', lambda name: None)
    assert cli.main([]) == 1
    assert 'pip install -r requirements/webui.txt' in capsys.readouterr().err


def test_a_port_that_is_taken_and_other_hosts(page, worker, tmp_path, monkeypatch, capsys):
    first, address = page
    port = int(address.rstrip('/').rsplit(':', 1)[1])
    second = cli.make_page(worker, Limits(), tmp_path)
    with pytest.raises(ValueError, match=f'cannot listen on 127.0.0.1:{port}'):
        cli.launch(second, '127.0.0.1', port, block=False)
    monkeypatch.setattr(cli.ModelWorker, 'load', lambda *_: worker)
    monkeypatch.setattr(cli, 'launch', lambda *_: None)
    assert cli.main(['--port', '0', '--host', '0.0.0.0']) == 0
    assert 'Warning: the page listens on 0.0.0.0' in capsys.readouterr().err
    for host in ('127.0.0.1', 'localhost'):
        assert cli.main(['--port', '0', '--host', host]) == 0
    assert 'Warning' not in capsys.readouterr().err


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_signal_ends_the_page_and_its_files(name, worker, tmp_path, monkeypatch):
    pytest.importorskip('gradio')
    monkeypatch.setattr(cli.ModelWorker, 'load', lambda *_: worker)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.setenv('GRADIO_TEMP_DIR', '')
    monkeypatch.setenv('GRADIO_ANALYTICS_ENABLED', '')
    seen = []

    def launch(page, *_):
        seen.append(page.start()[page.session])
        assert list(tmp_path.glob('mmfss_webui_*/visitor_*'))
        signal.raise_signal(getattr(signal, name))

    monkeypatch.setattr(cli, 'launch', launch)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(['--port', '0']) == 130
    assert len(seen) == 1 and not list(tmp_path.glob('mmfss_webui_*'))
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_was_taken_away_goes_with_the_last_support(page, new_session, photo):
    from webui_steps import marked

    page, _ = page
    session = new_session()
    marked(session, photo)
    session.add_queries([photo('q.png', 9)])
    taken = page.take(session)
    assert '1 of 1 not labelled yet: press Label' in taken[page.take_note]
    assert taken[page.files]['visible'] and len(taken[page.files]['value']) == 1
    session.clear_shots()
    taken = page.take(session)
    assert 'Nothing to take away yet' in taken[page.take_note]
    for part in (page.files, page.command):
        assert taken[part]['visible'] is False and taken[part]['value'] is None
