"""What comes after the encoders by OpenVINO: torch's numbers, what is kept, and every way back."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from PIL import Image
from tiny_models import METHODS, episodes, inputs_of, randomised, samples_of, tiny_arch

from mmfss.apis.inferencer import FewShotInferencer
from mmfss.apis.nway import encode_classes, segment_classes
from mmfss.batching import cat, tensors_of, with_tensors
from mmfss.encoders.runtimes import Runtimes, RuntimeSettings, choice, converted
from mmfss.labelling import label_folder
from mmfss.methods.base import FewShotModel, Segmentation
from mmfss.methods.prototype import PrototypeMatcher

needs = pytest.mark.skipif(
    converted.missing() is not None, reason=f'no OpenVINO: {converted.missing()}'
)
EPISODE, CLASS, QUERY = (f'light pass: {n}' for n in ('run_episode', 'segment', 'encode_query'))


@pytest.fixture(autouse=True)
def kept_here(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('MMFSS_RUNTIME', raising=False)


@pytest.fixture(autouse=True)
def faster(monkeypatch):
    """On a busy machine as on another."""
    monkeypatch.setattr(choice, '_faster', lambda **times: 'openvino')


@pytest.fixture
def conversions(monkeypatch):
    """Number of what is converted."""
    calls, convert = [], converted.converted
    monkeypatch.setattr(converted, 'converted', lambda *given: calls.append(1) or convert(*given))
    return calls


def built(name: str = 'PrototypeMatcher', runtime='openvino', kind=None) -> FewShotModel:
    cfg = dict(copy.deepcopy(METHODS[name]), encoder_runtime=runtime)
    cfg['data_preprocessor'] = dict(type='EpisodeDataPreprocessor')
    if name == 'FSSAM':
        cfg['sam2']['arch'] = tiny_arch(num_layers=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(**{k: v for k, v in cfg.items() if k != 'type'}) if kind else MODELS.build(cfg)
        return randomised(model).eval()


def episode(model: FewShotModel, batch: int = 1, shots: int = 2) -> tuple:
    """Arguments of ``run_episode``; the encoders, of which this is not, are run by torch."""
    data = episodes(batch, shots)
    with model.encoding.in_torch(), torch.no_grad():
        supports = model.encode_image(data['support'].flatten(0, 1), 'support')
        return model.encode_image(data['query']), supports, data['support_mask']


def check(found: Segmentation, truth: Segmentation) -> None:
    largest = truth.logits.abs().max()
    assert (found.logits - truth.logits).abs().max() <= 1e-4 * largest
    assert torch.equal(found.logits >= 0, truth.logits >= 0)
    assert found.maps.keys() == truth.maps.keys() and found.trace is None
    for name, values in truth.maps.items():
        torch.testing.assert_close(found.maps[name], values, rtol=1e-4, atol=1e-4)


@needs
@torch.no_grad()
def test_an_episode_of_fssam(conversions):
    model = built('FSSAM')
    given = episode(model)
    found = model.light.run_episode(*given)
    check(found, model.run_episode(*given))
    assert torch.equal(model.light.run_episode(*given).logits, found.logits)
    query = given[0]
    prepared = model.light.encode_query(query)
    assert prepared.sam2.top is query.sam2.top and prepared.prior is query.prior  # no copies
    torch.testing.assert_close(prepared.tokens, model.encode_query(query).tokens)
    record = model.encoding.runtimes.record
    assert {name: one['runtime'] for name, one in record.items()} == {
        EPISODE: 'openvino',
        QUERY: 'openvino',
    }
    assert len(conversions) == 2


@needs
@torch.no_grad()
def test_a_class_of_sam2_memory():
    model = built('SAM2Memory')
    query, supports, masks = episode(model)
    state = model.encode_support(supports, masks)
    check(model.light.segment(query, state), model.segment(query, state))
    assert model.encoding.runtimes.record[CLASS]['runtime'] == 'openvino'


@needs
@torch.no_grad()
def test_classes_of_other_shots_in_an_image(conversions):
    model, data = built(), [episodes(1, 1, seed=1), episodes(1, 2, seed=2)]
    shots = [
        [(image.permute(1, 2, 0).numpy().astype(np.uint8), mask.numpy())
         for image, mask in zip(one['support'][0], one['support_mask'][0])]
        for one in data
    ]  # fmt: skip
    with model.encoding.in_torch():
        states = encode_classes(model, shots)
        images = [model.encode_image(one['query']) for one in data]
        truths = [segment_classes(model, features, states) for features in images]
        both = segment_classes(model, cat(images), states)
    for features, truth in zip([*images, cat(images)], [*truths, both]):
        found = segment_classes(model, features, states)
        assert (found.logits - truth.logits).abs().max() <= 1e-4 * truth.logits.abs().max()
        assert torch.equal(found.logits >= 0, truth.logits >= 0)
        torch.testing.assert_close(found.scores, truth.scores, rtol=1e-4, atol=1e-5)
    record = model.encoding.runtimes.record  # nothing of encode_query, which gives what it gets
    assert list(record) == [CLASS] and record[CLASS]['runtime'] == 'openvino'
    assert len(conversions) == 2


@needs
@torch.no_grad()
@pytest.mark.parametrize('how', ['nowhere', 'emptied record'])
def test_what_is_kept_nowhere_and_what_cannot_be_read_gives_the_same_at_each_call(tmp_path, how):
    """Compiled from memory it gave torch's numbers at its first call alone."""
    directory = tmp_path / 'kept'
    if how == 'nowhere':
        directory.write_text('')
    runtime = dict(type='openvino', directory=str(directory))
    model = built('SAM2Memory', runtime)
    query, supports, masks = episode(model)
    state = model.encode_support(supports, masks)
    truth = model.segment(query, state)
    for _ in range(3):
        check(model.light.segment(query, state), truth)
    if how == 'nowhere':
        return
    (folder,) = (directory / 'models').iterdir()
    record = json.loads((folder / 'record.json').read_text())
    (folder / 'model.xml').write_text('<net')
    (folder / 'record.json').write_text(json.dumps(dict(record, files={})))
    again = built('SAM2Memory', runtime)
    for _ in range(3):
        check(again.light.segment(query, state), truth)
    assert json.loads((folder / 'record.json').read_text())['files'].keys() >= {'model.xml'}


