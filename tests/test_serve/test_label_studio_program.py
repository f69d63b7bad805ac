"""Label Studio itself, from PyPI, with the service and a browser; outside CI, as it is large::

    python3 -m venv studio && studio/bin/pip install label-studio
    MMFSS_LABEL_STUDIO=studio/bin/label-studio MMFSS_SCREENSHOTS=shots \
        pytest tests/test_serve/test_label_studio_program.py

Account and server by its command line; a project of generated photos, two annotations and a webhook
through its API, predictions for the others back through its API and in a browser.
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmfss.commands import prepare
from mmfss.regions import brush_mask
from mmfss.serve.label_studio_form import Control, drawn_regions

httpx = pytest.importorskip('httpx')

PROGRAM = os.environ.get('MMFSS_LABEL_STUDIO', '')
SHOTS = os.environ.get('MMFSS_SCREENSHOTS')
CHROMIUM, DRIVER = Path('/usr/bin/chromium'), Path('/usr/bin/chromedriver')
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not Path(PROGRAM).is_file(), reason='MMFSS_LABEL_STUDIO is no program'),
]
MAIL, PASSWORD, SECRET = 'me@example.com', 'a-long-password-17', 'a-secret'
CLASS, LOW = 'crescent', 200
LOADED = """return [...document.images]
    .filter(one => one.src.includes(arguments[0]) && one.naturalWidth)
    .map(one => [one.naturalWidth, one.naturalHeight])"""
CONFIG = f"""<View><Image name="img" value="$image" zoom="true"/>
<BrushLabels name="brush" toName="img"><Label value="{CLASS}" background="#00b050"/>
<Label value="other" background="#c00000"/></BrushLabels></View>"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], seconds: float = 180) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except (OSError, httpx.HTTPError):
            pass
        time.sleep(0.5)
    raise AssertionError(f'not within {seconds} s')


@pytest.fixture(scope='module')
def example(tmp_path_factory) -> Path:
    """Pictures with their labels, cut to 256 x 200."""
    root = tmp_path_factory.mktemp('example')
    prepare.main(['example', str(root), '--images', '12', '--image-size', '256'], 'prepare')
    for path in root.rglob('*.png'):
        with Image.open(path) as image:
            image.crop((0, 0, 256, LOW)).save(path)
    return root


class Studio:
    """A Label Studio, asked with a personal access token."""

    def __init__(self, url: str) -> None:
        self.url = url
        with httpx.Client(base_url=url, follow_redirects=True, timeout=60) as page:
            page.get('/user/login/')
            sign = dict(
                email=MAIL, password=PASSWORD, csrfmiddlewaretoken=page.cookies['csrftoken']
            )
            page.post('/user/login/', data=sign, headers={'Referer': url})
            head = {'X-CSRFToken': page.cookies['csrftoken'], 'Referer': url}
            self.token = page.post('/api/token/', headers=head).json()['token']
        access = httpx.post(f'{url}/api/token/refresh', json=dict(refresh=self.token))
        self.headers = {'Authorization': f'Bearer {access.json()["access"]}'}

    def ask(self, method: str, path: str, **content: object) -> object:
        options = dict(headers=self.headers, timeout=300)
        answer = httpx.request(method, f'{self.url}/api/{path}', **options, **content)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None


@pytest.fixture(scope='module')
def studio(tmp_path_factory) -> Iterator[Studio]:
    port, folder = free_port(), tmp_path_factory.mktemp('studio')
    environment = {
        **os.environ,
        'LABEL_STUDIO_BASE_DATA_DIR': str(folder),
        'COLLECT_ANALYTICS': 'false',
        'LATEST_VERSION_CHECK': 'false',
        'ML_BLOCK_LOCAL_IP': 'false',
        'SSRF_PROTECTION_ENABLED': 'false',
    }
    command = [PROGRAM, 'start', '--no-browser', '--port', str(port)]
    command += ['--username', MAIL, '--password', PASSWORD]
    log = folder / 'log.txt'
    with open(log, 'w') as out, subprocess.Popen(
        command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment
    ) as process:  # fmt: skip
        url = f'http://localhost:{port}'
        try:
            until(lambda: httpx.get(f'{url}/health').status_code == 200, 600)  # it migrates
            yield Studio(url)
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope='module')
def service(studio, tmp_path_factory) -> Iterator[str]:
    """Its address, with the token in it."""
    command = [sys.executable, '-m', 'mmfss', 'serve', '--port', '0', '--method', 'density_lite']
    command += ['--data', str(tmp_path_factory.mktemp('data')), '--label-studio', studio.url]
    environment = {**os.environ, 'MMFSS_TOKEN': SECRET, 'LABEL_STUDIO_API_KEY': studio.token}
    pipes = dict(stdout=subprocess.PIPE, text=True, env=environment)
    with subprocess.Popen(command, **pipes) as process:
        try:
            line = next(one for one in process.stdout if one.startswith('The service is at'))
            port = line.split()[4].rpartition(':')[2]
            yield f'http://mmfss:{SECRET}@127.0.0.1:{port}'
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope='module')
def project(studio, service, example) -> tuple[int, dict[str, int]]:
    """Number of a project that the service is connected to, and its tasks by their photos."""
    made = studio.ask('POST', 'projects', json=dict(title='shapes', label_config=CONFIG))
    number = made['id']
    marked = sorted((example / 'support' / CLASS / 'images').iterdir())
    for path in [*marked, *sorted((example / 'images').iterdir())]:
        name = f'{"marked" if path in marked else "photo"}{path.name}'
        data = path.read_bytes()
        if path.name == '00007.png' and path not in marked:
            data = turned(path)  # as a phone stores it
        studio.ask('POST', f'projects/{number}/import', files=dict(file=(name, data, 'image/png')))
    studio.ask('POST', 'ml', json=dict(project=number, url=service, title='mmfss'))
    hooks = studio.ask('GET', f'webhooks/?project={number}')
    assert [hook['url'] for hook in hooks] == [f'{service}/webhook']
    tasks = studio.ask('GET', f'tasks?project={number}&page_size=100')['tasks']
    return number, {task['data']['image'].rpartition('-')[2]: task['id'] for task in tasks}


