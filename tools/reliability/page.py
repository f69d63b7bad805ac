"""Trials of the page: hostile headers, files of others, kills, visits, exports."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from mmfss.apis import FewShotInferencer
from mmfss.webui.export import export
from mmfss.webui.folders import VisitorFolder
from mmfss.webui.limits import Limits
from mmfss.webui.session import Session
from mmfss.webui.worker import ModelWorker
from reliability.running import Bad
from reliability.tiny import write_tiny
from reliability.visits import Visitor, photo, visits

TOOLS = Path(__file__).resolve().parents[1]
_FOREIGN = ('evil.test', 'evil.test:80', '127.0.0.1.evil.test', 'localhost.evil.test', '', '[::1',
            '10.0.0.1', '127.0.0.1@evil.test', 'evil.test#127.0.0.1', '0.0.0.0')  # fmt: skip
_NAMES = ('a.jpg', 'A.jpg', 'a.png', 'a_2.jpg', 'a..jpg', 'con.jpg', 'x/a.jpg', '..\\a.jpg',
          'ä.jpg', 'a\u0308.jpg', '.jpg', 'a .jpg', 'b.jpg', 'B.JPG', 'a_2.png')  # fmt: skip
MOST_MB = 100
"""That the page may take from the 65th visit on, with three small pictures a visit."""


class Page:
    """The page of a tiny model, in a process of its own.

    Args:
        root: a folder for all.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.temporary = root, root / 'temporary'
        self.temporary.mkdir()
        self.config, self.weights = write_tiny(root / 'tiny')
        self.inferencer = FewShotInferencer(self.config, str(self.weights), 'cpu', threshold=0.3)
        mask = np.zeros((80, 96), bool)
        mask[20:50, 30:60] = True
        pixels = np.random.default_rng(0).integers(0, 255, (80, 96, 3), np.uint8)
        self.inferencer.set_support({'cup': [(pixels, mask)]})
        self.inferencer.save_support(root / 'support.safetensors')
        self.support = (root / 'support.safetensors').read_bytes()
        self.start()

    def start(self) -> None:
        """Start it."""
        line = [sys.executable, '-u', str(TOOLS / 'webui.py'), '--config', str(self.config)]
        line += ['--weights', str(self.weights), '--port', '0', '--device', 'cpu']
        env = {**os.environ, 'OMP_NUM_THREADS': '1', 'TMPDIR': str(self.temporary)}
        env['PYTHONPATH'] = str(TOOLS.parent)
        with open(self.root / 'page.log', 'wb') as log:
            self.process = subprocess.Popen(
                line, stdout=subprocess.PIPE, stderr=log, text=True, env=env
            )
        assert self.process.stdout is not None
        for said in self.process.stdout:
            if found := re.search(r'The page is at (http://\S+)', said):
                self.url = found[1]
                return
        raise Bad(f'the page does not start: {(self.root / "page.log").read_text()[-300:]}')

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)

    # ------------------------------------------------------------------------------- trials
    def hostile_headers(self, rng: random.Random) -> None:
        """A foreign host name, or a foreign page that asks: nothing is answered."""
        port = urlsplit(self.url).port
        name = rng.choice(_FOREIGN)
        if rng.random() < 0.5:
            visitor = Visitor(self.url, host=f'{name}:{port}' if rng.random() < 0.5 else name)
        else:
            origin = rng.choice((f'http://{name}', f'https://{name}:{port}', 'null', 'file://'))
            visitor = Visitor(self.url, origin=origin)
        path = rng.choice(('/config', '/gradio_api/call/start', '/gradio_api/upload'))
        status, _, content = visitor.ask('POST' if 'api' in path else 'GET', path, b'{"data":[]}')
        if visitor.status < 400 or status < 400:
            raise Bad(f'{name!r} was answered: {visitor.status}, {path} {status} {content[:80]!r}')

    def files_of_others(self, rng: random.Random) -> None:
        """Somebody knows the path of a visitor's file, or of one of the server."""
        one, other = Visitor(self.url), Visitor(self.url)
        one.step('start')
        path = one.upload('support.safetensors', self.support)['path']
        wrong = rng.choice(
            (path, str(self.root / 'tiny.pth'), '/etc/passwd', f'{path}/../../../../etc/passwd')
        )
        status, _, content = other.ask('GET', f'/gradio_api/file={wrong}')
        if status < 400:
            raise Bad(f'{wrong} was given: {content[:60]!r}')
        told = dict(path=wrong, meta={'_type': 'gradio.FileData'})
        other.step('start')
        try:
            other.step('add_photos', [told])
        except ConnectionError:
            return
        raise Bad(f'{wrong} was taken as an upload')

    def kill(self, rng: random.Random) -> None:
        """The page is killed; the next one removes its files."""
        visitor = Visitor(self.url)
        visitor.visit(self.support, [photo(rng.randrange(1000))])
        self.process.kill()
        self.process.wait()
        left = {path.name for path in self.temporary.glob('mmfss_webui_*')}
        self.start()
        if not left or left & {path.name for path in self.temporary.glob('mmfss_webui_*')}:
            raise Bad(f'left: {left}')

    def many_visits(self, number: int) -> tuple[float, float, float]:
        """Visits one after the other: resident MB after the first, after the 65th (from then on
        there are as many sessions as are kept), and the most."""
        held = list(visits(self.url, self.process.pid, number, self.support))
        full = held[min(64, number - 1)]
        if max(held) > full + MOST_MB:
            raise Bad(f'{held[0]:.0f} MB, {full:.0f} with all sessions, at most {max(held):.0f}')
        return held[0], full, max(held)

    def exports_of_one_name(self, rng: random.Random) -> None:
        """Photos whose names fall together on some file system: each has a mask of its own."""
        worker = ModelWorker(self.inferencer)
        folder = self.root / 'exported'
        folder.mkdir(exist_ok=True)
        session = Session(worker, Limits(), VisitorFolder.below(folder))
        try:
            session.add_photos([(self.root / 'support.safetensors', 'support.safetensors')])
            names = rng.choices(_NAMES, k=6)
            uploads = []
            for i, name in enumerate(names):
                path = self.root / f'{i}.png'
                Image.fromarray(np.full((20 + i, 30, 3), 40 * i, np.uint8)).save(path)
                uploads.append((path, name))
            session.add_queries(uploads)
            session.label()
            (masks,) = (file for file in export(session, folder / 'files') if file.suffix == '.zip')
            with zipfile.ZipFile(masks) as archive:
                found = [name for name in archive.namelist() if name.endswith('.png')]
                sizes = sorted(Image.open(archive.open(name)).height for name in found)
            odd = [name for name in found if '..' in name or name.startswith('/')]
            if len({name.casefold() for name in found}) != 6 or sizes != list(range(20, 26)) or odd:
                raise Bad(f'{names} gave {found} of {sizes}')
        finally:
            session.close()
            worker.close()
            shutil.rmtree(folder)
