"""The page over HTTP, and the command that starts it."""

from __future__ import annotations

import json
import signal
import socket
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmfss.commands import webui as cli
from mmfss.commands.command_lines import WebuiArguments, parse
from mmfss.webui.limits import Limits
from mmfss.webui.worker import Models

VISITOR = pytest.importorskip('mmfss.webui.guard', exc_type=ImportError).VISITOR
ASKING = SimpleNamespace(request=SimpleNamespace(scope={VISITOR: 'somebody'}))


def served(worker, root: Path):
    """The page at a free port: (page, address)."""
    pytest.importorskip('gradio')
    page = cli.make_page(Models(worker), Limits(), root)
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
    assert 'event: complete' in called(address, 'add_photos', [None])
    file = dict(path='/etc/passwd', meta=dict(_type='gradio.FileData'))
    for path in ('/etc/passwd', str(Path('setup.py').resolve())):
        answer = called(address, 'add_photos', [[{**file, 'path': path}]])
        assert 'event: error' in answer and 'Traceback' not in answer


def test_a_session_that_is_gone_is_said_and_made_no_fuss_of(page, worker):
    page, _ = page
    said = []
    import mmfss.webui.handlers as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'warn', said.append)
        assert list(page.label(ASKING)) == [page.done]
        page.start(ASKING)
        session = page.visitors.find('somebody')
        assert list(page.label(ASKING)) == [page.done]
        patch.setattr(type(session), 'label', lambda *_: 1 / 0)
        assert list(page.label(ASKING)) == [page.done]
    assert said[0].startswith('This page was open for too long')
    assert said[1] == 'no object is marked yet; mark one in step 1 first'
    assert said[2].startswith('This step failed')
    session.close()


def test_messages_and_names_are_text_not_html(page, new_session, photo, monkeypatch):
    from webui_steps import marked

    import mmfss.webui.handlers as module
    from mmfss.webui import views

    shown = []
    monkeypatch.setattr(module.gr, 'Warning', lambda text, duration: shown.append(text))
    module.warn('<img src=x onerror=alert(1)> is not an image')
    assert shown == ['&lt;img src=x onerror=alert(1)&gt; is not an image']
    session = new_session()
    marked(session, photo, ('<script>',))
    session.add_queries([(photo('q.png', 9)[0], 'a&b.png')])
    session.label()
    html = views.score_table(session) + views.support_summary(session)
    html += views.result_title(session) + views.found_summary(session)
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
    second = cli.make_page(Models(worker), Limits(), tmp_path)
    with pytest.raises(ValueError, match=f'cannot listen on 127.0.0.1:{port}'):
        cli.launch(second, '127.0.0.1', port, block=False)
    monkeypatch.setattr(cli.ModelWorker, 'load', lambda *_, **__: worker)
    monkeypatch.setattr(cli, 'launch', lambda *_: None)
    assert cli.main(['--port', '0', '--host', '0.0.0.0']) == 0
    assert 'Warning: the page listens on 0.0.0.0' in capsys.readouterr().err
    for host in ('127.0.0.1', 'localhost'):
        assert cli.main(['--port', '0', '--host', host]) == 0
    assert 'Warning' not in capsys.readouterr().err


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_signal_ends_the_page_and_its_files(name, worker, photo, tmp_path, monkeypatch):
    pytest.importorskip('gradio')
    monkeypatch.setattr(cli.ModelWorker, 'load', lambda *_, **__: worker)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.setenv('GRADIO_TEMP_DIR', '')
    monkeypatch.setenv('GRADIO_ANALYTICS_ENABLED', '')
    seen = []

    def launch(page, *_):
        page.start(ASKING)
        session = page.visitors.find('somebody')
        session.add_photos([photo('a.png')])
        seen.append(session)
        assert list(tmp_path.glob('mmfss_webui_*/visitor_*'))
        signal.raise_signal(getattr(signal, name))

    monkeypatch.setattr(cli, 'launch', launch)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(['--port', '0']) == 130
    assert len(seen) == 1 and not list(tmp_path.glob('mmfss_webui_*'))
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_was_taken_away_goes_with_the_last_support(page, photo):
    from webui_steps import marked

    page, _ = page
    page.start(ASKING)
    session = page.visitors.find('somebody')
    marked(session, photo)
    session.add_queries([photo('q.png', 9)])
    taken = page.take(ASKING, ['png'])
    assert '1 of 1 not labelled yet: press Label' in taken[page.take_note]
    assert taken[page.files]['visible'] and len(taken[page.files]['value']) == 1
    session.clear_shots()
    taken = page.take(ASKING, ['png'])
    assert 'Nothing to take away yet' in taken[page.take_note]
    for part in (page.files, page.command):
        assert taken[part]['visible'] is False and taken[part]['value'] is None


