"""What every few-shot method keeps to, asked of each that mmfss registers, in tiny form.

A method of one's own is asked the same by a config of it (``docs/own_method.md``)::

    MMFSS_METHOD=own_tiny.py python -m pytest tests/test_methods/test_contract.py
"""

from __future__ import annotations

import copy
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import segmentor_cases
import tiny_models
import tiny_runs
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import inference_model, init_model
from mmseg.registry import MODELS
from PIL import Image
from tiny_models import METHODS, episodes, inputs_of, samples_of
from torch import Tensor
from webui_steps import painted

from mmfss.apis import FewShotInferencer
from mmfss.apis.nway import encode_classes, segment_classes
from mmfss.batching import cat, repeat_all, repeat_each, take
from mmfss.checkpoints.record import describe_run
from mmfss.commands import test as testing
from mmfss.commands.label import label
from mmfss.datasets.folds import get_split
from mmfss.functional import RESIZES
from mmfss.methods.base import FewShotModel, Negatives, Segmentation
from mmfss.visualization.episodes import GAP
from mmfss.webui.folders import VisitorFolder
from mmfss.webui.limits import Limits
from mmfss.webui.session import Session
from mmfss.webui.worker import ModelChoice, ModelWorker

CLASSES = segmentor_cases.CLASSES
SIZES = ((64, 64), (48, 90), (101, 77))
"""(H, W) of the images that are labelled."""


def registered() -> list[str]:
    """Names of the few-shot methods that mmfss brings."""
    return sorted(
        name
        for name, cls in MODELS.module_dict.items()
        if isinstance(cls, type)
        and issubclass(cls, FewShotModel)
        and cls.__module__.startswith('mmfss.')
    )


CONFIGS: dict[str, dict] = {name: METHODS[name] for name in registered() if name in METHODS}
if 'MMFSS_METHOD' in os.environ:
    own = Config.fromfile(os.environ['MMFSS_METHOD']).model.to_dict()
    CONFIGS = {own['type']: own}


def test_every_registered_method_is_asked():
    missing = sorted(set(registered()) - set(METHODS))
    assert not missing, (
        f'no tiny config of {", ".join(missing)}: add one to METHODS in tests/tiny_models.py '
        f'(images of {tiny_models.SIZE} px, random weights), and all tests here are about it too'
    )
    strange = sorted(set(METHODS) - set(registered()))
    assert not strange, f'METHODS in tests/tiny_models.py has {strange}, which is not registered'


def test_maps_are_explained_in_the_docs():
    text = (Path(__file__).parents[2] / 'docs/methods.md').read_text()
    table = text.partition('## Maps')[2].partition('|---|---|---|\n')[2].splitlines()
    said = [tuple(part.strip() for part in line.split('|')[2:4]) for line in table]
    methods = [MODELS.get(name) for name in registered()]
    assert said == [entry for method in methods for entry in method.map_texts.items()]


