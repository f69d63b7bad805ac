"""``mmfss check``: what it prints, and its exit status."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import tiny_models
from mmengine.config import Config

from mmfss.apis import FewShotInferencer, method_choice
from mmfss.apis.method_choice import compare, methods_at_hand
from mmfss.apis.support_folder import read_support
from mmfss.commands.check import check
from mmfss.configs import EMBEDDED_METHOD


@pytest.fixture
def support(tmp_path):
    """Two classes of three photos each."""
    rng = np.random.default_rng(0)
    for name, colour in (('cup', (200, 60, 20)), ('pen', (30, 60, 210))):
        (tmp_path / 'support' / name).mkdir(parents=True)
        for i in range(3):
            image = rng.integers(0, 120, (70, 90, 3)).astype(np.uint8)
            mask = np.zeros((70, 90), np.uint8)
            mask[10 + 3 * i : 40, 20 : 50 + 5 * i] = 255
            image[mask > 0] = colour
            cv2.imwrite(str(tmp_path / f'support/{name}/{i}.jpg'), image)
            cv2.imwrite(str(tmp_path / f'support/{name}/{i}.png'), mask)
    return tmp_path / 'support'


@pytest.fixture
def methods(tmp_path, monkeypatch):
    """Tiny methods in the place of those of mmfss."""
    for name in ('PrototypeMatcher', 'FSSAM', 'AllForeground'):
        text = f'model = {copy.deepcopy(tiny_models.METHODS[name])!r}\n'
        (tmp_path / f'{name}.py').write_text(text)

    def find(name: str):
        if not (tmp_path / f'{name}.py').is_file():
            raise ValueError(f'method must be one of ..., got {name!r}')
        return tmp_path / f'{name}.py'

    monkeypatch.setattr(method_choice, 'find_method', find)
    return find


def test_table_and_exit_status(support, tmp_path, capsys, methods):
    config = str(methods('PrototypeMatcher'))
    given = [str(support), '--config', config, '--device', 'cpu']
    assert check([*given, '--methods', 'PrototypeMatcher', 'AllForeground']) == 0
    out = capsys.readouterr()
    assert out.out.startswith('PrototypeMatcher (DINOv2)\nclass  supports  expected IoU %')
    assert '\ncup' in out.out and '\npen' in out.out
    assert 'recommended for these photos: ' in out.out
    assert out.err.count('checking with') == 2
    assert check([*given, '--methods', 'PrototypeMatcher']) == 0  # nothing to compare with
    assert 'recommended' not in capsys.readouterr().out
    assert check([str(tmp_path / 'none'), '--config', config]) == 2
    assert 'support file' in capsys.readouterr().err
    assert check([str(support), '--config', 'no_such']) == 2
    assert capsys.readouterr().err.startswith('error: config no_such not found')


def test_methods_that_cannot_run_are_said_with_the_reason(support, methods):
    read = lambda inferencer: read_support(support, inferencer)[0]  # noqa: E731
    found = compare(read, ['FSSAM', 'PrototypeMatcher'], 'cpu')
    assert list(found.checks) == ['PrototypeMatcher']
    assert found.recommended == 'PrototypeMatcher'
    assert 'weights must be given' in found.refused['FSSAM']
    assert 'FSSAM: not tried, weights must be given' in found.text()
    one = FewShotInferencer(Config.fromfile(methods('PrototypeMatcher')), device='cpu')
    again = one.check(read(one))
    compared = found.checks['PrototypeMatcher'].classes
    assert [len(c.supports) for c in again.classes] == [len(c.supports) for c in compared]
    with pytest.raises(ValueError, match='method must be one of'):
        compare(read, ['nothing'], 'cpu')


def test_the_embedded_method_is_at_hand_and_baselines_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv('MMFSS_WEIGHTS', str(tmp_path))
    found = methods_at_hand()
    assert EMBEDDED_METHOD in found
    assert not {'all_foreground', 'pseudo_mask', 'fssam', 'prototype'} & set(found)
