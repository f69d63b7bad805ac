"""Serving: what a prediction through ``mmfss serve`` costs over the inferencer on the same photos,
and how soon the first one comes after a new annotation. Requests are those of Label Studio, over
HTTP on this machine; photos are local files that no cache has seen."""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.labelling import support_of
from benchmarks.pictures import FoldSpec, photo
from benchmarks.report import SECONDS, spread, table
from benchmarks.subject import at_least, subject_of
from benchmarks.timing import clock_of, interleaved, note
from mmfss.apis.images import as_bgr
from mmfss.apis.inferencer import FewShotInferencer
from mmfss.hosts import HostNames
from mmfss.regions import brush_code
from mmfss.webui.limits import Limits
from mmfss.webui.worker import ModelWorker

HELP = 'a prediction through mmfss serve against one of the inferencer'
CLIENTS = 4
_DIRECT, _SERVED = 'inferencer', 'through the service'
_SEEN, _NEW = 'new annotation, then prediction', 'the same, of a photo that was not predicted'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument('--shots', type=int, default=5, help='K of each class')
    parser.add_argument('--classes', type=int, default=1, help='N')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Returns:
        ``machine``; ``seconds`` of a prediction by way; ``overhead_seconds`` and
        ``overhead_percent`` of the service, of medians; ``clients_per_second``: predictions with 4
        clients at once.
    """
    at_least(args, 1, 'shots', 'classes')
    subject = subject_of(args)
    clock, repeats = clock_of(subject.target), args.repeats or (2 if args.quick else 9)
    inferencer = FewShotInferencer(
        subject.build(dict(memory_bytes=2**28)), threshold=0.0, amp=args.amp
    )
    width, height = args.photo_size
    spec = FoldSpec(6, 'photos', width, height, 2, args.seed)
    support = support_of(args.classes, args.shots, spec)
    inferencer.set_support(support)
    with tempfile.TemporaryDirectory() as folder, serving(inferencer, Path(folder)) as client:
        note('annotations')
        for name, pairs in support.items():
            for number, (image, mask) in enumerate(pairs):
                path = Path(folder) / 'photos' / f'{name}{number}.png'
                cv2.imwrite(str(path), image)
                client.annotate(path, mask == 1, name)
        photos = _photos(Path(folder), spec, 5 * (repeats + 1))
        jobs = {
            _DIRECT: lambda: inferencer(next(photos)),
            _SERVED: lambda: client.predict(next(photos)),
            _SEEN: lambda: client.first_after(client.last, next(photos)),
            _NEW: lambda: client.first_after(next(photos), next(photos)),
        }
        seconds = interleaved(jobs, repeats, clock)
        several = list(_photos(Path(folder), spec, 2 * CLIENTS, 'several'))
        with ThreadPoolExecutor(CLIENTS) as pool:
            start = clock()
            list(pool.map(client.predict, several))
            rate = len(several) / (clock() - start)
    direct, served = (seconds[name]['median'] for name in (_DIRECT, _SERVED))
    return dict(
        machine=subject.machine(args.quick),
        seconds=seconds,
        overhead_seconds=served - direct,
        overhead_percent=100 * (served / direct - 1),
        clients_per_second=rate,
    )


def _photos(folder: Path, spec: FoldSpec, count: int, name: str = 'photo') -> Iterator[Path]:
    paths = [folder / 'photos' / f'{name}{number}.jpg' for number in range(count)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng([spec.seed, 8, number, len(name)])
        cv2.imwrite(str(path), photo(rng, spec, 1)[0])
    return iter(paths)


class Client:
    """Asks a service as Label Studio does."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self.number = port, 0
        self.names: list[str] = []
        self.last = folder

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = HTTPConnection('127.0.0.1', self.port, timeout=600)
        connection.request('POST', path, json.dumps(body))
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        if answer.status != 200:
            raise ValueError(f'{path} answers {answer.status}: {content}')
        return content

    @property
    def _config(self) -> str:
        labels = ''.join(f'<Label value="{name}"/>' for name in self.names)
        brush = f'<BrushLabels name="b" toName="i">{labels}</BrushLabels>'
        return f'<View><Image name="i" value="$image"/>{brush}</View>'

    def annotate(self, path: Path, mask: np.ndarray, name: str) -> None:
        """A person has marked something in a photo."""
        self.number += 1
        if name not in self.names:
            self.names.append(name)
        value = dict(format='rle', rle=brush_code(mask), brushlabels=[name])
        region = dict(type='brushlabels', from_name='b', to_name='i', value=value)
        task = dict(id=self.number, data=dict(image=f'/data/local-files/?d={path.name}'))
        project = dict(id=1, created_at='2026-01-01T00:00:00Z', label_config=self._config)
        annotation = dict(id=self.number, result=[region])
        about = dict(action='ANNOTATION_CREATED', project=project)
        self._post('/webhook', dict(**about, task=task, annotation=annotation))

    def predict(self, path: Path) -> dict[str, Any]:
        """The prediction for a photo."""
        task = dict(id=0, data=dict(image=f'/data/local-files/?d={path.name}'))
        about = dict(project='1.1767225600', label_config=self._config, params={})
        self.last = path
        (found,) = self._post('/predict', dict(tasks=[task], **about))['results']
        return found

    def first_after(self, marked: Path, path: Path) -> None:
        """A new annotation, and at once the first prediction after it."""
        height, width = as_bgr(marked).shape[:2]
        mask = np.zeros((height, width), bool)
        mask[height // 4 : height // 2, width // 4 : width // 2] = True
        self.annotate(marked, mask, self.names[0])
        self.predict(path)


@contextmanager
def serving(inferencer: FewShotInferencer, folder: Path) -> Iterator[Client]:
    """A service around a model, on a free port."""
    import uvicorn

    from mmfss.serve.app import Service
    from mmfss.serve.projects import Projects
    from mmfss.serve.sources import LabelStudioPhotos

    (folder / 'photos').mkdir()
    # as many supports, whatever comes
    shots = len(next(iter(inferencer.support.shots.values())))
    worker, limits = ModelWorker(inferencer), Limits(max_shots=shots)
    photos = LabelStudioPhotos('http://localhost:8080', folder / 'photos', None, (), limits)
    projects = Projects(folder / 'data', worker, limits)
    names = HostNames.of('127.0.0.1', (), 'service')
    app = Service(projects, photos, [], names).app()
    config = uvicorn.Config(app, port=0, log_level='error', access_log=False, lifespan='off')
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Client(server.servers[0].sockets[0].getsockname()[1], folder / 'photos')
    finally:
        server.should_exit = True
        thread.join()
        worker.close()


def tables(results: dict[str, Any]) -> list[str]:
    """What is printed."""
    rows = [[name, *spread(entry, 1000)] for name, entry in results['seconds'].items()]
    return [
        table(['a photo', *SECONDS], rows),
        f'The service takes {1000 * results["overhead_seconds"]:.1f} ms more '
        f'({results["overhead_percent"]:.0f} %). With {CLIENTS} clients at once '
        f'{results["clients_per_second"]:.2f} predictions/s',
    ]
