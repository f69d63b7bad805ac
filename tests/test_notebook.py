"""The notebook: every cell runs, on the arch of the embedded default with random weights."""

import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from mmfss.apis import loading
from mmfss.datasets.preparation import example

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / 'docs' / 'notebooks' / 'label_your_own_data.ipynb'


@pytest.fixture
def untrained(tmp_path, monkeypatch):
    """A repository of nothing but weights."""
    (tmp_path / 'configs').mkdir()
    weights = tmp_path / loading.DEMO_WEIGHTS
    weights.parent.mkdir(parents=True)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(ROOT / 'configs/fss_sam2_shapes_1shot.py').model)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, weights)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, 'DEMO_WEIGHTS', str(weights))
    fewer = example.Example(images=26, image_size=64)
    monkeypatch.setattr(example, 'Example', lambda: fewer)
    matplotlib.use('Agg')
    return tmp_path


def test_every_cell_runs(untrained, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(plt, 'imshow', lambda picture: shown.append(np.asarray(picture)))
    cells = json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells']
    code = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
    names: dict = {}
    for cell in code:
        exec(compile(cell, str(NOTEBOOK), 'exec'), names)
    plt.close('all')
    assert len(shown) == 4  # supports, an image, 24 images, a prompt
    assert shown[1].shape == (64, 128, 3) and shown[2].shape == (3 * 64, 8 * 64, 3)
    assert 'object score' in capsys.readouterr().out
    assert (untrained / 'data/support.safetensors').is_file()