class Scaled(PrototypeMatcher):
    """With a weight after the encoders."""

    def __init__(self, **how) -> None:
        super().__init__(**how)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def segment(self, query, state, truth=None) -> Segmentation:
        found = super().segment(query, state)
        return replace(found, logits=found.logits * self.scale)


@needs
@torch.no_grad()
def test_models_are_kept_by_weights(conversions, monkeypatch):
    model = built(kind=Scaled)
    given = episode(model)
    first = model.light.run_episode(*given)
    check(first, model.run_episode(*given))
    again = built(kind=Scaled)  # as another process
    assert torch.equal(again.light.run_episode(*given).logits, first.logits)
    assert len(conversions) == 1
    again.scale.mul_(3)
    check(again.light.run_episode(*given), again.run_episode(*given))
    assert len(conversions) == 2
    # of a method whose supports are no graph the second step
    monkeypatch.setattr(Scaled, 'not_static', lambda self: dict(encode_support='it is not'))
    check(model.light.run_episode(*given), model.run_episode(*given))
    record = model.encoding.runtimes.record
    assert list(record) == [EPISODE, CLASS] and record[CLASS]['runtime'] == 'openvino'


@needs
@torch.no_grad()
def test_what_stays_in_torch_bit_for_bit(monkeypatch):
    def asked(*args):
        raise AssertionError('the runtime was asked')

    monkeypatch.setattr(Runtimes, 'of_pass', asked)
    model = built()
    given = episode(model)
    truth = model.run_episode(*given).logits
    with pytest.raises(AssertionError, match='the runtime was asked'):
        model.light.run_episode(*given)

    def same(given=given, truth=truth):
        return torch.equal(model.light.run_episode(*given).logits, truth)

    several = episode(model, batch=2)
    assert same(several, model.run_episode(*several).logits)
    with torch.autocast('cpu', torch.bfloat16):
        assert same(truth=model.run_episode(*given).logits)
    with torch.enable_grad():
        assert same()
    for runtime in ('torch', 'auto'):
        with model.encoding.run_by(Runtimes(RuntimeSettings(runtime))):
            assert same()
    model.train()
    assert same()
    model.eval()
    with monkeypatch.context() as changes:
        changes.setattr(type(model), 'not_static', lambda self: dict(segment='it is not'))
        assert same()
    with model.encoding.in_torch():  # which does not train either: its encoders do not
        model.train().encode_image(episodes(1)['query'])
    model.eval()
    assert same()


@needs
@torch.no_grad()
def test_what_openvino_cannot_run_stays_in_torch_and_is_said_once(monkeypatch):
    said = []
    monkeypatch.setattr(choice, 'print_log', lambda text, *args: said.append(text))

    def fails(*given):
        raise converted.NotConverted('no such operation')

    with monkeypatch.context() as changes:
        changes.setattr(converted, 'converted', fails)
        model = built()
        for shots in (1, 1, 2):
            given = episode(model, shots=shots)
            truth = model.run_episode(*given).logits
            assert torch.equal(model.light.run_episode(*given).logits, truth)
        why = 'OpenVINO cannot run it: no such operation'
        assert model.encoding.runtimes.record == {EPISODE: dict(runtime='torch', why=why)}
        lines = [line for line in said if 'is run by' in line]
        assert lines == [f'Light pass: run_episode (PrototypeMatcher) is run by torch: {why}']
    given = episode(model, shots=3)
    check(model.light.run_episode(*given), model.run_episode(*given))
    record = model.encoding.runtimes.record[EPISODE]
    assert record['runtime'] == 'both' and record['torch']['why'] == why
    assert record['openvino']['precision'] == 'fp32'
    # numbers that are not torch's
    right = converted.Converted.__call__

    def wrong(self, *given):
        return tuple(2 * one for one in right(self, *given))

    monkeypatch.setattr(converted.Converted, '__call__', wrong)
    model = built()
    assert torch.equal(model.light.run_episode(*given).logits, model.run_episode(*given).logits)
    why = model.encoding.runtimes.record[EPISODE]['why']
    assert why.startswith("OpenVINO cannot run it: its numbers are not torch's (1.0e+00 of the")