# ---------------------------------------------------------------------------------------- models
def make(name: str, seed: int = 0, **changes: Any) -> FewShotModel:
    """The method in eval mode; the same weights for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS.build(copy.deepcopy({**CONFIGS[name], **changes}))
    return tiny_models.randomised(model, seed).eval()


@pytest.fixture(scope='module', params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    if 'SAM1' in str(CONFIGS[request.param]):
        pytest.importorskip('transformers', reason='mmfss[sam1] has it')
    return request.param


@pytest.fixture(scope='module')
def model(name: str) -> FewShotModel:
    """Shared; no test changes it."""
    return make(name)


def some(model: FewShotModel, batch: int = 1, shots: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """Episodes of as many shots, or of as many as the method takes."""
    return episodes(batch, min(shots, model.max_shots or shots), seed, model.image_size)


def run(model: FewShotModel, data: dict[str, Tensor]) -> Segmentation:
    with torch.set_grad_enabled(model.training):
        return model.run(inputs_of(data), samples_of(data))


def state_of(model: FewShotModel, data: dict[str, Tensor]) -> Any:
    features = model.encode_image(data['support'].flatten(0, 1), 'support')
    return model.encode_support(features, data['support_mask'])


def truth_of(data: dict[str, Tensor]) -> Tensor:
    return (data['truth'] == 1).float()[:, None]


def leaves(record: Any) -> list[Tensor]:
    """All tensors of a record of features or of a state."""
    if isinstance(record, Tensor):
        return [record]
    if is_dataclass(record):
        record = [getattr(record, field.name) for field in fields(record)]
    elif isinstance(record, dict):
        record = list(record.values())
    return [tensor for one in record or () for tensor in leaves(one)]


def assert_near(one: Tensor, other: Tensor) -> None:
    """Equal up to rounding."""
    scale = other.abs().max().item()
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * scale + 1e-7)


def assert_equal(one: Any, other: Any) -> None:
    """Bit for bit."""
    pairs = list(zip(leaves(one), leaves(other), strict=True))
    assert pairs and all(torch.equal(a, b) for a, b in pairs)


# ------------------------------------------------------------------------------------- episodes
@pytest.mark.parametrize('shots', [1, 3, 5])
def test_k_is_read_from_the_shape(model, shots):
    found = run(model, some(model, 2, shots))
    side = model.image_size
    assert found.logits.shape == (2, 1, side, side)
    assert found.logits.is_floating_point() and found.logits.isfinite().all()
    assert set(found.maps) <= set(model.map_texts)  # each is explained below pictures
    for name, values in found.maps.items():
        assert values.ndim == 4 and values.shape[:2] == (2, 1), name
        assert values.min() >= 0 and values.max() <= 1, name


@torch.no_grad()
def test_more_supports_than_a_method_takes_are_refused(model, name):
    if model.max_shots is None:
        return
    data = episodes(1, model.max_shots + 1, 0, model.image_size)
    message = f'{name} takes .* of a class, got {model.max_shots + 1}: it has no way to use more'
    with pytest.raises(ValueError, match=message):
        run(model, data)
    pairs = [
        (np.zeros((model.image_size, model.image_size, 3), np.uint8), mask.numpy())
        for mask in data['support_mask'][0]
    ]
    with pytest.raises(ValueError, match=message):
        encode_classes(model, [pairs])


def test_the_order_of_supports_does_not_matter(model):
    data = some(model, 2, 4)
    other = dict(data)
    order = [place for place in (2, 0, 3, 1) if place < data['support'].shape[1]]
    for key in ('support', 'support_mask'):
        other[key] = data[key][:, order]
    one, two = run(model, data), run(model, other)
    assert_near(one.logits, two.logits)
    for name, values in one.maps.items():
        assert_near(values, two.maps[name])


def test_supports_and_query_matter(model, name):
    """A method that ignored one of them would pass all else here."""
    data, other = some(model, 1, 1), some(model, 1, 1, seed=5)
    before = run(model, data).logits
    for keys in (('query',), ('support', 'support_mask')):
        changed = {**data, **{key: other[key] for key in keys}}
        same = torch.equal(before, run(model, changed).logits)
        assert same == (name == 'AllForeground'), keys


def test_a_batch_of_episodes_is_one_by_one(model):
    data = some(model, 3, 2)
    together = run(model, data)
    for i in range(3):
        alone = run(model, {key: value[i : i + 1] for key, value in data.items()})
        assert_near(together.logits[i : i + 1], alone.logits)
        assert set(alone.maps) == set(together.maps)
        for name, values in alone.maps.items():
            assert_near(together.maps[name][i : i + 1], values)


@torch.no_grad()
def test_features_and_states_are_batches(model):
    """Their first axis is the image or the episode, whatever they are made of."""
    data = some(model, 3, 2)
    features, state = model.encode_image(data['query']), state_of(model, data)
    assert {len(tensor) for tensor in leaves(features)} == {3}
    assert {len(tensor) for tensor in leaves(state)} <= {3}
    for record in (features, model.encode_query(features), state):
        parts = [take(record, slice(i, i + 1)) for i in range(3)]
        assert_equal(cat(parts), record)
        assert_equal(take(cat([record, record]), slice(3, 6)), record)
        assert_equal(repeat_all(record, 2), cat([record, record]))
        assert_equal(repeat_each(record, 2), cat([parts[i // 2] for i in range(6)]))
    whole = model.segment(features, state, truth_of(data)).logits
    for i in range(3):
        rows = slice(i, i + 1)
        one = model.segment(take(features, rows), take(state, rows), truth_of(data)[rows])
        assert_near(one.logits, whole[rows])
    # one query, all supports: as several classes are looked for in an image
    query = repeat_each(take(features, slice(1, 2)), 3)
    truth = truth_of(data)[1:2].expand(3, -1, -1, -1)
    assert_near(model.segment(query, state, truth).logits[1], whole[1])


@torch.no_grad()
def test_what_all_classes_of_an_image_share_changes_nothing(model):
    data = some(model, 2, 2)
    features, state = model.encode_image(data['query']), state_of(model, data)
    before = leaves(features)
    kept = [tensor.clone() for tensor in before]
    prepared = model.encode_query(features)
    plain = model.segment(features, state, truth_of(data)).logits
    assert_near(model.segment(prepared, state, truth_of(data)).logits, plain)
    assert_near(model.segment(prepared, state, truth_of(data)).logits, plain)  # twice
    assert all(torch.equal(a, b) for a, b in zip(before, kept))  # which may be of a cache


@torch.no_grad()
def test_features_that_are_compared(model):
    found = model.compared(model.encode_image(some(model, 2)['query']))
    assert found.ndim == 4 and len(found) == 2 and found.isfinite().all()
    assert_near(model.compared(model.encode_image(some(model, 2)['query'], 'support')), found)


@pytest.mark.parametrize('mask', ['empty', 'full', 'ignored', 'one pixel'])
def test_masks_of_supports_that_say_little(model, mask):
    data = some(model, 1, 2)
    masks = data['support_mask'] = data['support_mask'].clone()
    masks[:, 0] = dict(empty=0, full=1, ignored=255).get(mask, 0)
    if mask == 'one pixel':
        masks[:, 0, 7, 9] = 1
    found = run(model, data)
    assert found.logits.isfinite().all()
    masks[:, 1:] = masks[:, :1]
    found = run(model, data)
    assert found.logits.isfinite().all()
    for name, values in found.maps.items():
        assert values.min() >= 0 and values.max() <= 1, name


def test_ignored_pixels_of_supports_count_as_background(model):
    data = some(model, 1, 2)
    assert (data['support_mask'] == 255).any()
    plain = dict(data, support_mask=torch.where(data['support_mask'] == 1, 1, 0).to(torch.uint8))
    assert torch.equal(run(model, data).logits, run(model, plain).logits)


# ------------------------------------------------------------------------------------ negatives
def negatives_of(model: FewShotModel, data: dict[str, Tensor]) -> Negatives:
    """Of each episode its supports' objects in other images, as what is not the class."""
    features = model.encode_image(data['support'].flatten(0, 1), 'support')
    return Negatives(features, (data['support_mask'] == 1).to(torch.uint8))


