"""A tiny model behind the page, a proposer whose masks are known, and image files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_models
from PIL import Image
from webui_steps import BoxProposer, pixels

from mmfss.apis import FewShotInferencer
from mmfss.webui.folders import VisitorFolder
from mmfss.webui.limits import Limits
from mmfss.webui.session import Session
from mmfss.webui.worker import ModelWorker


@pytest.fixture(scope='session')
def tiny_model():
    """Shared by all tests here; none changes it."""
    return tiny_models.build()


@pytest.fixture
def proposer() -> BoxProposer:
    return BoxProposer()


@pytest.fixture
def worker(tiny_model, proposer: BoxProposer) -> Iterator[ModelWorker]:
    """The tiny model, at a threshold of 0.3."""
    worker = ModelWorker(FewShotInferencer(tiny_model, threshold=0.3), proposer)
    yield worker
    worker.close()


@pytest.fixture
def new_session(worker: ModelWorker, tmp_path: Path) -> Iterator[Callable[..., Session]]:
    """Makes sessions with limits of one's choice."""
    made = []

    def make(**limits: int) -> Session:
        made.append(Session(worker, Limits(**limits), VisitorFolder.below(tmp_path)))
        return made[-1]

    yield make
    for session in made:
        session.close()


@pytest.fixture
def photo(tmp_path: Path) -> Callable[..., tuple[Path, str]]:
    """Writes an image: (path, name) as an upload has them."""

    def write(name: str = 'a.png', seed: int = 0, **size: int) -> tuple[Path, str]:
        path = tmp_path / f'upload_{seed}_{len(list(tmp_path.iterdir()))}' / name
        path.parent.mkdir()
        Image.fromarray(pixels(seed, **size)).save(path)
        return path, name

    return write
