"""Requests that X-AnyLabeling 4.2.1 sent, replayed on a folder with its files."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from serve_cases import mask_of, png, recorded
from webui_steps import box_mask, pixels

pytest.importorskip('starlette')
pytest.importorskip('httpx')

from mmfss.regions import filled, joined, outlines_of
from mmfss.serve import xanylabeling
from mmfss.serve.xanylabeling import shapes_of

SECRET = 'a-secret'


def shape(label: str, points, kind: str = 'polygon', score: float | None = None) -> dict:
    """As the program writes it."""
    about = dict(group_id=None, description='', difficult=False, flags={}, attributes={})
    about.update(kie_linking=[], score=score)
    return dict(label=label, points=np.asarray(points).tolist(), shape_type=kind, **about)


def write(folder: Path, seed: int, shapes: list[dict], checked: bool = False) -> Path:
    """A photo and its file."""
    (folder / f'photo{seed}.png').write_bytes(png(seed))
    content = dict(version='4.2.1', flags={}, checked=checked, shapes=shapes)
    content.update(imagePath=f'photo{seed}.png', imageData=None, imageHeight=80, imageWidth=96)
    path = folder / f'photo{seed}.json'
    path.write_text(json.dumps({**content, 'description': ''}), encoding='utf-8')
    return path


CUP = shape('cup', joined(outlines_of(box_mask())[0]))
LAMP = shape('lamp', [[5, 5], [25, 5], [25, 25], [5, 25]], 'rectangle')


@pytest.fixture
def folder(tmp_path) -> Path:
    """Photo 0 has a cup and a lamp, photo 1 a cup, photo 2 nothing."""
    folder = tmp_path / 'kitchen'
    folder.mkdir()
    write(folder, 0, [CUP, LAMP])
    write(folder, 1, [CUP])
    (folder / 'photo2.png').write_bytes(png(2))
    return folder


@pytest.fixture
def client(new_service, folder):
    client = new_service(token=SECRET, folders=dict(kitchen=folder))
    client.headers['Token'] = SECRET
    return client


def asked(number: int) -> dict:
    """A recorded request; its photo is put in the place of its name."""
    body = recorded('xanylabeling')[number]['body']
    seed = int(body['image'][6])
    return {**body, 'image': f'data:image/png;base64,{base64.b64encode(png(seed)).decode()}'}


def predict(client, number: int = 2) -> dict:
    answer = client.post('/v1/predict', json=asked(number))
    assert answer.status_code == 200, answer.text
    return answer.json()['data']


def refused(client, body, status: int) -> str:
    answer = client.post('/v1/predict', json=body)
    assert answer.status_code == status and answer.json()['success'] is False
    return answer.json()['error']['message']


def test_the_recorded_session(client, worker, proposer):
    models = client.get('/v1/models').json()['data']
    assert list(models) == ['kitchen'] and models['kitchen']['classes'] == ['cup', 'lamp']
    assert [one['id'] for one in models['kitchen']['available_tasks']] == ['polygon', 'rectangle']
    # photo 0 has been drawn: nothing is added to it, nothing goes
    assert predict(client, 1) == dict(shapes=[], description='', replace=False)
    wanted = worker.new_inferencer()
    cups = [(pixels(seed)[..., ::-1], box_mask()) for seed in (0, 1)]
    lamp = [(pixels(0)[..., ::-1], mask_of(slice(5, 25), slice(5, 25)))]  # of its box
    wanted.set_support(dict(cup=cups, lamp=lamp))
    found = predict(client, 2)
    assert 'replace' not in found and found['shapes']
    expected = shapes_of(wanted(pixels(2)[..., ::-1]))
    assert found['shapes'] == json.loads(json.dumps(expected))
    assert {one['shape_type'] for one in found['shapes']} == {'polygon'}
    # rectangles of one class above a score
    boxes = predict(client, 3)['shapes']
    assert boxes and {(one['label'], one['shape_type']) for one in boxes} == {('cup', 'rectangle')}
    assert all(len(one['points']) == 4 and one['score'] >= 0.25 for one in boxes)
    assert [prompt.box for prompt in proposer.prompts] == [(5.0, 5.0, 25.0, 25.0)]


def test_polygons_are_the_masks(worker):
    """Filled again they differ from a mask by less than its border."""
    inferencer = worker.new_inferencer()
    inferencer.set_support(dict(a=[(pixels(0), box_mask())]))
    found = inferencer(pixels(2))
    yy, xx = np.mgrid[:80, :96]
    mask = ((xx - 50) ** 2 + (yy - 40) ** 2 < 900) & ((xx - 50) ** 2 + (yy - 40) ** 2 >= 100)
    object.__setattr__(found, 'labels', mask.astype(np.uint8))
    (ring,) = shapes_of(found)
    assert ring['points'][0] == ring['points'][-1]
    again = filled([(np.array(ring['points'][:-1]),)], 80, 96)
    assert (again != mask).sum() < 0.05 * mask.sum()
    (box,) = shapes_of(found, rectangles=True)
    assert box['points'] == [[21, 11], [80, 11], [80, 70], [21, 70]]
    assert shapes_of(found, least=1.1) == []


def test_supports_follow_the_files(client, folder, inferencer):
    """Drawn, changed, taken away; predictions that the program has saved are no supports until
    their image is ticked as checked."""

    def counts() -> dict[str, int]:
        (project,) = client.get('/').json()['projects'].values()
        return project

    predict(client)
    assert counts() == dict(cup=2, lamp=1)
    saved = predict(client)['shapes']
    path = write(
        folder, 2, [shape(one['label'], one['points'], score=one['score']) for one in saved]
    )
    assert predict(client)['shapes'] == saved and counts() == dict(cup=2, lamp=1)
    path.write_text(path.read_text().replace('"checked": false', '"checked": true'))
    assert predict(client)['replace'] is False and counts()['cup'] == 3
    path.unlink()
    write(folder, 1, [])
    misses = inferencer.model.encoding.cache.stats.misses
    assert 'replace' not in predict(client) and counts() == dict(cup=1, lamp=1)
    assert inferencer.model.encoding.cache.stats.misses == misses
    write(folder, 1, [CUP, shape('spoon', [[70, 10], [90, 10], [80, 40]])])
    predict(client)
    assert counts() == dict(cup=2, lamp=1, spoon=1)


def test_a_photo_that_is_replaced_under_its_file_is_read_again(client, folder, tmp_path):
    for second in (1, 9):
        (folder / 'photo1.png').write_bytes(png(second))
        predict(client)
        kept = {path.name for path in (tmp_path / 'data').glob('projects/*/photos/*')}
        assert kept == {hashlib.sha256(png(seed)).hexdigest() for seed in (0, second)}


def test_a_class_that_is_not_drawn_is_added_to_a_photo_that_has_others(client, folder):
    write(folder, 2, [shape('spoon', [[70, 10], [90, 10], [80, 40]])])
    found = predict(client)
    assert found['replace'] is False
    assert {one['label'] for one in found['shapes']} == {'cup', 'lamp'}


def test_files_that_are_bad_stop_nothing(client, folder, caplog):
    (folder / 'other.json').write_text('{"a": 1}')
    (folder / 'half.json').write_text((folder / 'photo0.json').read_text()[:100])
    gone = write(folder, 3, [CUP])
    (folder / 'photo3.png').unlink()
    outside = write(folder, 4, [CUP])
    content = json.loads(outside.read_text())
    outside.write_text(json.dumps({**content, 'imagePath': '../../secret.png'}))
    write(folder, 1, [CUP, shape('dot', [[1, 1]], 'line'), shape('cup', [[300, 300]] * 3)])
    assert predict(client)['shapes']
    (project,) = client.get('/').json()['projects'].values()
    assert project == dict(cup=2, lamp=1)
    # one that was read and is just being written is used as it was
    whole = (folder / 'photo0.json').read_text()
    (folder / 'photo0.json').write_text(whole[:200])
    assert predict(client, 1)['replace'] is False
    gone.unlink()


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What the service says on its terminal."""
    told: list[str] = []
    monkeypatch.setattr(xanylabeling, 'print_log', lambda text, *about: told.append(text))
    return told