@torch.no_grad()
def test_negatives_are_batches_and_matter(model):
    """A method takes them or has no such argument; what it makes of them is a batch, and changes
    what it finds."""
    data, other = some(model, 3, 2), some(model, 3, 1, seed=7)
    features = model.encode_image(data['support'].flatten(0, 1), 'support')
    if not model.takes_negatives:
        assert 'negatives' not in inspect.signature(model.encode_support).parameters
        return
    plain = model.encode_support(features, data['support_mask'])
    assert_equal(model.encode_support(features, data['support_mask'], None), plain)
    given = negatives_of(model, other)
    state = model.encode_support(features, data['support_mask'], given)
    query = model.encode_image(data['query'])
    found = model.segment(query, state).logits
    assert found.isfinite().all()
    assert not torch.equal(found, model.segment(query, plain).logits)
    parts = []
    for i in range(3):
        rows = slice(i, i + 1)
        shots = take(features, slice(2 * i, 2 * i + 2))
        one = Negatives(take(given.features, rows), given.masks[rows])
        parts.append(model.encode_support(shots, data['support_mask'][rows], one))
        assert_near(model.segment(take(query, rows), parts[-1]).logits, found[rows])
    for one, whole in zip(leaves(cat(parts)), leaves(state), strict=True):
        assert_near(one.float(), whole.float())
    # what is marked as not the class is not marked by it: its own object, of all things
    own = model.encode_support(features, data['support_mask'], negatives_of(model, data))
    before, after = model.segment(query, plain).logits, model.segment(query, own).logits
    assert (after >= 0).sum() <= (before >= 0).sum()


