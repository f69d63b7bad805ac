"""``mmfss runtimes``: torch and OpenVINO on photos and on episodes."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from tiny_runs import write_config, write_shapes

from mmfss.checkpoints.record import describe_run
from mmfss.commands.runtime_agreement import main
from mmfss.datasets.folds import get_split
from mmfss.encoders.runtimes import Runtimes, converted
from mmfss.evaluation.agreement import Agreement, agreement_of

needs = pytest.mark.skipif(
    converted.missing() is not None, reason=f'no OpenVINO: {converted.missing()}'
)


def test_agreement_of_label_maps():
    one = np.array([[0, 1, 1, 2]], np.uint8)
    other = np.array([[0, 1, 0, 3]], np.uint8)
    # class 1: 1 of 2 pixels, classes 2 and 3: none
    assert agreement_of(one, other) == (pytest.approx(0.5 / 3), 0.5)
    assert agreement_of(one, one) == (1.0, 0.0)
    assert agreement_of(np.zeros((2, 2)), np.zeros((2, 2))) == (1.0, 0.0)
    with pytest.raises(ValueError, match='of one shape'):
        agreement_of(one, one.T)


def test_an_agreement_says_means_and_the_worst():
    found, truth = Agreement(('a', 'b')), (torch.tensor([[3.0, 4.0]]),)
    labels, near = np.array([[1, 1]]), (torch.tensor([[3.0, 4.5]]),)
    found.add('x', [labels, labels], [dict(e=truth), dict(e=truth)], [2.0, 1.0])
    found.add('y', [labels, labels * [[1, 0]]], [dict(e=truth), dict(e=near)], [4.0, 1.0])
    said = found.record()
    assert said['iou'] == dict(mean=0.75, worst=0.5, of='y')
    assert said['share_of_pixels'] == dict(mean=0.25, worst=0.5)
    assert said['features']['e'] == dict(mean=pytest.approx(0.05), worst=pytest.approx(0.1))
    assert said['seconds'] == dict(a=3.0, b=1.0)
    assert 'mean IoU 0.75000, at least 0.50000 (y)' in found.text()


@pytest.fixture(scope='module')
def case(tmp_path_factory):
    """Config and random weights of a tiny FSSAM, supports and photos."""
    root = tmp_path_factory.mktemp('runtimes')
    shapes = write_shapes(root / 'shapes', train=12, val=40)
    config = write_config(root / 'agreement_cfg.py', shapes)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    model.init_weights()
    meta = describe_run(get_split('shapes-5i', 0), 'base', 1, model.arch, set())
    content = dict(state_dict=model.state_dict(), meta=dict(epoch=1, iter=1, mmfss=meta))
    torch.save(content, root / 'w.pth')
    for folder in ('support/any', 'photos'):
        (root / folder).mkdir(parents=True)
    for i in range(2):
        name = f'val_{i:05d}.png'
        shutil.copy(shapes / 'JPEGImages' / name, root / f'photos/{name}')
    shutil.copy(root / 'photos/val_00000.png', root / 'support/any/a.jpg')
    label = cv2.imread(str(shapes / 'SegmentationClassAug/val_00000.png'), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(root / 'support/any/a.png'), 255 * np.uint8(label > 0))
    return root, config


@pytest.fixture
def compare(case, tmp_path, monkeypatch):
    """The command's status, and what it wrote."""
    root, config = case
    monkeypatch.setenv('XDG_CACHE_HOME', str(root / 'cache'))
    # the light pass takes long to be converted, and has tests of its own
    monkeypatch.setattr(Runtimes, 'of_pass', lambda *given: None)

    def call(*argv):
        out = tmp_path / 'found.json'
        given = ['--config', config, '--weights', str(root / 'w.pth'), '--out', str(out)]
        return main([*map(str, argv), *given]), json.loads(out.read_text())

    return call


@needs
def test_episodes_with_miou_and_its_interval(compare, capsys):
    status, said = compare('--episodes', 5, '--least', 0.99)
    assert status == 0 and said['images'] == 5 and said['iou']['mean'] > 0.99
    assert 0 < max(one['worst'] for one in said['features'].values()) < 1e-4
    one, other = said['mIoU'].values()
    assert said['difference']['value'] == pytest.approx(other - one, abs=1e-9)
    low, high = said['difference']['interval']
    assert low <= said['difference']['value'] <= high
    assert '95 % interval' in capsys.readouterr().out


@needs
def test_photos(compare, case, capsys):
    root, _ = case
    status, said = compare(root / 'support', root / 'photos', '--least', 0.99)
    assert status == 0 and said['compared'] == ['torch fp32', 'openvino fp32']
    assert [one['iou'] > 0.99 for one in said['each']] == [True, True]
    assert compare(root / 'support', root / 'photos', '--least', 1.1)[0] == 1
    assert 'the mean IoU is below 1.1' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['support'], 'give SUPPORT and IMAGES, or none'),
        (['support', 'photos', '--episodes', '3'], '--episodes is of a benchmark'),
        ([], 'give --config CONFIG'),
        (['--least', 'nan'], '--least must be a number'),
    ],
)
def test_wrong_options_have_status_2(capsys, argv, message):
    refused(capsys, argv, message)


def test_torch_is_not_compared_with_itself(capsys, case):
    root, config = case
    argv = [str(root / 'support'), str(root / 'photos'), '--runtime', 'torch']
    refused(capsys, argv, 'would be compared with torch')


def refused(capsys, argv, message) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2 and message in capsys.readouterr().err