def test_a_file_that_is_bad_in_a_part_is_used_for_the_rest(client, folder, said):
    (folder / 'deep.json').write_text('[' * 100_000)
    mask = dict(shape('cup', [[0, 0], [5, 5]], 'mask'), mask='iVBORw0KGgo=')  # the head of a PNG
    write(folder, 1, [mask, shape('', [[5, 5], [9, 5], [9, 9]]), CUP])
    assert predict(client)['shapes']
    (project,) = client.get('/').json()['projects'].values()
    assert project == dict(cup=2, lamp=1)
    for text in (
        'its mask is no image',
        'a polygon has no label',
        'deep.json is not used: no file',
    ):
        assert text in '; '.join(said)


def test_an_image_that_comes_after_its_file_is_used(client, folder, said):
    """The file is as it was; why it was not used is said once."""
    write(folder, 3, [shape('vase', CUP['points'])])
    photo = (folder / 'photo3.png').rename(folder / 'later')
    predict(client)
    predict(client)
    assert sum('photo3.json is not used' in one for one in said) == 1
    photo.rename(folder / 'photo3.png')
    assert 'vase' in client.get('/v1/models').json()['data']['kitchen']['classes']


def test_classes_that_are_asked_for(client):
    asking = asked(2)
    asking['params']['filter_classes'] = ['lamp', 'plate']
    found = client.post('/v1/predict', json=asking).json()['data']['shapes']
    assert {one['label'] for one in found} == {'lamp'}
    asking['params']['filter_classes'] = ['plate']
    assert 'none of the classes plate is marked' in refused(client, asking, 400)
    asking['params']['filter_classes'] = [{}]
    assert 'list of names' in refused(client, asking, 400)