@torch.no_grad()
def test_classes_with_and_without_negatives_side_by_side(model, name):
    rng = np.random.default_rng(0)
    side = model.image_size

    def pair() -> tuple[np.ndarray, np.ndarray]:
        marked = np.zeros((side, side), np.uint8)
        marked[8:40, 10:50] = 1
        return rng.integers(0, 255, (side, side, 3), np.uint8), marked

    classes = [[pair()], [pair(), pair()][: model.max_shots], [pair()], [pair()]]
    negatives = [[], [pair()], [pair(), pair()], []]
    if not model.takes_negatives:
        with pytest.raises(ValueError, match=f'{name} takes no negatives .*PrototypeMatcher'):
            encode_classes(model, classes, negatives)
        return
    states = encode_classes(model, classes, negatives)
    assert sorted(group.members for group in states.groups) == [(0, 3), (1,), (2,)]
    features = model.encode_image(some(model, 2)['query'])
    found = segment_classes(model, features, states)
    for i in range(4):
        alone = encode_classes(model, classes[i : i + 1], negatives[i : i + 1])
        one = segment_classes(model, features, alone)
        assert_near(one.logits[:, 0], found.logits[:, i])
        assert_near(one.scores[:, 0], found.scores[:, i])


# ----------------------------------------------------------------------------- encoders and cache
def test_cached_is_computed_bit_for_bit(model, name, tmp_path):
    data = some(model, 2, 2)
    plain = run(model, data)
    cache = dict(type='FeatureCache', memory_bytes=2**28, directory=str(tmp_path))
    first = make(name, feature_cache=cache)
    assert_equal(run(first, data).logits, plain.logits)  # put there
    stats = first.encoding.cache.stats
    shots = data['support_mask'][:, :, 0, 0].numel()
    per_image = (2, first.query_encoders), (shots, first.support_encoders)
    assert stats.misses == stats.written == sum(n * len(names) for n, names in per_image)
    assert_equal(run(first, data).logits, plain.logits)  # from memory
    assert stats.memory_hits == stats.misses
    later = make(name, feature_cache=dict(cache, memory_bytes=0))
    found = run(later, data)  # from the disk
    assert later.encoding.cache.stats.disk_hits == stats.misses
    assert later.encoding.cache.stats.misses == 0
    assert_equal(found.logits, plain.logits)
    for key, values in found.maps.items():
        assert_equal(values, plain.maps[key])


def test_bfloat16(model):
    data = some(model, 2, 2)
    with torch.autocast('cpu', torch.bfloat16):
        found = run(model, data)
        compared = model.compared(model.encode_image(data['query']))
    assert found.logits.isfinite().all() and compared.isfinite().all()
    for name, values in found.maps.items():
        assert values.min() >= 0 and values.max() <= 1, name


# ------------------------------------------------------------------------------ what is trained
def test_gradients_on_what_is_trainable_and_nothing_else(name):
    model = make(name).train()
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert bool(learning) == model.needs_checkpoint
    data = some(model, 2, 2)
    if not learning:
        assert model.loss_decode is None
        with pytest.raises(ValueError, match=rf'{name} is not trained: it has no loss_decode'):
            model.loss(inputs_of(data), samples_of(data))
        return
    losses = model.loss(inputs_of(data), samples_of(data))
    sum(losses.values()).backward()
    idle = tiny_models.IDLE.get(name, ())
    for key, parameter in model.named_parameters():
        grad = parameter.grad
        if key not in learning:
            assert grad is None, f'{key} is frozen and has a gradient'
        elif not any(fnmatchcase(key, pattern) for pattern in idle):
            assert grad is not None and grad.any(), f'{key} learns and has no gradient'
            assert grad.isfinite().all(), key