@needs
@torch.no_grad()
def test_it_is_timed_once(tmp_path, monkeypatch):
    model = built()
    given = episode(model)
    model.light.run_episode(*given)
    record = model.encoding.runtimes.record[EPISODE]
    assert record['torch_ms'] > 0 and record['openvino_ms'] > 0
    (file,) = (tmp_path / 'cache/mmfss/openvino/decisions').iterdir()
    file.write_text(json.dumps(dict(json.loads(file.read_text()), runtime='torch', why='told')))
    told = built()
    assert torch.equal(told.light.run_episode(*given).logits, told.run_episode(*given).logits)
    times = {name: record[name] for name in ('torch_ms', 'openvino_ms')}
    assert told.encoding.runtimes.record == {EPISODE: dict(times, runtime='torch', why='told')}


@needs
@torch.no_grad()
def test_a_first_episode_that_is_nan_decides_nothing(conversions):
    """As of a broken photo: what is decided is kept for all runs."""
    model = built()
    query, supports, masks = episode(model)
    broken = with_tensors(query, [one * float('nan') for one in tensors_of(query)])
    assert model.light.run_episode(broken, supports, masks).logits.isnan().any()
    assert not conversions and not model.encoding.runtimes.record
    check(
        model.light.run_episode(query, supports, masks), model.run_episode(query, supports, masks)
    )
    assert model.encoding.runtimes.record[EPISODE]['runtime'] == 'openvino'


@needs
@torch.no_grad()
def test_logarithms_of_nothing_decide_like_other_values(monkeypatch):
    """A state of density has -inf where it has seen nothing."""
    monkeypatch.setitem(METHODS['DensityMatcher'], 'refine', None)
    model = built('DensityMatcher')
    query, supports, masks = episode(model, shots=1)
    state = model.encode_support(supports, masks)
    assert any(one.isinf().any() for one in tensors_of(state))
    check(model.light.segment(query, state), model.segment(query, state))
    assert model.encoding.runtimes.record[CLASS]['runtime'] == 'openvino'


@needs
@torch.no_grad()
def test_bf16_of_the_encoders_is_not_of_what_comes_after(monkeypatch):
    monkeypatch.setattr(converted, 'has_bf16', lambda: True)
    model = built(runtime=dict(type='openvino', precision='bf16'))
    given = episode(model)
    check(model.light.run_episode(*given), model.run_episode(*given))
    assert model.encoding.runtimes.record[EPISODE]['precision'] == 'fp32'


@needs
@torch.no_grad()
def test_tests_and_labels_say_so(tmp_path):
    model, data = built(), episodes(1)
    (sample,) = model.predict(inputs_of(data), samples_of(data))
    by_torch = built(runtime='torch')
    (truth,) = by_torch.predict(inputs_of(data), samples_of(data))
    assert torch.equal(sample.pred_sem_seg.data, truth.pred_sem_seg.data)
    assert list(model.encoding.runtimes.record) == ['encoder', EPISODE]
    assert list(by_torch.encoding.runtimes.record) == ['encoder']
    assert model.run(inputs_of(data)).maps.keys() == set(sample.maps.keys())
    # a copy has nothing of it
    twin = copy.deepcopy(model)
    assert twin.light.model is twin and twin.encoding.runtimes.record == {}

    image = data['support'][0, 0].permute(1, 2, 0).numpy().astype(np.uint8)
    (tmp_path / 'photos').mkdir()
    Image.fromarray(image).save(tmp_path / 'photos/a.png')
    inferencer = FewShotInferencer(model, threshold=0.0)
    inferencer.set_support({'it': [(image[..., ::-1], data['support_mask'][0, 0].numpy())]})
    for _ in range(2):  # the second time nothing is left to do
        label_folder(inferencer, tmp_path / 'photos', tmp_path / 'out')
        runtimes = json.loads((tmp_path / 'out/run.json').read_text())['info']['runtimes']
        assert runtimes['encoder']['runtime'] == runtimes[CLASS]['runtime'] == 'openvino'
        model.encoding.runtimes = Runtimes(RuntimeSettings.of('openvino'))
