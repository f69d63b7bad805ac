"""The page in a real browser: Debian's chromium, without a window."""

from __future__ import annotations

import io
import json
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from mmseg.registry import MODELS
from PIL import Image
from tiny_models import METHODS
from webui_steps import BoxProposer, pixels

from mmfss.apis import FewShotInferencer
from mmfss.commands.webui import launch, make_page
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


@pytest.fixture(scope='module')
def address(tiny_model, proposals, tmp_path_factory) -> Iterator[str]:
    """The page of the tiny model, at a free port."""
    root = tmp_path_factory.mktemp('page')
    worker = ModelWorker(FewShotInferencer(tiny_model, threshold=0.3), proposals)
    models = Models(worker, ('prototype',))
    matcher = MODELS.build(dict(METHODS['PrototypeMatcher'], image_size=80)).eval()
    choice = ModelChoice(method='prototype')
    models._made['prototype'] = ModelWorker(
        FewShotInferencer(matcher, threshold=0.4), proposals, choice
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('GRADIO_TEMP_DIR', '')
        patch.setenv('GRADIO_ANALYTICS_ENABLED', 'False')
        page = make_page(worker, Limits(max_upload_mb=1), root, models)
        yield launch(page, '127.0.0.1', 0, block=False)
        page.blocks.close(verbose=False)
        models.close()


@pytest.fixture(scope='module')
def chromium():
    """A browser without a window."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    flags = ('headless=new', 'no-sandbox', 'disable-dev-shm-usage', 'window-size=1280,1200')
    for flag in (*flags, 'enable-unsafe-swiftshader'):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'performance': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


class Visitor:
    """Somebody at the page, in a window of their own."""

    def __init__(self, driver, address: str) -> None:
        self.driver = driver
        driver.switch_to.new_window('window')
        self.window = driver.current_window_handle
        driver.get(address)
        self.until(lambda: 'Nothing marked yet' in self.text('#summary'))

    def back(self) -> None:
        self.driver.switch_to.window(self.window)

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

    def click_image(self, x: float, y: float) -> None:
        """Click the shown image at a share (x, y) of its width and height, and see it change."""
        from selenium.webdriver.common.action_chains import ActionChains

        image = self.one('#clickable img')
        self.until(lambda: self.driver.execute_script('return arguments[0].naturalWidth', image))
        before = image.get_attribute('src')
        script = (
            'const i = arguments[0]; i.scrollIntoView({block: "center"});'
            'const s = Math.min(i.clientWidth / i.naturalWidth, i.clientHeight / i.naturalHeight);'
            'return [i.naturalWidth * s, i.naturalHeight * s]'
        )
        width, height = self.driver.execute_script(script, image)
        at = (round((x - 0.5) * width), round((y - 0.5) * height))
        ActionChains(self.driver).move_to_element_with_offset(image, *at).click().perform()
        self.until(lambda: self.one('#clickable img').get_attribute('src') != before)

    def links(self) -> dict[str, bytes]:
        """What can be downloaded: name -> content."""
        self.until(lambda: len(self.all('#files a[href]')) == 3)
        cookie = '; '.join(f'{one["name"]}={one["value"]}' for one in self.driver.get_cookies())
        found = {}
        for link in self.all('#files a[href]'):
            address = link.get_attribute('href')
            request = urllib.request.Request(address, headers={'Cookie': cookie})
            with urllib.request.urlopen(request) as answer:
                found[address.rsplit('/', 1)[-1]] = answer.read()
        return found


@pytest.fixture
def visit(chromium, address) -> Callable[[], Visitor]:
    return lambda: Visitor(chromium, address)


def saved(folder: Path, name: str, seed: int) -> Path:
    Image.fromarray(pixels(seed)).save(folder / name)
    return folder / name


def test_from_marked_images_to_masks(visit, proposals, tiny_model, tmp_path, chromium, address):
    one = visit()
    supports = [saved(tmp_path, f's{i}.png', i) for i in range(2)]
    broken = tmp_path / 'notes.png'
    broken.write_text('no image')
    one.load('#photo-files', broken, *supports)
    one.until(lambda: 'notes.png is not an image' in one.text('body'))
    one.until(lambda: 'Image 1 of 2: s0.png' in one.text('#title'))

    for i, name in enumerate(('cup', '<b>cat</b>')):
        one.until(lambda i=i: f'Image {i + 1} of 2: s{i}.png' in one.text('#title'))
        one.write('#class-name textarea, #class-name input', name)
        one.click_image(30.5 / 96, 20.5 / 80)
        one.click_image(59.5 / 96, 49.5 / 80)
        assert np.abs(np.array(proposals.prompts[-1].box) - (30, 20, 60, 50)).max() <= 1
        assert len(one.all('#shots img')) == i  # shown, not yet used
        one.press('#use')
        one.until(lambda name=name: f'{name}: 1' in one.text('#summary'))
    one.until(lambda: len(one.all('#shots img')) == 2)
    one.press('#negative label')
    one.until(lambda: one.one('#negative input').is_selected())
    one.press('#use')  # of a method that takes no negatives
    one.until(lambda: 'FSSAM takes no negatives' in one.text('body'))
    one.press('#negative label')
    one.until(lambda: not one.one('#negative input').is_selected())

    one.press('button[role=tab]', '2 Label')
    queries = [saved(tmp_path, f'q{i}.png', 10 + i) for i in range(2)]
    one.load('#query-files', queries[0], broken, queries[1])
    one.until(lambda: len(one.all('#scores tbody tr')) == 2)
    assert '<b>cat</b>' in one.text('#scores thead')
    one.write('#threshold input[type=number]', '1')
    one.until(lambda: len(one.all('#scores td.absent')) == 4)
    one.until(lambda: 'q1.png: nothing' in one.text('#results'))
    one.write('#threshold input[type=number]', '0')
    one.until(lambda: len(one.all('#scores td.there')) == 4)

    other = visit()  # at the same time: nothing of the first one's
    assert not other.all('#photos img') and not other.all('#scores td')
    other.load('#photo-files', saved(tmp_path, 'mine.png', 5))
    other.until(lambda: 'Image 1 of 1: mine.png' in other.text('#title'))
    one.back()
    one.press('button[role=tab]', '3 Take away')
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
    elsewhere = [u for u in asked if not u.startswith((address, 'data:', 'blob:', 'chrome:'))]
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


def test_a_large_file_an_empty_mask_and_the_brush(visit, tmp_path):
    """What cannot be used is said, and the same page goes on."""
    from selenium.webdriver.common.action_chains import ActionChains

    one = visit()
    large = tmp_path / 'large.png'
    large.write_bytes(bytes(2**20 + 1))
    one.load('#photo-files', large)
    one.until(lambda: 'exceed the maximum allowed size' in one.text('body'))
    one.load('#photo-files', saved(tmp_path, 'paint.png', 3))
    one.until(lambda: 'Image 1 of 1: paint.png' in one.text('#title'))
    one.write('#class-name textarea, #class-name input', 'cup')
    one.press('#tool label', 'Brush')
    one.until(lambda: one.one('#editor canvas').is_displayed())
    one.press('#use')
    one.until(lambda: 'nothing is painted yet' in one.text('body'))

    def painted() -> bool:
        """Without a graphics card the editor may not be ready for a stroke: then once more."""
        canvas = one.one('#editor canvas')
        one.driver.execute_script('arguments[0].scrollIntoView({block: "center"})', canvas)
        stroke = ActionChains(one.driver, duration=50).move_to_element(canvas).click_and_hold()
        for step in ((-40, 0), (0, 30), (40, 0)):
            stroke.move_by_offset(*step)
        stroke.release().perform()
        one.press('#use')
        return one.comes(lambda: 'cup: 1' in one.text('#summary'), seconds=10)

    one.until(painted)
    one.until(lambda: len(one.all('#shots img')) == 1)


def test_the_self_check_and_another_method(visit, tmp_path):
    one = visit()
    one.load('#photo-files', *(saved(tmp_path, f's{i}.png', i) for i in range(3)))
    for i, name in enumerate(('cup', 'cup', 'pen')):
        one.until(lambda i=i: f'Image {i + 1} of 3: s{i}.png' in one.text('#title'))
        one.write('#class-name textarea, #class-name input', name)
        one.click_image(30.5 / 96, 20.5 / 80)
        one.click_image(59.5 / 96, 49.5 / 80)
        one.press('#use')
        one.until(lambda i=i: len(one.all('#shots img')) == i + 1)
    one.press('#check')
    one.until(lambda: len(one.all('#check-result tbody tr')) == 2)
    assert 'cup 2' in one.text('#check-result') and 'Mark a second photo' in one.text(
        '#check-result'
    )
    one.press('button[role=tab]', '2 Label')
    one.load('#query-files', saved(tmp_path, 'q.png', 10))
    one.until(lambda: len(one.all('#scores tbody tr')) == 1)
    one.press('button[role=tab]', '1 Show')
    one.press('#method input')
    one.press('#method [role=option], [role=option]', 'prototype')
    one.until(lambda: not one.all('#check-result tbody tr'))
    one.press('#check')
    one.until(lambda: len(one.all('#check-result tbody tr')) == 2)
    one.press('button[role=tab]', '2 Label')
    one.until(lambda: '1 of 1 not labelled yet' in one.text('#scores'))
    one.press('#label')
    one.until(lambda: len(one.all('#scores tbody tr')) == 1)
    one.press('button[role=tab]', '3 Take away')
    one.until(lambda: '--method prototype' in one.text('#command'))
