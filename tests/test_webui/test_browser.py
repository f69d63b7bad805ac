"""The page in a real browser: Debian's chromium, without a window."""

from __future__ import annotations

import io
import json
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from mmseg.registry import MODELS
from PIL import Image
from tiny_models import METHODS
from webui_steps import BoxProposer, pixels

from mmfss.apis import FewShotInferencer
from mmfss.commands.webui import launch, make_page
from mmfss.datasets.preparation.example import Example
from mmfss.webui import example
from mmfss.webui.export import OFFERED
from mmfss.webui.folders import kept_folder
from mmfss.webui.limits import Limits
from mmfss.webui.worker import ModelChoice, Models, ModelWorker

CHROMIUM, DRIVER = Path('/usr/bin/chromium'), Path('/usr/bin/chromedriver')
_MISSING = [name for name in ('selenium', 'gradio') if find_spec(name) is None]
_MISSING += [str(path) for path in (CHROMIUM, DRIVER) if not path.exists()]
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=f'not installed: {", ".join(_MISSING)}')
PATIENCE_S = 40


@pytest.fixture(scope='module')
def proposals() -> BoxProposer:
    return BoxProposer()


class Server:
    """The page of the tiny model, at one port, whose sessions stay."""

    def __init__(self, models: Models, root: Path, kept: Path) -> None:
        self.models, self.root, self.kept, self.port = models, root, kept, 0
        self.start()

    def start(self) -> None:
        self.page = make_page(self.models, Limits(max_upload_mb=1), self.root, self.kept)
        self.address = launch(self.page, '127.0.0.1', self.port, block=False)
        self.port = urlsplit(self.address).port

    def stop(self) -> None:
        self.page.blocks.close(verbose=False)


@pytest.fixture(scope='module')
def server(tiny_model, proposals, tmp_path_factory) -> Iterator[Server]:
    worker = ModelWorker(FewShotInferencer(tiny_model, threshold=0.3), proposals)
    models = Models(worker, ('prototype',))
    matcher = MODELS.build(dict(METHODS['PrototypeMatcher'], image_size=80)).eval()
    choice = ModelChoice(method='prototype')
    models._made['prototype'] = ModelWorker(
        FewShotInferencer(matcher, threshold=0.4), proposals, choice
    )
    folder = tmp_path_factory.mktemp('page')
    with pytest.MonkeyPatch.context() as patch, kept_folder(folder / 'kept') as kept:
        patch.setenv('GRADIO_TEMP_DIR', '')
        patch.setenv('GRADIO_ANALYTICS_ENABLED', 'False')
        patch.setattr(example, 'EXAMPLE', Example(images=3, image_size=48))
        running = Server(models, folder, kept)
        yield running
        running.stop()
        models.close()