def test_what_is_frozen_stays_in_eval_mode(name):
    model = make(name)
    for mode in (True, False, True):
        assert model.train(mode) is model and model.training == mode
        for key, part in model.named_modules():
            own = list(part.parameters(recurse=False))
            if not key or not list(part.parameters()):
                continue
            if own and any(p.requires_grad for p in own):
                assert part.training == mode, f'{key} learns'
            if not any(p.requires_grad for p in part.parameters()):
                still = [k for k, inner in part.named_modules() if inner.training]
                assert not still, f'{key} is frozen, and {still} of it is in training mode'


def test_copy_and_state_dict(model, name):
    data = some(model)
    expected = run(model, data).logits
    copied = copy.deepcopy(model)
    assert_equal(run(copied, data).logits, expected)
    assert {n for n, p in copied.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    other = make(name, seed=1)
    if list(model.parameters()):
        assert not torch.equal(run(other, data).logits, expected)
    other.load_state_dict(model.state_dict())
    assert_equal(run(other, data).logits, expected)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter += 1
    assert_equal(run(model, data).logits, expected)  # nothing is shared with the copy


def test_arch_is_plain_and_names_the_method(model, name):
    assert model.arch['type'] == name
    assert json.loads(json.dumps(model.arch)) == model.arch


@torch.no_grad()
def test_prompts_are_taken_or_refused(model, name):
    assert isinstance(model.takes_prompts, bool)
    if not model.takes_prompts:
        message = f'{name} takes no boxes, points or scribbles: it has no .*Give masks, or take'
        with pytest.raises(ValueError, match=message):
            model.prompter()
        return
    prompter = model.prompter()
    images, side = some(model, 2)['query'], model.image_size
    coords, labels = torch.tensor([[[8.0, 9.0]], [[30.0, 40.0]]]), torch.ones(2, 1).int()
    logits, ious = prompter(prompter.encode(images), coords, labels)
    assert logits.ndim == 4 and logits.shape[:2] == ious.shape and len(ious) == 2
    assert max(logits.shape[-2:]) <= side and logits.isfinite().all() and ious.isfinite().all()


# ----------------------------------------------------------------------------------- the doors
@dataclass(frozen=True)
class Doors:
    """Files as users have them.

    Attributes:
        config: of the method on a tiny benchmark.
        weights: None for a method that needs no checkpoint.
        support: of two classes, of 2 and 1 shots, or of as many as the method takes.
        images: files of several sizes.
        folder: all of it is in.
        expected: labels of the inferencer for each image.
    """

    config: str
    weights: str | None
    support: dict[str, list[tuple[str, str]]]
    images: list[str]
    folder: Path
    expected: list[np.ndarray]

    def inferencer(self) -> FewShotInferencer:
        return seeded(lambda: FewShotInferencer(self.config, self.weights, 'cpu', threshold=0.0))


def seeded(build: Callable[[], Any]) -> Any:
    """A method without a checkpoint runs on its encoders' weights, which are random here."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


@pytest.fixture(scope='module')
def shapes(tmp_path_factory, name, model):
    return tiny_runs.write_shapes(
        tmp_path_factory.mktemp('data') / 'shapes', train=1, val=40, size=model.image_size
    )


@pytest.fixture(scope='module')
def doors(name, model, shapes, tmp_path_factory) -> Doors:
    folder = tmp_path_factory.mktemp(f'doors_{name}')
    base = tiny_runs.write_config(folder / f'base_{name}.py', shapes)
    config = folder / f'door_{name}.py'
    held = {'data_preprocessor': dict(type='EpisodeDataPreprocessor'), **CONFIGS[name]}
    config.write_text(
        f'_base_ = {base!r}\nmodel = {dict(held, _delete_=True)!r}\n'
        'train_dataloader = train_cfg = optim_wrapper = param_scheduler = None\n'
        'val_dataloader = val_evaluator = val_cfg = None\n'
        "custom_hooks = [dict(type='EpisodeVisualizationHook', max_episodes=2, panel_size=64)]\n"
    )
    weights = None
    if model.needs_checkpoint:
        meta = describe_run(get_split('shapes-5i', 0), 'base', 1, model.arch, set(), None)
        weights = str(folder / 'weights.pth')
        content = dict(state_dict=model.state_dict(), meta=dict(epoch=1, iter=1, mmfss=meta))
        torch.save(content, weights)
    support = segmentor_cases.support(folder / 'support')
    support = {one: shots[: model.max_shots] for one, shots in support.items()}
    images = segmentor_cases.images(folder, SIZES)
    found = Doors(str(config), weights, support, images, folder, [])
    inferencer = found.inferencer()
    inferencer.set_support(support)
    inferencer.save_support(folder / 'support.safetensors')
    found.expected.extend(inferencer(path).labels for path in images)
    return found


def test_door_test_and_picture(doors, name, model, tmp_path):
    """tools/test.py: a table, its record, and the picture of episodes with the method's maps."""
    out = tmp_path / 'table'
    given = [] if doors.weights is None else [doors.weights]
    shots = range(1, 1 + min(2, model.max_shots or 2))
    report = testing.main(
        [doors.config, *given, '--shots', *map(str, shots), '--out', str(out), '--work-dir',
         str(tmp_path / 'work')]
    )  # fmt: skip
    assert len(report.runs) == len(shots) and all(
        0 <= r.metrics['mIoU'] <= 100 for r in report.runs
    )
    data = json.loads(out.with_suffix('.json').read_text())
    untrained = doors.weights is None
    for made in data['runs']:
        file = made['checkpoint_file']
        assert (made['checkpoint'] == 'nothing trained') == untrained
        assert ((file['selection'] or {}).get('rule') == 'nothing trained') == untrained
        assert file['path'] == doors.weights and len(file['sha256']) == 64
    assert ('nothing trained' in out.with_suffix('.md').read_text()) == untrained
    assert data['method'] == model.title
    assert f'- method: {model.title}\n' in out.with_suffix('.md').read_text()
    (picture,) = (tmp_path / 'work').glob('episodes.png')
    panels = shots[-1] + 5 + len(run(model, some(model)).maps) - 1  # of the last test
    assert cv2.imread(str(picture)).shape[1] == panels * (64 + GAP) + GAP
    if doors.weights is not None:
        with pytest.raises(ValueError, match=f'give at least one checkpoint: {name} has weights'):
            testing.main([doors.config, '--work-dir', str(tmp_path / 'none')])
    if model.max_shots is not None:
        with pytest.raises(ValueError, match=f'{name} takes .* of a class, got 9'):
            testing.main([doors.config, '--shots', '9', '--work-dir', str(tmp_path / 'none')])


def test_door_inferencer(doors, name):
    inferencer = doors.inferencer()
    inferencer.set_support(doors.support)
    found = [inferencer(path) for path in doors.images]
    for one, expected, size in zip(found, doors.expected, SIZES, strict=True):
        assert one.labels.shape == size and one.labels.max() <= 2
        assert one.scores.shape == (2,) and ((one.scores >= 0) & (one.scores <= 1)).all()
        np.testing.assert_array_equal(one.labels, expected)
    several = doors.inferencer()
    several.batch_size, several.pairs = 3, 4
    several.load_support(doors.folder / 'support.safetensors')
    for one, other in zip(found, several(list(doors.images)), strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
        assert (one.labels == other.labels).mean() > 0.98
    if doors.weights is not None:
        with pytest.raises(ValueError, match='weights must be given for'):
            FewShotInferencer(doors.config)


def test_door_label(doors, model, tmp_path, capsys):
    arguments = [str(doors.folder / 'support.safetensors'), str(doors.folder / 'images'),
                 str(tmp_path / 'out'), '--config', doors.config, '--threshold', '0', '--device',
                 'cpu']  # fmt: skip
    arguments += [] if doors.weights is None else ['--weights', doors.weights]
    assert seeded(lambda: label(arguments)) == 0
    said = json.loads((tmp_path / 'out/run.json').read_text())['info']
    assert said['weights'] == doors.weights and said['method'] == model.title
    as_published = model.title == type(model).__name__
    assert (f'method: {model.title}' in capsys.readouterr().err) != as_published
    assert (said.get('trained') == 'nothing trained') == (doors.weights is None)
    for path, expected in zip(doors.images, doors.expected, strict=True):
        written = np.asarray(Image.open(tmp_path / 'out/ann_dir' / Path(path).name))
        np.testing.assert_array_equal(written, expected)
    assert seeded(lambda: label(arguments)) == 0  # nothing is left to do


SEGMENTOR = '''
_base_ = '{repo}/configs/_base_/datasets/few_shot_segmentor.py'
model = {model}
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=({side}, {side}), **{resize}),
    dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
test_dataloader = dict(dataset=dict(
    data_root='{root}', metainfo=dict(classes={classes}), pipeline=test_pipeline))
randomness = dict(seed=0)
'''


def test_door_segmentor_in_mmseg(doors, name, model, tmp_path):
    held = dict(type='FewShotSegmentor', model=CONFIGS[name], threshold=0.0,
                support=str(doors.folder / 'support.safetensors'))  # fmt: skip
    config = tmp_path / f'segmentor_{name}.py'
    text = SEGMENTOR.format(
        repo=tiny_runs.REPO.as_posix(), model=held, side=model.image_size,
        resize=RESIZES[model.resize],
        root=doors.folder.as_posix(), classes=list(segmentor_cases.META),
    )  # fmt: skip
    config.write_text(text)
    built = seeded(lambda: init_model(str(config), doors.weights, device='cpu'))
    for path, expected in zip(doors.images, doors.expected, strict=True):
        result = inference_model(built, path)
        np.testing.assert_array_equal(result.pred_sem_seg.data[0].numpy(), expected)
    cfg = Config.fromfile(config)
    cfg.work_dir, cfg.load_from = str(tmp_path / 'work'), doors.weights
    figure = Runner.from_cfg(cfg).test()['mIoU']
    pixels = np.concatenate([one.ravel() for one in doors.expected])
    masks = sorted((doors.folder / 'masks').glob('*.png'))
    truth = np.concatenate([cv2.imread(str(mask), 0).ravel() for mask in masks])
    pixels, truth = pixels[truth != 255], truth[truth != 255]
    ious = [
        ((pixels == c) & (truth == c)).sum() / ((pixels == c) | (truth == c)).sum()
        for c in range(3)
    ]
    assert figure == pytest.approx(100 * np.mean(ious), abs=0.006)


def test_door_page(doors, name, model, tmp_path):
    """What the page does behind its buttons: mark with the brush, label."""
    worker = seeded(lambda: ModelWorker.load(ModelChoice(doors.config, doors.weights), 'cpu'))
    session = Session(worker, Limits(), VisitorFolder.below(tmp_path))
    try:
        for one, shots in doors.support.items():
            for path, mask in shots:
                session.add_photos([(Path(path), Path(path).name)])
                session.choose_photo(len(session.photos) - 1)
                session.use_mask(one, painted(cv2.imread(mask, 0) == 1))
        if not model.takes_prompts:
            with pytest.raises(ValueError, match=f'{name} takes no boxes.*A box does with every'):
                session.click('object', 20, 20)
        session.set_threshold(0.0)
        session.add_queries([(Path(path), Path(path).name) for path in doors.images])
        session.label()
        for query, expected in zip(session.queries, doors.expected, strict=True):
            np.testing.assert_array_equal(query.whole().labels, expected)
    finally:
        session.close()
        worker.close()


# ------------------------------------------------------------------------- what is not a method
@pytest.mark.parametrize(
    'lacking', [('encode_support',), ('segment', 'compared'), ('encode_support', 'segment')]
)
def test_a_class_that_lacks_a_part_is_refused_when_it_is_built(lacking):
    own = ('encode_support', 'segment', 'compared')
    parts = {part: lambda self, *args: None for part in own if part not in lacking}
    kind = type('Half', (FewShotModel,), parts)
    message = (
        f'Half lacks {", ".join(lacking)}: a few-shot method implements encode_support, segment, '
        'compared, see mmfss.methods.base.FewShotModel'
    )
    with pytest.raises(ValueError, match=message):
        kind({}, 64)
