"""A tiny model with random weights as users have models, a support file, a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

from mmfss.apis import FewShotInferencer, Prediction
from mmfss.commands.label import label

VARYING = ('records', '.label.lock')
"""What may differ between runs with equal results."""


@dataclass(frozen=True)
class Case:
    """Paths of what the command is given, and a folder of results to compare with."""

    config: Path
    weights: Path
    support: Path
    images: Path
    reference: Path

    def arguments(self, out: Path, *more: str, images: Path | None = None) -> list[str]:
        """The command line of the tests: class 'disc' has a threshold of its own."""
        given = [self.support, images or self.images, out, '--config', self.config]
        given += ['--weights', self.weights, '--threshold', '0', *more]
        return [str(one) for one in given]

    def inferencer(self) -> FewShotInferencer:
        """With the model and supports of the command line."""
        inferencer = FewShotInferencer(self.config, self.weights, 'cpu', threshold=0.0)
        inferencer.load_support(self.support)
        return inferencer


def noise(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth random picture, uint8 (H, W, 3), with a bright rectangle."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 200, (6, 6, 3), dtype=np.uint8))
    image = np.array(coarse.resize((width, height), Image.Resampling.BILINEAR))
    top, left = int(rng.integers(0, max(1, height // 2))), int(rng.integers(0, max(1, width // 2)))
    image[top : top + height // 2, left : left + width // 2] = (250, 220, 40)
    return image


def write_images(folder: Path) -> Path:
    """Nine images of several sizes and endings, in two folders."""
    (folder / 'below').mkdir(parents=True)
    for i in range(9):
        parent = folder / 'below' if i % 3 == 0 else folder
        picture = Image.fromarray(noise(i, 40 + 5 * i, 90 - 4 * i))
        picture.save(parent / f'{i:02d}.{("png", "jpg", "JPG")[i % 3]}', quality=95)
    return folder


@pytest.fixture(scope='session')
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The files, and the results of one uninterrupted run."""
    root = tmp_path_factory.mktemp('labelling')
    config, weights = root / 'tiny.py', root / 'tiny.pth'
    config.write_text(
        "custom_imports = dict(imports=['mmfss'], allow_failed_imports=False)\n"
        f"default_scope = 'mmseg'\nmodel = {tiny_models.FULL!r}\n"
    )
    model = tiny_models.build()
    torch.save(dict(state_dict=model.state_dict(), meta={}), weights)
    inferencer = FewShotInferencer(model)
    shots: dict[str, list] = {'disc': [], 'slab': []}
    for i, name in enumerate(('disc', 'slab', 'slab')):
        mask = np.zeros((48, 64), bool)
        mask[8 + i : 30, 10 : 40 + 4 * i] = True
        shots[name].append((noise(100 + i, 48, 64), mask))
    inferencer.set_support(shots)
    inferencer.save_support(root / 'support.safetensors')
    support = root / 'support.safetensors'
    made = Case(config, weights, support, write_images(root / 'images'), root / 'reference')
    assert label(made.arguments(made.reference)) == 0
    return made


@pytest.fixture(scope='session')
def predictions(case: Case) -> dict[str, Prediction]:
    """Name of each image -> what the inferencer says of it."""
    inferencer = case.inferencer()
    files = sorted(path for path in case.images.rglob('*') if path.is_file())
    return {path.relative_to(case.images).as_posix(): inferencer(path) for path in files}


@pytest.fixture(scope='session')
def files_of() -> Callable[[Path], dict[str, bytes]]:
    """Gives relative path -> content of all files of an output folder that are to be equal."""

    def read(out: Path) -> dict[str, bytes]:
        found = {}
        for path in sorted(out.rglob('*')):
            relative = path.relative_to(out)
            if path.is_file() and relative.parts[0] not in VARYING:
                found[relative.as_posix()] = path.read_bytes()
        return found

    return read
