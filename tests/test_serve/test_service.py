"""Who may ask the service, what it keeps through a kill, and the command."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from serve_cases import png, request_of
from webui_steps import box_mask, pixels

pytest.importorskip('starlette')
pytest.importorskip('httpx')

from starlette.requests import Request

from mmfss.commands.command_lines import ServeArguments, parse
from mmfss.commands.serve import folders_of, run
from mmfss.serve.answers import answered
from mmfss.serve.projects import Annotation, Project, Projects
from mmfss.webui.limits import Limits

SECRET = 'a-secret'


# ---------------------------------------------------------------------------------- who may ask


def test_the_token_in_all_its_forms(new_service):
    client = new_service(token=SECRET)
    basic = base64.b64encode(f'anybody:{SECRET}'.encode()).decode()
    for headers in (
        {'Authorization': f'Bearer {SECRET}'},
        {'Authorization': f'Token {SECRET}'},
        {'Authorization': f'Basic {basic}'},
        {'Token': SECRET},
    ):
        assert client.get('/v1/models', headers=headers).status_code == 200
    for headers in (
        {},
        {'Token': 'wrong'},
        {'Token': ''},
        {'Authorization': 'Basic !'},
        {'Authorization': 'Basic ä'.encode()},
        {'Authorization': 'Bearer'},
        {'Authorization': f'Bearer {SECRET}x'},
        {'Token': 'ä'.encode()},
    ):
        answer = client.get('/v1/models', headers=headers)
        assert answer.status_code == 401 and 'token' in answer.json()['error']
        assert answer.headers['www-authenticate'].startswith('Basic')
    assert client.get('/health').json()['status'] == 'UP'  # whether it is there


@pytest.mark.parametrize(
    ('headers', 'text'),
    [
        ({'Host': 'evil.example'}, 'does not answer to the name'),
        ({'Host': 'evil.example:9090'}, '--allowed-host'),
        ({'Origin': 'http://evil.example'}, 'not this service'),
        ({'Origin': 'null'}, 'not this service'),
    ],
)
def test_foreign_names_and_pages(new_service, headers, text):
    answer = new_service().get('/', headers=headers)
    assert answer.status_code == 403 and text in answer.json()['error']


def test_a_request_has_bounds(new_service):
    """2 GB are refused by their length, and where that is a lie, when it is passed."""
    client = new_service(max_upload_mb=1)
    answer = client.post('/predict', content=b'{}', headers={'Content-Length': f'{2**31}'})
    assert answer.status_code == 413 and '--max-upload-mb' in answer.json()['error']
    parts = (b' ' * 2**20 for _ in range(66))  # of unknown length
    assert client.post('/predict', content=parts).status_code == 413
    assert not client.service.projects.summary()


def test_a_client_that_goes_away_is_no_fault():
    async def gone() -> dict:
        return {'type': 'http.disconnect'}

    request = Request({'type': 'http', 'method': 'POST', 'path': '/predict', 'headers': []}, gone)
    assert asyncio.run(answered(dict)(request)).status_code == 400


def test_a_fault_of_ours_is_said_in_the_form_of_the_program(new_service, tmp_path, monkeypatch):
    def broken(projects: Projects, key: str) -> Project:
        raise KeyError('it')

    client = new_service(folders=dict(cats=tmp_path))
    monkeypatch.setattr(Projects, 'get', broken)
    answer = client.post('/setup', json=request_of('/setup'))
    assert answer.status_code == 500 and answer.json() == dict(error="KeyError: 'it'")
    answer = client.get('/v1/models')
    assert answer.status_code == 500
    assert answer.json() == dict(
        success=False, error=dict(code='REFUSED', message="KeyError: 'it'")
    )


# ---------------------------------------------------------------------------------- what is kept


@pytest.fixture
def project(worker, tmp_path) -> Project:
    return Project(tmp_path / 'p', worker, Limits(max_shots=2))


def test_the_latest_supports_are_used(project, worker):
    """As many as --max-shots says, an annotation that was changed being new again."""
    masks = [box_mask() for _ in range(3)]
    for seed, mask in enumerate(masks):
        project.put(f'k{seed}', png(seed), f'{seed}.png', dict(cup=mask))
    assert project.counts == dict(cup=3)
    wanted = worker.new_inferencer()
    for used in ((1, 2), (2, 0)):
        wanted.set_support(dict(cup=[(pixels(seed)[..., ::-1], masks[seed]) for seed in used]))
        found = project.predict(pixels(5)[..., ::-1], 'x')
        np.testing.assert_array_equal(found.prediction.logits, wanted(pixels(5)[..., ::-1]).logits)
        project.put('k0', png(0), '0.png', dict(cup=masks[0]))
    assert project.version() != found.version


def test_a_photo_that_was_looked_at_is_not_encoded_again_when_it_is_marked(project, worker):
    """As a first one is: its program asks for a prediction before anything is marked."""
    stats = project.worker.new_inferencer().model.encoding.cache.stats
    with pytest.raises(ValueError, match='is marked in this project yet'):
        project.predict(pixels(7000)[..., ::-1], 'x')
    worker.run(lambda: None)  # what was begun is done
    before = stats.misses
    project.put('k', png(7000), 'x.png', dict(cup=box_mask()))
    project.predict(pixels(7001)[..., ::-1], 'y')
    assert stats.misses == before + 1


def test_masks_that_cannot_be_used_are_kept_and_said(project):
    dot = np.zeros((80, 96), bool)
    dot[1, 1] = True
    reasons = project.put('k', png(0), 'a.png', dict(cup=box_mask(), sky=np.ones((80, 96), bool)))
    assert len(reasons) == 1 and 'a.png marks every pixel' in reasons[0]
    assert project.counts == dict(cup=1, sky=1)
    assert project.predict(pixels(1), 'x').prediction.classes == ('cup',)
    with pytest.raises(ValueError, match='of the classes sky is marked'):
        project.predict(pixels(1), 'x', ['sky'])


def test_what_is_refused_leaves_what_was_there(project):
    project.put('k', png(0), 'a.png', dict(cup=box_mask()))
    files = sorted(p.name for p in project.folder.rglob('*') if p.is_file())
    for masks, text in (
        (dict(cup=np.ones((5, 5), bool)), 'of 5 x 5 pixels, the photo has 96 x 80'),
        (dict(cup=box_mask(), Cup=box_mask()), 'two classes'),
        (dict(background=box_mask()), 'background'),
    ):
        with pytest.raises(ValueError, match=text):
            project.put('k', png(1), 'b.png', masks)
    with pytest.raises(ValueError, match='not an image'):
        project.put('k', b'no photo', 'b.png', dict(cup=box_mask()))
    with pytest.raises(ValueError, match='letters and digits'):
        project.put('../k', png(1), 'b.png', dict(cup=box_mask()))
    assert sorted(p.name for p in project.folder.rglob('*') if p.is_file()) == files
    project.put('k', png(1), 'b.png', dict(cup=box_mask()))  # the photo of before goes
    assert len(list((project.folder / 'photos').iterdir())) == 1
    assert project.remove('k') and not project.remove('k')
    assert not [p for p in project.folder.rglob('*') if p.is_file()]


def test_a_kept_file_that_is_damaged_is_named(project, worker):
    project.put('k', png(0), 'a.png', dict(cup=box_mask()))
    path = project.folder / 'annotations' / 'k.json'
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match='k.json is damaged'):
        Project(project.folder, worker, Limits())


def test_keys_of_projects(worker, tmp_path):
    projects = Projects(tmp_path, worker, Limits())
    for key in ('..', 'a/b', '', 'x' * 101, 'ä'):
        with pytest.raises(ValueError, match='letters and digits'):
            projects.get(key)
    assert projects.summary() == {} and projects.get('a') is projects.get('a')


@pytest.mark.parametrize('seconds', [0.02, 0.1, 0.3])
def test_what_was_confirmed_survives_a_kill(project, seconds):
    """A process that marks and is killed at any time: all that it confirmed is there and whole."""
    told, tells = os.pipe()
    child = os.fork()
    if child == 0:
        for number in range(10_000):
            key = f'k{number % 40}'
            project.put(key, png(number % 3), key, dict(cup=box_mask()))
            os.write(tells, f'{key} {project._kept[key].time}\n'.encode())
    os.close(tells)
    os.read(told, 1)  # it has begun
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(told) as file:
        confirmed = dict(line.split() for line in f'k{file.read()}'.splitlines())
    again = Project(project.folder, project.worker, Limits())
    assert confirmed and set(confirmed) <= set(again.annotated)
    for key, when in confirmed.items():
        assert Annotation.load(project.folder / 'annotations' / f'{key}.json').time >= int(when)
    assert again.predict(pixels(5), 'x').prediction.classes == ('cup',)
    assert not list(project.folder.rglob('*.part'))


# ---------------------------------------------------------------------------------- the command


def test_wrong_arguments_end_in_a_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for argv, text in (
        (['--folder', 'a'], '--folder must be NAME=DIR'),
        (['--folder', 'a=none'], 'there is no folder none'),
        (['--local-files', 'none'], '--local-files none is no folder'),
        (['--label-studio', 'localhost'], '--label-studio must be http'),
        (['--max-shots', '0'], 'max_shots must be'),
        (['--port', '70000'], '--port must be in'),
        (['--threshold', '2', '--data', 'd'], 'a number in 0..1'),
        (['--features-gb', '-1', '--data', 'd'], '--features-gb must be'),
        (['--method', 'none', '--data', 'd'], 'none'),
    ):
        assert run(parse(ServeArguments, ['--port', '0', *argv])) == 1
        error = capsys.readouterr().err
        assert error.startswith('error: ') and text in error and error.count('\n') == 1
    with pytest.raises(ValueError, match='each name once'):
        folders_of([f'a={tmp_path}', f'a={tmp_path}'])


def test_the_service_as_a_process(tmp_path, capsys):
    """Its lines at the start, a request, a second one on the same data, its end."""
    data = tmp_path / 'data'
    command = [sys.executable, '-m', 'mmfss', 'serve', '--data', str(data), '--port', '0']
    command += ['--method', 'prototype_lite']
    environment = {**os.environ, 'MMFSS_TOKEN': SECRET}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    with subprocess.Popen(command, **pipes) as process:
        try:
            lines = [next(line for line in process.stdout if line.startswith('The service is at'))]
            lines += [process.stdout.readline() for _ in range(4)]
            assert 'http://127.0.0.1:' in lines[0]
            assert lines[4].split() == ['token', 'needed'] and 'prototype_lite' in lines[1]
            port = int(lines[0].split()[4].rpartition(':')[2])
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
            connection.request(
                'POST', '/setup', json.dumps(request_of('/setup')), {'Token': SECRET}
            )
            answer = json.loads(connection.getresponse().read())
            assert answer['model_version'].startswith('prototype_lite ')
            kept = data / 'projects' / 'label-studio-2-1795909293' / 'label_studio.json'
            assert kept.stat().st_mode & 0o777 == 0o600  # it holds a token
            again = parse(ServeArguments, ['--port', '0', '--data', str(data)])
            assert run(again) == 1 and f'serves {data}' in capsys.readouterr().err
        finally:
            process.terminate()
        assert process.wait(90) == 0
        assert 'Traceback' not in process.stderr.read()
    assert not (data / 'lock').exists()
