"""A tiny model behind the service, a proposer whose masks are known, and a Label Studio that has
photos and nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mmseg.registry import MODELS
from serve_cases import PHOTOS, TOKEN
from tiny_models import METHODS, randomised
from webui_steps import BoxProposer

from mmfss.apis import FewShotInferencer
from mmfss.hosts import HostNames
from mmfss.webui.limits import Limits
from mmfss.webui.worker import ModelChoice, ModelWorker

if TYPE_CHECKING:
    from starlette.testclient import TestClient


@pytest.fixture(scope='session')
def inferencer() -> FewShotInferencer:
    """Of a tiny prototype matcher, which marks every class in every photo; none changes it."""
    cache = dict(type='FeatureCache', memory_bytes=2**20)
    model = MODELS.build(dict(METHODS['PrototypeMatcher'], feature_cache=cache))
    return FewShotInferencer(randomised(model).eval(), threshold=0.0)


@pytest.fixture
def proposer() -> BoxProposer:
    return BoxProposer()


@pytest.fixture
def worker(inferencer, proposer) -> Iterator[ModelWorker]:
    worker = ModelWorker(inferencer, proposer, ModelChoice(method='prototype'))
    yield worker
    worker.close()


@dataclass
class LabelStudioServer:
    """What the service fetches from Label Studio: photos by their path, and an export."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: tuple[str, ...] = (f'Token {TOKEN}',)
    access: str = 'short-lived'
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def label_studio() -> Iterator[LabelStudioServer]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            there.asked.append(self.path)
            known = self.headers.get('authorization', '') in there.tokens
            body = there.files.get(self.path)
            self._answer(401 if not known else 404 if body is None else 200, body or b'')

        def do_POST(self) -> None:  # a personal access token for a short-lived one
            there.asked.append(self.path)
            asked = json.loads(self.rfile.read(int(self.headers['content-length'])))
            known = self.path == '/api/token/refresh' and asked == dict(refresh='a.b.c')
            self._answer(200 if known else 401, json.dumps(dict(access=there.access)).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header('content-length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    there = LabelStudioServer(f'http://127.0.0.1:{server.server_port}')
    there.files.update(PHOTOS)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield there
    server.shutdown()
    server.server_close()


@pytest.fixture
def new_service(worker, label_studio, tmp_path) -> Callable[..., TestClient]:
    """Makes services on one folder of data: ``new_service()`` again is the service started anew."""
    from starlette.testclient import TestClient

    from mmfss.serve.app import Service
    from mmfss.serve.projects import Projects
    from mmfss.serve.sources import LabelStudioPhotos
    from mmfss.serve.xanylabeling import Folder

    def make(
        token: str | None = None,
        folders: dict[str, Path] | None = None,
        local_files: Path | None = None,
        key: str | None = None,
        hosts: tuple[str, ...] = (),
        **limits: int,
    ) -> TestClient:
        bounds = Limits(**limits)
        photos = LabelStudioPhotos(label_studio.url, local_files, key, hosts, bounds)
        given = [Folder(name, path) for name, path in (folders or {}).items()]
        names = HostNames.of('127.0.0.1', (), 'service')
        service = Service(Projects(tmp_path / 'data', worker, bounds), photos, given, names, token)
        client = TestClient(service.app(), base_url='http://127.0.0.1:9090')
        client.service = service
        return client

    return make