def turned(path: Path) -> bytes:
    """The photo stored on its side, with the EXIF tag that turns it upright."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(buffer, 'PNG', exif=exif)
    return buffer.getvalue()


def annotate(studio, task: int, mask: np.ndarray) -> int:
    regions = drawn_regions(mask, CLASS, Control('brushlabels', 'brush', 'img'))
    return studio.ask('POST', f'tasks/{task}/annotations/', json=dict(result=regions))['id']


def supports(service: str) -> dict[str, int]:
    (found,) = httpx.get(service).json()['projects'].values()
    return found


def predicted(studio, project, names: list[str]) -> dict[str, dict]:
    """Predictions by the photo, after the action of the list of tasks."""
    number, tasks = project
    chosen = dict(all=False, included=[tasks[name] for name in names])
    action = f'dm/actions?id=retrieve_tasks_predictions&project={number}'
    studio.ask('POST', action, json=dict(selectedItems=chosen))
    there = studio.ask('GET', f'predictions/?project={number}')
    by_task = {one['task']: one for one in sorted(there, key=lambda one: one['id'])}
    return {name: by_task[tasks[name]] for name in names if tasks[name] in by_task}


def test_two_annotations_mark_the_rest(studio, service, project, example):
    _, tasks = project
    photos = sorted(name for name in tasks if name.startswith('photo'))
    made = []
    for name in sorted(name for name in tasks if name.startswith('marked')):
        mask = np.array(Image.open(example / 'support' / CLASS / 'masks' / name[6:]))
        made.append(annotate(studio, tasks[name], mask > 0))
        until(lambda: supports(service) == {CLASS: len(made)}, 30)
    assert len(made) == 2 and len(photos) == 12
    found = predicted(studio, project, photos)
    assert set(found) == set(photos)
    both = either = 0
    names = sorted(p.name for p in (example / 'support').iterdir())
    for name, one in found.items():
        truth = np.array(Image.open(example / 'masks' / name[5:])) == names.index(CLASS) + 1
        mask = np.zeros(truth.shape, bool)
        for region in one['result']:
            assert (region['original_width'], region['original_height']) == (256, LOW)
            mask |= brush_mask(region['value']['rle'], LOW, 256)
        both, either = both + (mask & truth).sum(), either + (mask | truth).sum()
        assert 0 <= one['score'] <= 1 and one['model_version'].startswith('density_lite ')
    print(f'IoU of {CLASS} in 12 photos after 2 annotations: {both / either:.2f}')
    assert both / either > 0.3  # all foreground: 0.1
    # a support more, and one less, are other predictions
    again = annotate(studio, tasks[photos[0]], truth_of(example, photos[0], names))
    until(lambda: supports(service) == {CLASS: 3}, 30)
    later = predicted(studio, project, photos[1:2])[photos[1]]
    assert later['model_version'] != found[photos[1]]['model_version']
    studio.ask('DELETE', f'annotations/{again}/')
    until(lambda: supports(service) == {CLASS: 2}, 30)


def truth_of(example: Path, name: str, names: list[str]) -> np.ndarray:
    labels = np.array(Image.open(example / 'masks' / name[5:]))
    mask = labels == names.index(CLASS) + 1
    return mask if mask.any() else labels > 0


@pytest.mark.skipif(
    find_spec('selenium') is None or not (CHROMIUM.exists() and DRIVER.exists()),
    reason='no selenium, or no Chromium and its driver',
)
def test_predictions_are_shown_in_a_browser(studio, project, tmp_path):
    """After the test above. The pictures are to be looked at: the mask lies on the crescent, in the
    photo that EXIF turns too."""
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    number, tasks = project
    folder = Path(SHOTS or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ('headless=new', 'no-sandbox', 'disable-dev-shm-usage', 'window-size=1500,1000'):
        options.add_argument(f'--{flag}')
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    try:
        driver.get(f'{studio.url}/user/login/')
        driver.find_element(By.NAME, 'email').send_keys(MAIL)
        driver.find_element(By.NAME, 'password').send_keys(PASSWORD)
        driver.find_element(By.NAME, 'password').submit()
        until(lambda: 'login' not in driver.current_url, 60)
        for name in ('photo00007.png', 'photo00005.png'):
            driver.get(f'{studio.url}/projects/{number}/data?task={tasks[name]}')

            def shown() -> bool:
                text = driver.find_element(By.TAG_NAME, 'body').text
                return f'\n{CLASS}\n' in text and 'density_' in text  # the prediction's tab

            try:
                until(shown, 90)
                sizes = until(lambda name=name: driver.execute_script(LOADED, name[:-4]), 60)
                assert all(size == [256, LOW] for size in sizes)  # upright
                time.sleep(5)  # it is painted
            finally:
                driver.save_screenshot(str(folder / f'label_studio_{name}'))
    finally:
        driver.quit()