@pytest.fixture(scope='module')
def chromium():
    """A browser without a window."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    flags = ('headless=new', 'no-sandbox', 'disable-dev-shm-usage', 'window-size=1366,900')
    for flag in (*flags, 'enable-unsafe-swiftshader'):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'performance': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


class Visitor:
    """Somebody at the page, in a window of their own, whom the page has not seen before."""

    def __init__(self, driver, address: str, size: tuple[int, int] = (1366, 900)) -> None:
        self.driver = driver
        driver.switch_to.new_window('window')
        self.window = driver.current_window_handle
        width, height = size
        metrics = dict(width=width, height=height, deviceScaleFactor=1, mobile=False)
        driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
        driver.execute_cdp_cmd('Network.clearBrowserCookies', {})
        driver.get(address)
        self.until(lambda: 'Nothing marked yet' in self.text('#summary'))
        self.cookies = driver.get_cookies()

    def back(self) -> None:
        """To the window of this visitor, whose cookie the next one's has replaced."""
        self.driver.switch_to.window(self.window)
        self.driver.execute_cdp_cmd('Network.clearBrowserCookies', {})
        for cookie in self.cookies:
            self.driver.add_cookie(cookie)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait; elements come and go while the page changes."""
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait

        ignored = [WebDriverException]
        WebDriverWait(self.driver, PATIENCE_S, 0.1, ignored).until(lambda _: condition())

    def comes(self, condition: Callable[[], object], seconds: float) -> bool:
        """Whether something happens in time."""
        from selenium.common.exceptions import TimeoutException, WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait

        try:
            wait = WebDriverWait(self.driver, seconds, 0.1, [WebDriverException])
            return bool(wait.until(lambda _: condition()))
        except TimeoutException:
            return False

    def all(self, selector: str) -> list:
        return self.driver.find_elements('css selector', selector)

    def one(self, selector: str):
        self.until(lambda: self.all(selector))
        return self.all(selector)[0]

    def text(self, selector: str) -> str:
        return ' '.join(element.text for element in self.all(selector))

    def press(self, selector: str, text: str = '') -> None:
        """Click the first visible element with a text, as soon as nothing covers it."""

        def done() -> bool:
            found = [e for e in self.all(selector) if text in e.text and e.is_displayed()]
            if found:
                found[0].click()
            return bool(found)

        self.until(done)

    def load(self, selector: str, *files: Path) -> None:
        """Choose files in an upload field."""
        self.one(f'{selector} input[type=file]').send_keys('\n'.join(map(str, files)))

    def write(self, selector: str, text: str) -> None:
        from selenium.webdriver.common.keys import Keys

        self.one(selector).send_keys(Keys.CONTROL, 'a')
        self.one(selector).send_keys(text, Keys.ENTER)

    def key(self, *keys: str) -> None:
        """Press keys where no field is being written in."""
        from selenium.webdriver.common.action_chains import ActionChains

        self.driver.execute_script('document.activeElement.blur()')
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def draw(self, canvas: str, *places: tuple[float, float]) -> None:
        """Press at the first place of a canvas's picture, go to the others, let go; places are
        shares of its width and height."""
        from selenium.webdriver.common.action_chains import ActionChains

        picture = self.one(f'{canvas} .cv-picture')
        self.until(lambda: self.js('return arguments[0].naturalWidth', picture))
        self.js('arguments[0].scrollIntoView({block: "center"})', picture)
        width, height = picture.size['width'], picture.size['height']
        at = [(round((x - 0.5) * width), round((y - 0.5) * height)) for x, y in places]
        chain = ActionChains(self.driver, duration=30)
        chain.move_to_element_with_offset(picture, *at[0]).click_and_hold()
        for place in at[1:]:
            chain.move_to_element_with_offset(picture, *place)
        chain.release().perform()

    def js(self, script: str, *arguments: object):
        return self.driver.execute_script(script, *arguments)

    def tab(self, number: int) -> None:
        self.press('button[role=tab]', f'{number} ')

    def in_sight(self, selector: str) -> bool:
        """Whether all of an element is in the window."""
        script = (
            'const b = arguments[0].getBoundingClientRect();'
            'return b.top >= -1 && b.bottom <= window.innerHeight + 1 && b.height > 20'
        )
        return bool(self.js(script, self.one(selector)))

    def shown(self) -> str:
        """Name of the opened result."""
        found = self.all('#result-title b')
        return found[0].text if found else ''

    def links(self) -> dict[str, bytes]:
        """What can be downloaded: name -> content."""
        self.until(lambda: self.all('#files a[href]'))
        cookie = '; '.join(f'{one["name"]}={one["value"]}' for one in self.driver.get_cookies())
        found = {}
        for link in self.all('#files a[href]'):
            address = link.get_attribute('href')
            request = urllib.request.Request(address, headers={'Cookie': cookie})
            with urllib.request.urlopen(request) as answer:
                found[address.rsplit('/', 1)[-1]] = answer.read()
        return found


@pytest.fixture
def visit(chromium, server) -> Callable[..., Visitor]:
    return lambda *size: Visitor(chromium, server.address, *size)


def saved(folder: Path, name: str, seed: int) -> Path:
    Image.fromarray(pixels(seed)).save(folder / name)
    return folder / name


def test_from_marked_images_to_masks(visit, proposals, tiny_model, tmp_path, chromium, server):
    one = visit()
    supports = [saved(tmp_path, f's{i}.png', i) for i in range(2)]
    broken = tmp_path / 'notes.png'
    broken.write_text('no image')
    one.load('#photo-files', broken, *supports)
    one.until(lambda: 'notes.png is not an image' in one.text('body'))
    one.until(lambda: 'Image 1 of 2: s0.png' in one.text('#title'))

    corners = (30.5 / 96, 20.5 / 80), (59.5 / 96, 49.5 / 80)
    for i, name in enumerate(('cup', '<b>cat</b>')):
        one.until(lambda i=i: f'Image {i + 1} of 2: s{i}.png' in one.text('#title'))
        one.write('#class-name input', name)
        if i == 0:  # dragged, then by two clicks
            one.draw('#canvas', *corners)
        else:
            one.draw('#canvas', corners[0])
            one.until(lambda: len(one.all('#canvas .cv-corner')) == 1)
            one.draw('#canvas', corners[1])
        one.until(lambda: len(one.all('#canvas .cv-corner')) == 2)
        assert np.abs(np.array(proposals.prompts[-1].box) - (30, 20, 60, 50)).max() <= 1
        assert len(one.all('#shots img')) == i  # shown, not yet used
        if i == 0:
            one.press('#use')
        else:
            one.key('\ue007')  # Enter
        one.until(lambda name=name: f'{name}: 1' in one.text('#summary'))
    one.until(lambda: len(one.all('#shots img')) == 2)
    assert not one.one('#negative input').is_enabled()
    assert 'FSSAM takes no negatives' in one.text('#negative')
    one.one('#class-name input').click()
    one.until(lambda: 'cup' in one.text('[role=option]'))
    assert '<b>cat</b>' in one.text('[role=option]')

    one.tab(2)
    queries = [saved(tmp_path, f'q{i}.png', 10 + i) for i in range(2)]
    one.load('#query-files', queries[0], broken, queries[1])
    one.until(lambda: 'of 2, best score' in one.text('#found'))
    assert '<b>cat</b>' in one.text('#found')
    one.write('#threshold input[type=number]', '1')
    one.until(lambda: 'cup: in 0 of 2' in one.text('#found'))
    one.until(lambda: 'q1.png: nothing' in one.text('#results'))
    one.write('#threshold input[type=number]', '0')
    one.press('#score-part button')
    one.until(lambda: len(one.all('#scores td.there')) == 4)
    assert len(one.all('#result-title .swatch')) == 2  # the legend

    other = visit()  # at the same time: nothing of the first one's
    assert not other.all('#photos img') and not other.all('#scores td')
    other.load('#photo-files', saved(tmp_path, 'mine.png', 5))
    other.until(lambda: 'Image 1 of 1: mine.png' in other.text('#title'))
    one.back()
    one.tab(3)
    one.until(lambda: len(one.all('#files a[href]')) == 3)
    files = one.links()
    assert sorted(files) == ['masks.zip', 'scores.csv', 'support.safetensors']
    one.until(lambda: '--threshold 0' in one.text('#command'))
    check_masks(files['masks.zip'], tiny_model, proposals)

    messages = [
        json.loads(entry['message'])['message'] for entry in chromium.get_log('performance')
    ]
    asked = {
        message['params']['request']['url']
        for message in messages
        if message['method'] == 'Network.requestWillBeSent'
    }
    known = (server.address, 'data:', 'blob:', 'chrome:')
    elsewhere = [u for u in asked if not u.startswith(known)]
    assert asked and not elsewhere


def check_masks(archive: bytes, model, proposals: BoxProposer) -> None:
    """The masks that came down are those of the inferencer, given the same prompts."""
    direct = FewShotInferencer(model, threshold=0)
    direct.set_support(
        {
            f'class {i}': [(image, proposals.propose(image, proposals.prompts[i]))]
            for i, image in enumerate(pixels(seed)[..., ::-1] for seed in range(2))
        }
    )
    with zipfile.ZipFile(io.BytesIO(archive)) as masks:
        for i in range(2):
            mask = np.array(Image.open(masks.open(f'ann_dir/q{i}.png')))
            np.testing.assert_array_equal(mask, direct(pixels(10 + i)[..., ::-1]).labels)


def marked(one: Visitor, folder: Path, *names: str) -> None:
    """Photos with an object of each class, by dragged boxes."""
    one.load('#photo-files', *(saved(folder, f's{i}.png', i) for i in range(len(names))))
    for i, name in enumerate(names):
        one.until(lambda i=i: f'Image {i + 1} of {len(names)}: s{i}.png' in one.text('#title'))
        one.write('#class-name input', name)
        one.draw('#canvas', (30.5 / 96, 20.5 / 80), (59.5 / 96, 49.5 / 80))
        one.until(lambda: len(one.all('#canvas .cv-corner')) == 2)
        one.press('#use')
        one.until(lambda i=i: len(one.all('#shots img')) == i + 1)


def test_results_are_opened_judged_corrected_and_used(visit, tmp_path, server):
    one = visit()
    marked(one, tmp_path, 'cup', 'cat')
    one.tab(2)
    one.load('#query-files', *(saved(tmp_path, f'q{i}.png', 10 + i) for i in range(4)))
    one.until(lambda: len(one.all('#results .thumbnail-item')) == 4 and one.shown())
    one.write('#threshold input[type=number]', '0')
    one.until(lambda: 'cup: in ' in one.text('#found') and 'q' in one.shown())
    one.press('#score-part button')
    one.until(lambda: len(one.all('#scores td.there')) == 8)
    listed = [e.get_attribute('textContent') for e in one.all('#results .caption-label')]
    sure = [int(text.split(' %')[0]) for text in listed]
    assert sure == sorted(sure) and one.shown() in listed[0]

    # a result opens where it can be seen, and the threshold stays in sight
    for place in (3, 1):
        one.all('#results .thumbnail-item')[place].click()
        one.until(lambda place=place: one.shown() and one.shown() in listed[place])
        one.until(lambda: one.in_sight('#result .cv-view'))
        assert one.in_sight('#threshold')
    assert one.js('return document.documentElement.scrollHeight') < 2200

    # verdicts, by buttons and by keys
    second, third = one.shown(), listed[2]
    one.press('#accept')
    one.until(lambda: one.shown() and one.shown() in third)
    one.until(lambda: '1 accepted' in one.text('#found'))
    one.key('r')
    one.until(lambda: '1 rejected' in one.text('#found'))
    one.press('#previous')
    one.until(lambda: one.shown() and one.shown() in third)
    assert 'rejected' in one.text('#result-title')
    one.key('u')
    one.until(lambda: 'rejected' not in one.text('#found'))
    one.key('\ue012')  # the left arrow
    one.until(lambda: one.shown() == second)
    one.press('#next')
    one.until(lambda: one.shown() in third)

    # a correction with the brush and the eraser, and it becomes an example
    one.js('window.scrollTo(0, document.documentElement.scrollHeight)')
    one.key('c')
    one.until(lambda: one.in_sight('#correction .cv-view'))
    one.press('#cancel')
    one.until(lambda: one.in_sight('#result .cv-view'))
    one.press('#correct')
    one.until(lambda: one.all('#correction .cv-picture') and one.in_sight('#correction .cv-view'))
    one.draw('#correction', (0.1, 0.1), (0.1, 0.9), (0.2, 0.9))
    one.press('#correction [data-tool=eraser]')
    one.draw('#correction', (0.9, 0.2), (0.9, 0.8))
    one.key('\ue007')
    one.until(lambda: '1 corrected' in one.text('#found'))
    session = next(
        each for each in server.page.visitors._sessions.values()
        if any(query.verdict == 'corrected' for query in each.queries)
    )  # fmt: skip
    query = next(query for query in session.queries if query.verdict == 'corrected')
    label = 1 + query.kept.classes.index(one.one('#of-class input').get_attribute('value'))
    labels = query.whole().labels
    height, width = labels.shape
    assert labels[height // 2, width // 10] == label != labels[height // 2, width * 9 // 10]
    one.press('#example')
    one.until(lambda: 'of earlier examples: press Label' in one.text('#result-title'))
    assert len(session.supports) == 3 and session.supports.shots[-1].photo.name == query.name
    assert not one.one('#not-it').is_enabled()  # of a method that takes none

    # a reload, and then another start of the page, go on from there
    for again in (lambda: None, lambda: (server.stop(), server.start())):
        again()
        one.driver.get(server.address)
        one.until(lambda: len(one.all('#shots img')) == 3)
        one.tab(2)
        one.until(
            lambda: '✎ 1 corrected' in one.text('#found') and '1 accepted' in one.text('#found')
        )
        assert (
            one.shown() == query.name and one.one('#threshold input').get_attribute('value') == '0'
        )
    one.press('#label')
    one.until(lambda: 'not labelled yet' not in one.text('#found'))

    # all forms of labels, without what was rejected
    one.key('r')
    one.until(lambda: '1 rejected' in one.text('#found'))
    one.tab(3)
    for box in one.all('#formats label'):
        if not box.find_element('css selector', 'input').is_selected():
            box.click()
    one.until(lambda: len(one.all('#files a[href]')) == 2 + len(OFFERED))
    files = one.links()
    assert len(zipfile.ZipFile(io.BytesIO(files['masks.zip'])).namelist()) == 4
    assert len(json.loads(files['annotations.json'])['images']) == 3

    one.js('window.confirm = () => false')
    one.press('#anew')
    one.js('window.confirm = () => true')
    one.press('#anew')
    one.until(lambda: not one.all('#files a[href]'))
    one.tab(1)
    one.until(lambda: 'Nothing marked yet' in one.text('#summary') and one.all('#try'))
    assert not session.folder.path.exists()


def test_a_phone(visit, tmp_path):
    """What cannot be used is said, and the same page goes on; everything has room."""
    one = visit((390, 844))
    large = tmp_path / 'large.png'
    large.write_bytes(bytes(2**20 + 1))
    one.load('#photo-files', large)
    one.until(lambda: 'exceed the maximum allowed size' in one.text('body'))
    one.press('#try')
    one.until(lambda: 'star: 2' in one.text('#summary'))
    one.until(lambda: not one.all('#try'))
    one.press('#photos .thumbnail-item')
    one.until(lambda: 'Image 1 of 6' in one.text('#title'))
    one.write('#class-name input', 'cup')
    one.press('#use')
    one.until(lambda: 'there is no mask yet' in one.text('body'))
    one.press('#canvas [data-tool=brush]')
    one.js('arguments[0].value = 40', one.one('#canvas .cv-size'))
    one.draw('#canvas', (0.3, 0.3), (0.3, 0.5), (0.6, 0.5))
    painted = "return arguments[0].getContext('2d').getImageData(0, 0, 48, 48).data"
    count = f'{painted}.reduce((sum, value, i) => sum + (i % 4 === 3 && value > 127), 0)'
    layer = one.one('#canvas .cv-mask')
    first = one.js(count, layer)
    assert 100 < first < 1500
    one.draw('#canvas', (0.8, 0.8))  # a dot
    assert one.js(count, layer) > first
    one.press('#canvas [data-action=undo]')
    one.until(lambda: one.js(count, layer) == first)
    wide = one.one('#canvas .cv-picture').size['width']
    one.press('#canvas [data-action=in]')
    assert abs(one.one('#canvas .cv-picture').size['width'] - 1.5 * wide) <= 2
    assert one.text('#canvas .cv-percent') == '150 %'
    one.press('#canvas [data-action=fit]')
    one.press('#use')
    one.until(lambda: 'cup: 1' in one.text('#summary'))
    room = 'return document.documentElement.scrollWidth <= window.innerWidth'
    assert one.js(room)
    one.tab(2)
    one.press('#label')
    one.until(lambda: 'not labelled yet' not in one.text('#found') and one.shown())
    assert one.js(room)
    listed = [e.get_attribute('textContent') for e in one.all('#results .caption-label')]
    last = one.all('#results .thumbnail-item')[-1]
    one.js('arguments[0].scrollIntoView()', last)
    last.click()
    one.until(lambda: one.shown() and one.shown() in listed[-1])
    one.until(lambda: one.in_sight('#result .cv-view'))
    assert one.in_sight('#threshold')
    one.tab(3)
    one.until(lambda: one.all('#files a[href]'))
    assert one.js(room)


def test_the_self_check_and_another_method(visit, tmp_path):
    one = visit()
    marked(one, tmp_path, 'cup', 'cup', 'pen')
    one.press('#check')
    one.until(lambda: len(one.all('#check-result tbody tr')) == 2)
    assert 'cup 2' in one.text('#check-result') and 'Mark a second photo' in one.text(
        '#check-result'
    )
    one.tab(2)
    one.load('#query-files', saved(tmp_path, 'q.png', 10))
    one.until(lambda: 'of 1, best score' in one.text('#found'))
    one.tab(1)
    one.press('#method input')
    one.press('#method [role=option], [role=option]', 'prototype')
    one.until(lambda: not one.all('#check-result tbody tr'))
    one.press('#check')
    one.until(lambda: len(one.all('#check-result tbody tr')) == 2)
    # a method that takes negatives
    one.until(lambda: one.one('#negative input').is_enabled())
    one.press('#photos .thumbnail-item')
    one.write('#class-name input', 'cup')
    one.press('#negative label')
    one.draw('#canvas', (0.02, 0.02), (0.2, 0.2))
    one.until(lambda: len(one.all('#canvas .cv-corner')) == 2)
    one.press('#use')
    one.until(lambda: 'not: 1' in one.text('#summary'))
    one.tab(2)
    one.until(lambda: '1 of 1 not labelled yet' in one.text('#found'))
    one.press('#label')
    one.until(lambda: 'not labelled yet' not in one.text('#found') and one.shown())
    one.write('#threshold input[type=number]', '0')
    one.until(lambda: 'in 1 of 1' in one.text('#found'))  # of one class or the other
    one.press('#not-it')
    one.until(lambda: 'It is an example of not' in one.text('body'))
    one.tab(3)
    one.until(lambda: '--method prototype' in one.text('#command'))