def test_restarted(new_service, folder, client):
    """Nothing is read as new that has not changed."""
    before = predict(client)
    kept = sorted((p.name, p.stat().st_mtime_ns) for p in (folder.parent / 'data').rglob('*.json'))
    again = new_service(folders=dict(kitchen=folder))
    assert predict(again) == before
    after = sorted((p.name, p.stat().st_mtime_ns) for p in (folder.parent / 'data').rglob('*.json'))
    assert after == kept and len(kept) == 2


def test_requests_that_are_wrong(client, new_service, tmp_path):
    assert 'there are kitchen' in refused(client, {**asked(2), 'model': 'x'}, 400)
    assert 'data:image' in refused(client, {**asked(2), 'image': 'photo.png'}, 400)
    assert 'no base64' in refused(client, {**asked(2), 'image': 'data:image/png;base64,A'}, 400)
    assert 'not an image' in refused(
        client, {**asked(2), 'image': 'data:image/png;base64,AAAA'}, 400
    )
    for params in ([1], dict(conf_threshold='x'), dict(filter_classes=3)):
        refused(client, {**asked(2), 'params': params}, 400)
    for odd in ([], {}, None, 3):
        refused(client, {**asked(2), 'model': odd}, 400)
        refused(client, {**asked(2), 'image': odd}, 400)
    answer = client.post('/v1/predict', content=json.dumps(asked(2))[:500])
    assert answer.status_code == 400 and 'cut off' in answer.json()['error']['message']
    assert client.post('/v1/predict', json=asked(2), headers={'Token': 'x'}).status_code == 401
    (tmp_path / 'empty').mkdir()
    empty = new_service(folders=dict(kitchen=tmp_path / 'empty'))
    assert 'marked: nothing' in refused(empty, asked(2), 400)
    none = new_service()
    assert '--folder NAME=DIR' in refused(none, asked(2), 400)
    (tmp_path / 'empty').rmdir()
    assert empty.get('/v1/models').status_code == 404
