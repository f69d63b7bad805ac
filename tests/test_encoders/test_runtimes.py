"""Encoders by OpenVINO: torch's numbers, keys of their own, what is kept, and every way back."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from PIL import Image
from tiny_models import PRIOR, episodes

from mmfss.encoders.encoding import Encoding
from mmfss.encoders.runtimes import (
    RuntimeSettings,
    choice,
    conversion,
    converted,
    left_out,
    merged,
)
from mmfss.encoders.runtimes.machine import cpu

CACHE = dict(type='FeatureCache', memory_bytes=2**26)
needs = pytest.mark.skipif(
    converted.missing() is not None, reason=f'no OpenVINO: {converted.missing()}'
)


@pytest.fixture(autouse=True)
def kept_here(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('MMFSS_RUNTIME', raising=False)


def encoding(runtime=None, cache=None, seed: int = 0) -> Encoding:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = MODELS.build(copy.deepcopy(PRIOR)).requires_grad_(False).eval()
    return Encoding({'dino': encoder}, cache and MODELS.build(cache), runtime=runtime)


def photos_in(folder) -> dict:
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (80, 60, 3), np.uint8)).save(folder / f'{i}.png')
    return dict(precision='int8', calibration=str(folder))


def images(count: int = 1) -> torch.Tensor:
    return episodes(count)['query']


def of(one: Encoding, pixels: torch.Tensor) -> torch.Tensor:
    return one(['dino'], pixels)['dino'][0]


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@needs
def test_openvino_gives_torchs_numbers_and_is_kept(tmp_path):
    pixels = images(3)
    truth, ours = of(encoding('torch'), pixels), encoding('openvino')
    found = of(ours, pixels)
    assert found.shape == truth.shape and far(found, truth) < 1e-5
    assert ours.runtimes.record['dino']['runtime'] == 'openvino'
    assert torch.equal(found[1:2], of(ours, pixels[1:2]))  # whatever the batch
    (model,) = (tmp_path / 'cache/mmfss/openvino/models').iterdir()
    written = (model / 'model.bin').stat().st_mtime_ns
    assert torch.equal(of(encoding('openvino'), pixels), found)
    assert (model / 'model.bin').stat().st_mtime_ns == written
    (model / 'model.bin').write_bytes(b'half')  # made again
    assert torch.equal(of(encoding('openvino'), pixels), found)
    ours.encoders['dino'].vit.norm.weight.mul_(2)
    with torch.no_grad():
        assert far(of(ours, pixels), ours.encoders['dino'](pixels)[0]) < 1e-5
    assert far(of(copy.deepcopy(ours), pixels), of(ours, pixels)) == 0


@needs
def test_features_of_two_runtimes_are_not_mixed(tmp_path):
    pixels = images()
    cache = dict(CACHE, directory=str(tmp_path / 'features'))
    by_torch, by_other = (
        of(encoding('torch', cache), pixels),
        of(encoding('openvino', cache), pixels),
    )
    assert not torch.equal(by_torch, by_other)
    abouts = [json.loads(p.read_text())['about'] for p in tmp_path.glob('features/*/about.json')]
    runtimes = sorted(str(a['settings'].get('runtime', {}).get('name')) for a in abouts)
    assert runtimes == ['None', 'openvino']
    assert torch.equal(of(encoding('torch', cache), pixels), by_torch)


@needs
def test_auto_measures_once_and_forgives_a_damaged_decision(tmp_path, monkeypatch):
    small = encoding('auto')
    of(small, images())
    assert small.runtimes.record['dino'] == dict(runtime='torch', why='small')
    monkeypatch.setattr(choice, 'LEAST_PARAMETERS', 0)
    measured = encoding('auto')
    of(measured, images())
    record = measured.runtimes.record['dino']
    assert record['torch_ms'] > 0 and record['openvino_ms'] > 0
    (file,) = (tmp_path / 'cache/mmfss/openvino/decisions').iterdir()
    file.write_text(json.dumps(dict(json.loads(file.read_text()), runtime='torch', why='told')))
    told = encoding('auto')
    of(told, images())
    assert told.runtimes.record['dino']['why'] == 'told'
    whole = json.loads(file.read_text())
    for text in (
        '{',
        json.dumps(dict(whole, runtime='tensorrt')),
        json.dumps(dict(runtime='torch')),
        json.dumps(dict(whole, torch_ms='x')),
    ):
        file.write_text(text)
        again = encoding('auto')
        of(again, images())
        assert again.runtimes.record['dino']['why'] != 'told' and json.loads(file.read_text())
    with torch.autocast('cpu', torch.bfloat16):
        of(again, images())
    assert again.runtimes.record['dino']['why'] == "autocast is torch's"


@needs
def test_what_openvino_cannot_convert_stays_in_torch(monkeypatch):
    monkeypatch.setattr(choice, 'LEAST_PARAMETERS', 0)

    def fails(*args):
        raise converted.NotConverted('no such operation')

    monkeypatch.setattr(converted, 'converted', fails)
    one = encoding('auto')
    assert torch.equal(of(one, images()), of(encoding('torch'), images()))
    assert one.runtimes.record['dino']['why'] == 'OpenVINO cannot run it: no such operation'
    with pytest.raises(ValueError, match='Leave the runtime out'):
        of(encoding('openvino'), images())


@needs
def test_a_disk_that_takes_nothing_costs_time_alone(tmp_path):
    (tmp_path / 'file').write_text('')
    one = encoding(dict(type='openvino', directory=str(tmp_path / 'file' / 'below')))
    assert far(of(one, images()), of(encoding('torch'), images())) < 1e-5


def test_without_openvino(monkeypatch):
    monkeypatch.setattr(converted, 'version', lambda: None)
    monkeypatch.setattr(choice, 'LEAST_PARAMETERS', 0)
    one = encoding('auto')
    assert torch.equal(of(one, images()), of(encoding('torch'), images()))
    assert 'pip install mmfss[openvino]' in one.runtimes.record['dino']['why']
    with pytest.raises(ValueError, match=r'pip install mmfss\[openvino\]'):
        encoding('openvino')
    monkeypatch.setattr(converted, 'version', lambda: '2023.1.0')
    with pytest.raises(ValueError, match='2023.1.0 is too old'):
        encoding('openvino')


@needs
def test_int8_is_fitted_to_photos_and_says_so(tmp_path):
    one = encoding(photos_in(tmp_path))
    assert 0 < far(of(one, images()), of(encoding('torch'), images())) < 0.3
    assert one.runtimes.record['dino']['int8']['photos'] == 3


@needs
@pytest.mark.parametrize('precision', ['bf16', 'int8'])
def test_as_many_first_products_stay_in_fp32_as_features_need(tmp_path, monkeypatch, precision):
    if precision == 'bf16':
        if 'avx512bw' not in cpu().flags:
            pytest.skip('OpenVINO does not even emulate bf16 on this CPU')
        monkeypatch.setattr(converted, 'has_bf16', lambda: True)
    runtime = photos_in(tmp_path) if precision == 'int8' else dict(precision=precision)
    truth, said, apart = of(encoding('torch'), images()), [], {}
    monkeypatch.setattr(conversion, 'print_log', lambda text, *args: said.append(text))
    for near, count in ((1.0, 0), (0.0, 16)):
        monkeypatch.setitem(left_out.NEAR, precision, near)
        for again in (False, True):  # converted, and from disk
            one = encoding(runtime)
            found = of(one, images())
            assert one.runtimes.record['dino']['left_out'] == count
            if again:
                assert far(found, truth) == apart[count]
            apart[count] = far(found, truth)
    assert 0 < apart[16] < apart[0]
    assert len(said) == 1 and f'{precision} leaves out its first 16 products' in said[0]


@needs
@pytest.mark.parametrize(
    'about', [lambda about: about.pop('left_out'), lambda about: about.update(left_out='x'), None]
)
def test_a_model_that_was_being_tried_when_its_process_was_stopped_is_made_again(
    tmp_path, monkeypatch, about
):
    """Or whose record says nothing that can be."""
    monkeypatch.setitem(left_out.NEAR, 'int8', 0.0)
    first = of(encoding(photos_in(tmp_path)), images())
    (file,) = (tmp_path / 'cache').rglob('record.json')
    record = json.loads(file.read_text())
    if about is None:
        record['about'] = []
    else:
        about(record['about'])
    file.write_text(json.dumps(record))
    tried = []
    save = left_out.save
    monkeypatch.setattr(left_out, 'save', lambda *given: tried.append(given) or save(*given))
    again = encoding(photos_in(tmp_path))
    assert torch.equal(of(again, images()), first)
    assert len(tried) == len(left_out.COUNTS)
    assert again.runtimes.record['dino']['left_out'] == 16
    assert json.loads(file.read_text())['about']['left_out'] == 16


@needs
def test_what_is_left_out_of_int8_is_at_both_ends():
    class Five(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Conv2d(3, 3, 1) for _ in range(5))

        def forward(self, x):
            for layer in self.layers[:4]:
                x = layer(x).relu()
            return x, self.layers[4](x)

    pixels = torch.rand(1, 3, 8, 8)
    model = converted.converted(Five().eval(), [pixels])
    order = [
        one.get_friendly_name()
        for one in model.get_ordered_ops()
        if one.get_type_name() == 'Convolution'
    ]
    assert left_out.names(model, 0) == []
    assert left_out.names(model, 1) == sorted([order[0], *order[3:]])
    assert left_out.names(model, 16) == sorted(order)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('tensorrt', 'must be one of'),
        (dict(precision='int8'), '--calibration FOLDER'),
        (dict(type='torch', precision='bf16'), 'give --amp'),
        (dict(calibration='x'), 'calibration is of int8'),
        (dict(kind='torch'), 'some of'),
    ],
)
def test_wrong_settings_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        RuntimeSettings.of(given)


@needs
def test_refusals_by_name(monkeypatch):
    monkeypatch.setattr(converted, 'has_bf16', lambda: False)
    with pytest.raises(ValueError, match='neither avx512_bf16 nor amx_bf16'):
        encoding(dict(precision='bf16'))
    with pytest.raises(ValueError, match='on the CPU, the model is on cuda'):
        encoding('openvino').runtimes.check(torch.device('cuda'))


def test_options_take_the_place_of_what_a_config_says():
    config = dict(type='openvino', precision='int8', calibration='x')
    assert merged(config, dict(type='torch')) == dict(type='torch')
    assert merged(config, dict(precision='bf16')) == dict(type='openvino', precision='bf16')
    assert merged('torch', dict(type='auto')) == dict(type='auto')
