"""Requests that Label Studio 1.23.2 sent, replayed; and what is wrong with others."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from PIL import Image
from serve_cases import LABEL_STUDIO, PHOTOS, TOKEN, mask_of, png, request_of
from webui_steps import box_mask, pixels

pytest.importorskip('starlette')
pytest.importorskip('httpx')

from mmfss.regions import brush_code, brush_mask, filled
from mmfss.serve.label_studio_form import LabelConfig, marks_of, regions_of

PROJECT = 'label-studio-2-1795909293'
CREATED, UPDATED, DELETED = 'ANNOTATION_CREATED', 'ANNOTATION_UPDATED', 'ANNOTATIONS_DELETED'


def supports(client) -> dict[str, int]:
    return client.get('/').json()['projects'].get(PROJECT, {})


@pytest.fixture
def client(new_service):
    """A service that a project is connected to."""
    client = new_service()
    assert client.post('/setup', json=request_of('/setup')).status_code == 200
    return client


def test_the_recorded_session(new_service, label_studio, proposer, worker):
    """Connect, annotate twice, change one, ask for predictions, delete: as Label Studio did it."""
    client, after = new_service(), []
    export = '/api/projects/2/export?exportType=JSON'
    for request in LABEL_STUDIO:
        body = request['body']
        if body and body.get('action') == 'START_TRAINING':  # what Label Studio would export
            first = request_of('/webhook', UPDATED)
            task = {**first['task'], 'annotations': [first['annotation']]}
            label_studio.files[export] = json.dumps([task]).encode()
        answer = client.request(request['method'], request['path'], json=body)
        assert answer.status_code == 200, answer.text
        after.append((body or {}).get('action') or request['path'])
        after.append(supports(client))
        if request['path'] == '/predict' and body['params']['context'] is None:
            results = answer.json()['results']
    steps = dict(zip(after[::2], after[1::2]))
    assert steps['/setup'] == dict(cup=1, book=1, plate=1)  # the last one
    assert steps[CREATED] == dict(cup=1, lamp=1, book=1, plate=1)
    assert steps[UPDATED] == dict(cup=1, book=1, plate=1)  # its lamp was taken out
    assert steps['START_TRAINING'] == dict(cup=1)  # all that the export has
    assert steps[DELETED] == dict(cup=1) and steps['TASKS_DELETED'] == {}
    # the prompts that stood in for masks: 50, 50, 25, 25 percent of 96 x 80, and 20, 75
    assert [p.box for p in proposer.prompts if p.box] == [(48.0, 40.0, 72.0, 60.0)] * 2
    assert [p.points for p in proposer.prompts if p.points] == [((19.2, 60.0),)]
    # two tasks, each class as its control has it, and the very masks of the inferencer
    assert len(results) == 2
    with_all = worker.new_inferencer()
    with_all.set_support(
        dict(
            cup=[(pixels(0)[..., ::-1], box_mask())],
            book=[(pixels(1)[..., ::-1], mask_of(slice(48, 72), slice(40, 60)))],
            plate=[(pixels(1)[..., ::-1], mask_of(slice(15, 24), slice(56, 65)))],
        )
    )
    tasks = next(r['body'] for r in LABEL_STUDIO if r['path'] == '/predict')['tasks']
    for task, result in zip(tasks, results):
        wanted = with_all(pixels(int(task['data']['image'][-5]))[..., ::-1])
        made = {r['value'].get('brushlabels', ['-'])[0]: r for r in result['result']}
        assert result['score'] == round(wanted.certainty, 4)
        for name in ('cup', 'plate'):
            region = made[name]
            assert region['from_name'] == 'brush' and region['to_name'] == 'img'
            assert (region['original_width'], region['original_height']) == (96, 80)
            found = brush_mask(region['value']['rle'], 80, 96)
            np.testing.assert_array_equal(found, wanted.mask(name))
            assert region['score'] == round(float(wanted.scores[wanted.place(name)]), 4)
        assert {r['from_name'] for r in result['result'] if r['type'] == 'rectanglelabels'} == {
            'box'
        }


def test_what_was_confirmed_is_there_after_a_restart(new_service):
    client = new_service()
    client.post('/setup', json=request_of('/setup'))
    client.post('/webhook', json=request_of('/webhook', CREATED))
    before = client.post('/predict', json=request_of('/predict')).json()
    again = new_service()
    assert supports(again) == dict(cup=1, lamp=1)
    after = again.post('/predict', json=request_of('/predict')).json()  # the token, too
    assert [r['model_version'] for r in after['results']] == [
        r['model_version'] for r in before['results']
    ]
    for one, other in zip(before['results'], after['results']):
        assert [r['value'] for r in one['result']] == [r['value'] for r in other['result']]


def test_four_clients_at_once(client):
    client.post('/webhook', json=request_of('/webhook', CREATED))
    asked = request_of('/predict')
    asked['tasks'] = asked['tasks'][:1]
    one = client.post('/predict', json=asked).json()

    def ask(number: int) -> dict:
        if number % 4 == 3:  # somebody annotates meanwhile
            body = request_of('/webhook', CREATED)
            body['annotation']['id'] = 100 + number
            body['annotation']['result'] = body['annotation']['result'][:1]
            body['annotation']['result'][0]['value']['brushlabels'] = ['other']
            assert client.post('/webhook', json=body).status_code == 400  # no such label
        return client.post('/predict', json=asked).json()

    with ThreadPoolExecutor(4) as pool:
        for answer in pool.map(ask, range(8)):
            for first, second in zip(one['results'], answer['results']):
                assert first['score'] == second['score']
                assert [r['value'] for r in first['result']] == [
                    r['value'] for r in second['result']
                ]


def test_a_new_support_alone_is_encoded(client, inferencer, label_studio):
    label_studio.files.update(zip(PHOTOS, map(png, (71, 72, 73))))  # new to the model
    cache = inferencer.model.encoding.cache
    client.post('/webhook', json=request_of('/webhook', CREATED))
    client.post('/predict', json=request_of('/predict'))
    before = cache.stats.misses
    assert client.post('/webhook', json=request_of('/webhook', CREATED, 1)).json()['kept']
    client.post('/predict', json=request_of('/predict'))
    assert cache.stats.misses == before + 1


# ---------------------------------------------------------------------------------- bad input


def refused(client, path: str, body: dict, status: int) -> str:
    before = supports(client)
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ['error'] and supports(client) == before
    return answer.json()['error']


def test_requests_that_are_not_theirs(client):
    half = json.dumps(request_of('/webhook', CREATED))[:3000]
    answer = client.post('/webhook', content=half)
    assert answer.status_code == 400 and 'cut off' in answer.json()['error']
    assert 'JSON object' in client.post('/predict', json=[1]).json()['error']
    assert 'ID.TIME' in refused(client, '/predict', dict(project='../../etc.1'), 400)
    assert 'list of tasks' in refused(
        client, '/predict', {**request_of('/predict'), 'tasks': 3}, 400
    )
    assert 'no XML' in refused(client, '/setup', {**request_of('/setup'), 'schema': '<View'}, 400)
    bomb = '<!DOCTYPE v [<!ENTITY a "b">]><View/>'
    assert 'document type' in refused(
        client, '/setup', {**request_of('/setup'), 'schema': bomb}, 400
    )
    no_image = {**request_of('/setup'), 'schema': '<View><Text name="t" value="$t"/></View>'}
    assert 'BrushLabels' in refused(client, '/setup', no_image, 400)


ODD = [None, 3, 'x', [], [3], {}, dict(id=None), [[1, 2]]]


def test_odd_webhooks_are_refused_or_left_alone(client):
    """With a status of theirs, never as a fault of the program, which the client here raises."""
    for name, odd in product(('project', 'annotation', 'task', 'action'), ODD):
        body = {**request_of('/webhook', CREATED), name: odd}
        assert client.post('/webhook', json=body).status_code in (200, 400)
        assert supports(client) == {}
    for name, odd in product(('value', 'type', 'to_name'), ODD):
        body = request_of('/webhook', CREATED)
        body['annotation']['result'][0][name] = odd
        assert client.post('/webhook', json=body).status_code in (200, 400)
    for odd in ODD:
        body = request_of('/webhook', CREATED)
        body['annotation']['result'] = odd if isinstance(odd, list) else [odd]
        assert client.post('/webhook', json=body).status_code in (200, 400)


def test_odd_requests_for_predictions_are_refused(client):
    client.post('/webhook', json=request_of('/webhook', CREATED))
    for name, odd in product(('project', 'label_config', 'tasks'), ODD):
        body = {**request_of('/predict'), name: odd}
        assert client.post('/predict', json=body).status_code == 400
    for odd in ODD:
        body = {**request_of('/predict', number=1), 'params': odd}
        assert client.post('/predict', json=body).status_code in (200, 400)
        body['params'] = dict(context=dict(result=odd))
        assert client.post('/predict', json=body).status_code in (200, 400)


def test_an_annotation_without_number_is_refused(client):
    """Two of them would be one."""
    for name in ('annotation', 'task'):
        body = request_of('/webhook', CREATED)
        del body[name]['id']
        assert 'a number each' in refused(client, '/webhook', body, 400)
    assert supports(client) == {}
    body['project']['created_at'] = None
    assert "created_at of the project is no time, but 'None'" in refused(
        client, '/webhook', body, 400
    )


def test_nothing_is_marked_yet(client):
    text = refused(client, '/predict', request_of('/predict'), 400)
    assert 'is marked in this project yet (marked: nothing)' in text and 'submit it' in text


def test_labels_that_are_unknown_or_missing(client):
    body = request_of('/webhook', CREATED)
    body['annotation']['result'][0]['value']['brushlabels'] = ['vase']
    answer = client.post('/webhook', json=body).json()
    assert answer['supports'] == dict(lamp=1)
    assert "'vase' is not in the labelling config" in answer['notes'][0]
    del body['annotation']['result'][0]['value']['brushlabels']
    assert 'has no label' in client.post('/webhook', json=body).json()['notes'][0]
    del body['annotation']['result'][1]
    assert 'has no label' in refused(client, '/webhook', body, 400)
    assert supports(client) == dict(lamp=1)  # what was confirmed before stays


def test_regions_that_cannot_be_read(client):
    body = request_of('/webhook', CREATED)
    regions = body['annotation']['result']
    regions[0]['value']['rle'] = regions[0]['value']['rle'][:20]
    assert 'cut off' in client.post('/webhook', json=body).json()['notes'][0]
    regions[0].update(original_width=80, original_height=96)
    regions[1]['image_rotation'] = 90
    text = refused(client, '/webhook', body, 400)
    assert 'upright the photo has 96 x 80' in text and 'turned in Label Studio' in text
    regions[0].update(original_width=96, original_height=80)
    regions[0]['value']['rle'] = brush_code(np.ones((50, 50), bool))
    del regions[1]['image_rotation']
    assert 'is of 2500 pixels' in client.post('/webhook', json=body).json()['notes'][0]


def test_an_annotation_of_a_photo_that_is_gone(client, label_studio):
    client.post('/webhook', json=request_of('/webhook', CREATED))
    before = supports(client)
    del label_studio.files['/data/upload/2/53dadbd1-photo0.png']
    text = refused(client, '/webhook', request_of('/webhook', UPDATED), 404)
    assert 'any more' in text and supports(client) == before
    # its kept copy is a support as before, for what is still there
    answer = client.post('/predict', json=request_of('/predict'))
    good = [one for one in answer.json()['results'] if 'result' in one]
    assert answer.status_code == 200 and len(good) == 1
    assert [one for one in answer.json()['results'] if 'error' in one]


def test_two_projects_with_one_class_name(client):
    client.post('/webhook', json=request_of('/webhook', CREATED))
    other = request_of('/webhook', CREATED, 0)
    other['project']['id'] = 3
    client.post('/setup', json={**request_of('/setup'), 'project': '3.1795909293'})
    client.post('/webhook', json=other)
    other['action'], other['annotations'] = DELETED, [dict(id=other['annotation']['id'])]
    client.post('/webhook', json=other)
    projects = client.get('/').json()['projects']
    assert projects[PROJECT] == dict(cup=1, lamp=1)
    assert projects['label-studio-3-1795909293'] == {}


def test_labels_of_a_project_that_change(client):
    """A label that goes is not looked for any more; when it comes back, its supports are there."""
    client.post('/webhook', json=request_of('/webhook', CREATED))
    asked = request_of('/predict')
    whole = client.post('/predict', json=asked).json()
    less = {**asked, 'label_config': asked['label_config'].replace('value="lamp"', 'value="lamps"')}
    kinds = {r['type'] for one in client.post('/predict', json=less).json()['results']
             for r in one['result']}  # fmt: skip
    assert kinds == {'brushlabels'} and supports(client) == dict(cup=1, lamp=1)
    assert {r['type'] for one in whole['results'] for r in one['result']} >= kinds
    gone = {**asked, 'label_config': asked['label_config'].replace('"cup"', '"mug"')}
    gone['label_config'] = gone['label_config'].replace('value="lamp"', 'value="lamps"')
    text = refused(client, '/predict', gone, 400)
    assert 'marked: cup, lamp' in text
    back = client.post('/predict', json=asked).json()
    assert [one['score'] for one in back['results']] == [one['score'] for one in whole['results']]


def test_an_annotation_that_is_skipped_or_wiped_out_is_no_support(client):
    for change in (dict(was_cancelled=True), dict(result=[])):
        client.post('/webhook', json=request_of('/webhook', CREATED))
        assert supports(client) == dict(cup=1, lamp=1)
        body = request_of('/webhook', UPDATED)
        body['annotation'].update(change)
        assert client.post('/webhook', json=body).json()['supports'] == {}


# ---------------------------------------------------------------------------------- photos


def test_where_photos_are_fetched(new_service, label_studio):
    """With the token of the request, with a personal one, and not without."""
    created = request_of('/webhook', CREATED)
    assert new_service().post('/webhook', json=created).status_code == 403
    label_studio.tokens = ('Bearer short-lived',)
    assert new_service(key='a.b.c').post('/webhook', json=created).status_code == 200
    assert label_studio.asked[-2:] == ['/api/token/refresh', created['task']['data']['image']]
    assert new_service(key='x.y.z').post('/webhook', json=created).status_code == 403
    for address in (
        'http://10.0.0.1/a.png',
        'file:///etc/hostname',
        '//10.0.0.1/a.png',
        's3://b/a',
    ):
        created['task']['data']['image'] = address
        answer = new_service(key='a.b.c').post('/webhook', json=created)
        assert answer.status_code == 403 and '--image-host' in answer.json()['error']


@pytest.mark.parametrize('key', ['a.b.c', None])
def test_access_that_has_run_out_is_asked_for_anew(new_service, label_studio, key):
    """For photos and exports, with a token of the service or of the project."""
    created, client = request_of('/webhook', CREATED), new_service(key=key)
    client.post('/setup', json={**request_of('/setup'), 'access_token': 'a.b.c'})
    label_studio.files['/api/projects/2/export?exportType=JSON'] = json.dumps(
        [{**created['task'], 'annotations': [created['annotation']]}]
    ).encode()
    for number, body in enumerate((created, dict(created, action='START_TRAINING'), created)):
        label_studio.access = f'access-{number}'
        label_studio.tokens = (f'Bearer access-{number}',)
        assert client.post('/webhook', json=body).status_code == 200
    assert supports(client) == dict(cup=1, lamp=1)


def test_local_files_are_read_inside_their_folder_alone(new_service, tmp_path):
    root = tmp_path / 'photos'
    (root / 'a').mkdir(parents=True)
    (root / 'a' / 'one two.png').write_bytes(png(0))
    (tmp_path / 'secret.png').write_bytes(png(1))
    (root / 'link.png').symlink_to(tmp_path / 'secret.png')
    client = new_service(local_files=root)
    body = request_of('/webhook', CREATED)

    def keep(path: str) -> tuple[int, str]:
        body['task']['data']['image'] = f'/data/local-files/?d={path}'
        answer = client.post('/webhook', json=body)
        return answer.status_code, answer.json().get('error', '')

    assert keep('a/one%20two.png')[0] == 200
    for path in ('../secret.png', 'link.png', '/../secret.png', 'a/../../secret.png'):
        status, text = keep(path)
        assert status == 403 and 'outside the folder' in text
    assert keep('a/none.png')[0] == 404
    assert supports(client) == dict(cup=1, lamp=1)


def test_a_photo_that_is_too_large_or_none(new_service, label_studio):
    body = request_of('/webhook', CREATED)
    client = new_service(key=TOKEN, max_pixels=1000)
    assert '96 x 80 pixels' in client.post('/webhook', json=body).json()['error']
    label_studio.files[body['task']['data']['image']] = b'\0' * (2 * 2**20)
    client = new_service(key=TOKEN, max_upload_mb=1)
    assert 'more than 1 MB' in client.post('/webhook', json=body).json()['error']
    label_studio.files[body['task']['data']['image']] = b'no photo'
    assert 'not an image' in client.post('/webhook', json=body).json()['error']


def test_a_photo_that_exif_turns_is_marked_as_it_is_shown(new_service, label_studio):
    """The mask is of the upright photo, and so is what comes back."""
    body, asked = request_of('/webhook', CREATED), request_of('/predict')
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned = Image.fromarray(np.rot90(pixels(0)).copy())  # stored as 80 wide, 96 high
    label_studio_file = body['task']['data']['image']
    with open_bytes() as buffer:
        turned.save(buffer, 'PNG', exif=exif)
        label_studio.files[label_studio_file] = buffer.getvalue()
    client = new_service(key=TOKEN)
    assert client.post('/webhook', json=body).json()['kept']
    straight = png(0)
    found = client.post('/predict', json=asked).json()['results']
    label_studio.files[label_studio_file] = straight
    same = client.post('/predict', json=asked).json()['results']
    values = [[r['value'] for r in one['result']] for one in found]
    assert values == [[r['value'] for r in one['result']] for one in same]
    assert found[0]['result'][0]['original_width'] == 96


def open_bytes():
    import io

    return io.BytesIO()


# ---------------------------------------------------------------------------------- forms


CONFIG = """<View><Image name="img" value="$image"/>
<RectangleLabels name="r" toName="img"><Label value="a"/><Label value="b"/></RectangleLabels>
<PolygonLabels name="p" toName="img"><Label value="a"/></PolygonLabels>
<EllipseLabels name="e" toName="img"><Label value="c" alias="cc"/></EllipseLabels></View>"""


def test_what_a_class_is_drawn_with():
    config = LabelConfig.parse(CONFIG)
    assert config.images == dict(img='image') and set(config.controls) == {'a', 'b', 'cc'}
    assert (config.target('a').kind, config.target('b').kind) == (
        'polygonlabels',
        'rectanglelabels',
    )
    assert config.target('cc') is None and config.target('d') is None


def test_polygons_and_rectangles_of_a_prediction_cover_its_objects(worker):
    """Read back, polygons differ from the mask by less than a border of a pixel, boxes hold it."""
    inferencer = worker.new_inferencer()
    mask = box_mask()
    inferencer.set_support(dict(a=[(pixels(0), mask)], b=[(pixels(1), mask)]))
    found = inferencer(pixels(2))
    labels = np.zeros((80, 96), np.uint8)
    labels[10:40, 10:50], labels[20:30, 20:30] = 1, 0  # a hole
    labels[50:70, 60:90], labels[79, 95] = 2, 2  # and a pixel that is too small to count
    object.__setattr__(found, 'labels', labels)
    regions = regions_of(found, LabelConfig.parse(CONFIG))
    assert [r['type'] for r in regions] == ['polygonlabels', 'rectanglelabels']
    ring = np.array(regions[0]['value']['points']) * (0.96, 0.8)
    assert (filled([(ring,)], 80, 96) != (labels == 1)).sum() == 0
    box = regions[1]['value']
    assert (box['x'], box['y'], box['width'], box['height']) == pytest.approx(
        (100 * 60 / 96, 62.5, 100 * 30 / 96, 25.0)
    )
    assert all(0 <= r['score'] <= 1 for r in regions)


def test_a_mask_goes_before_prompts_and_boxes_turn(proposer):
    def propose(prompt):
        return proposer.propose(pixels(0), prompt)

    box = dict(type='rectanglelabels', to_name='img')
    box['value'] = dict(x=50, y=50, width=25, height=25, rotation=90, rectanglelabels=['a', 'b'])
    brush = dict(type='brushlabels', to_name='img')
    brush['value'] = dict(rle=brush_code(box_mask()), brushlabels=['a'])
    circle = dict(type='ellipselabels', to_name='img')
    circle['value'] = dict(x=50, y=50, radiusX=12.5, radiusY=15, ellipselabels=['cc'])
    choice = dict(type='choices', to_name='img', value=dict(choices=['yes']))
    marks = marks_of([box, brush, circle, choice], 'img', 96, 80)
    masks = marks.masks(propose)
    assert marks.notes == [] and (masks['a'] == box_mask()).all()
    # 24 x 20 pixels from (48, 40), turned by a quarter about that corner: to its left
    np.testing.assert_array_equal(masks['b'], mask_of(slice(28, 48), slice(40, 64)))
    assert masks['cc'].sum() == pytest.approx(np.pi * 12 * 12, rel=0.06)
    negative = dict(type='keypointlabels', value=dict(x=50, y=50, keypointlabels=['a']))
    negative['is_positive'] = 0
    marks = marks_of([negative], 'img', 96, 80)
    assert marks.masks(propose) == {} and 'a: the prompt gives' in marks.notes[0]
    assert proposer.prompts[-1].labels == (0,)


@pytest.mark.parametrize(
    ('kind', 'value', 'said'),
    [
        ('polygonlabels', dict(points=[[10**400, 0], [9, 0], [9, 9]]), 'too large'),
        ('ellipselabels', dict(x=5, y=5, radiusX=1e308, radiusY=5), 'reaches too far'),
        ('brushlabels', dict(rle=10**400), 'got a number'),
        ('brushlabels', dict(rle=[1], brushlabels=5), 'has no label'),
    ],
)
def test_numbers_that_no_program_draws_leave_out_their_region_alone(kind, value, said):
    good = dict(type='brushlabels', value=dict(rle=brush_code(box_mask()), brushlabels=['a']))
    marks = marks_of([dict(type=kind, value={kind: ['b'], **value}), good], 'img', 96, 80)
    assert said in marks.notes[0] and len(marks.notes) == 1
    assert list(marks.masks(lambda prompt: None)) == ['a']


def test_the_background_is_no_class():
    brush = dict(type='brushlabels', value=dict(rle=brush_code(box_mask())))
    brush['value']['brushlabels'] = ['cup', 'Background']
    marks = marks_of([brush], 'img', 96, 80)
    assert list(marks.masks(lambda prompt: None)) == ['cup']
    assert marks.notes == ["'Background' is what is no class, and needs no support: left out"]