def test_the_example_is_made_once_and_labelled(page, monkeypatch):
    from mmfss.datasets.preparation.example import Example
    from mmfss.webui import example

    page, _ = page
    monkeypatch.setattr(example, 'EXAMPLE', Example(images=2, image_size=32))
    page.start(ASKING)
    shown = page.try_example(ASKING)
    session = page.visitors.find('somebody')
    assert session.supports.classes == ('crescent', 'ring', 'star') and len(session.supports) == 6
    assert len(session.labelled()) == 2 and shown[page.review]['visible']
    mask = session.supports.shots[0].thumb_mask
    assert 0.02 < mask.mean() < 0.6
    monkeypatch.setattr(example, 'write_example', pytest.fail)
    with pytest.raises(ValueError, match='the example is for an empty page'):
        example.load(session, page.visitors.root / 'example')


def test_what_no_canvas_sends_is_nothing():
    from mmfss.webui.canvas import Drawn

    right = dict(id='00001.png', mask='data:', at=[1, 2.5])
    assert Drawn.of(right) == Drawn('00001.png', 'data:', (1, 2.5))
    assert Drawn.of(dict(right, at=[1, 2, 3, 4])).at == (1, 2, 3, 4)
    for at in (None, [1], [1, True], [1, float('nan')], [1, 2, 3], 'ab', {'x': 1}, [[1], 2]):
        assert Drawn.of(dict(right, at=at)).at == ()
    for sent in (None, 'x', [], 5, {}, dict(id=5, mask=[1])):
        assert Drawn.of(sent) == Drawn()


def test_paint_of_another_picture_is_not_used(page, photo, monkeypatch):
    from webui_steps import box_mask, painted

    import mmfss.webui.handlers as module

    page, _ = page
    said = []
    monkeypatch.setattr(module, 'warn', said.append)
    page.start(ASKING)
    session = page.visitors.find('somebody')
    session.add_photos([photo('a.png'), photo('b.png', 1)])
    sent = dict(id=session.photos[1].path.name, mask=painted(box_mask()), at=None)
    page.use_mask(ASKING, 'cup', sent, False)
    assert said == ['another picture is shown since; paint on this one, then press again']
    page.use_mask(ASKING, 'cup', dict(sent, id=session.photos[0].path.name), False)
    assert session.supports.classes == ('cup',) and session.current == 1


def test_where_sessions_stay(worker, tmp_path, monkeypatch, capsys):
    pytest.importorskip('gradio')
    monkeypatch.setattr(cli.ModelWorker, 'load', lambda *_, **__: worker)
    monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path / 'state'))
    kept = []
    monkeypatch.setattr(cli, 'make_page', lambda models, limits, root, folder: kept.append(folder))
    monkeypatch.setattr(cli, 'launch', lambda *_: None)
    probe = socket.socket()
    probe.bind(('127.0.0.1', 0))
    port = str(probe.getsockname()[1])
    probe.close()
    own = tmp_path / 'own'
    for arguments in (
        ['--port', port], ['--port', port, '--forget'], ['--port', '0'],
        ['--port', '0', '--sessions', str(own)],
    ):  # fmt: skip
        assert cli.main(arguments) == 0
    assert kept == [tmp_path / 'state/mmfss/webui' / port, None, None, own]
    assert f'Sessions are kept in {kept[0]} (--forget keeps nothing)' in capsys.readouterr().out
    assert cli.main(['--port', '0', '--forget', '--sessions', str(own)]) == 1
    assert 'leave one of them out' in capsys.readouterr().err
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path / 'file'))
    assert cli.main(['--port', port]) == 0 and kept[-1] is None
    assert 'Warning: sessions are not kept' in capsys.readouterr().err
