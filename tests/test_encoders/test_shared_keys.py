"""Which encoders share features in a directory: equal ones always, whoever holds them, and others
never. Nothing of an encoder's code is listed by hand."""

from __future__ import annotations

import copy
import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import in_a_process
from mmengine.dataset import Compose
from mmseg.registry import MODELS
from tiny_models import (
    METHODS,
    PRIOR,
    SIZE,
    TINY_DINO,
    config,
    episodes,
    inputs_of,
    randomised,
    samples_of,
)
from torch import Tensor, nn

from mmfss.datasets.deferred import image_steps
from mmfss.datasets.transforms import LoadImage
from mmfss.encoders.base import Encoder, Step


def make(cfg: dict, directory: Path | None = None, seed: int = 0, **cache: Any):
    """A method whose encoders have the same weights wherever they are of the same kind."""
    kept = dict(type='FeatureCache', memory_bytes=2**26, **cache)
    if directory is not None:
        kept['directory'] = str(directory)
    model = MODELS.build(dict(copy.deepcopy(cfg), feature_cache=kept))
    for encoder in model.encoders.values():
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, parameter in sorted(encoder.named_parameters()):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def keys(directory: Path) -> set[str]:
    """The folder of each key."""
    return {path.name for path in directory.iterdir()} if directory.is_dir() else set()


def images(seed: int = 0) -> Tensor:
    return episodes(2, seed=seed)['query']


@torch.no_grad()
def encoded(model, name: str = 'encoder', pictures: Tensor | None = None) -> tuple[Tensor, int]:
    """The last map of two images, and how many of them were computed for it."""
    stats = model.encoding.cache.stats
    before = stats.misses
    pictures = images() if pictures is None else pictures
    return model.encoding([name], pictures)[name][-1], stats.misses - before


# ----------------------------------------------------------------------------- methods that share
@pytest.mark.parametrize('order', [1, -1])
def test_two_methods_around_one_encoder_share_its_features(tmp_path, order):
    first, second = ('PrototypeMatcher', 'PseudoMask')[::order]
    data = inputs_of(episodes(2, 2))
    alone = make(METHODS[second]).run(data).logits
    model = make(METHODS[first], tmp_path)
    features, computed = encoded(model)
    assert computed == 2
    model.run(data)
    other = make(METHODS[second], tmp_path)
    same, computed = encoded(other)
    assert computed == 0 and torch.equal(features, same)
    assert torch.equal(other.run(data).logits, alone)
    assert other.encoding.cache.stats.misses == 0 and len(keys(tmp_path)) == 1


def test_fssam_and_a_method_without_sam2_share_the_prior_encoder(tmp_path):
    fssam = make(METHODS['FSSAM'], tmp_path)
    features, computed = encoded(fssam, 'prior_encoder')
    assert computed == 2 and len(keys(tmp_path)) == 1
    matcher = make(METHODS['PrototypeMatcher'], tmp_path)
    same, computed = encoded(matcher)
    assert computed == 0 and torch.equal(features, same)
    _, computed = encoded(fssam, 'sam2')
    assert computed == 2 and len(keys(tmp_path)) == 2
    # what comes after the encoders is in no key
    changes = dict(memory_attention=None, memory_refinement=None, trainable=['sam2.memory_encoder'])
    for part in ('sam2', 'prior_encoder'):
        assert encoded(make(config(**changes), tmp_path), part)[1] == 0


def test_a_trained_decoder_shares_what_comes_before_it(tmp_path):
    """Other weights after the encoders, of another training: the same features."""
    encoded(make(METHODS['FSSAM'], tmp_path), 'sam2')
    other = make(METHODS['FSSAM'], tmp_path)
    with torch.no_grad():
        for parameter in other.sam2.parameters():
            if parameter.requires_grad:
                parameter += 1
    assert encoded(other, 'sam2')[1] == 0


CHANGES = {
    'weights': dict(seed=1),
    'image size': dict(image_size=56),
    'arch of the same weights': dict(arch=dict(TINY_DINO, interpolate_offset=0.0)),
    'larger arch': dict(arch=dict(TINY_DINO, depth=2)),
    'chunks': dict(encode_batch=2),
    'nothing': {},
}


@pytest.mark.parametrize('kind', CHANGES)
def test_what_changes_features_changes_the_key(tmp_path, kind):
    changes = dict(CHANGES[kind])
    features, _ = encoded(make(METHODS['PrototypeMatcher'], tmp_path))
    seed, chunk = changes.pop('seed', 0), changes.pop('encode_batch', 1)
    cfg = dict(METHODS['PrototypeMatcher'], encoder={**PRIOR, **changes}, encode_batch=chunk)
    model = make(cfg, tmp_path, seed)
    other, computed = encoded(model)
    assert (computed, len(keys(tmp_path))) == ((0, 1) if kind == 'nothing' else (2, 2))
    if kind in ('weights', 'image size', 'arch of the same weights', 'larger arch'):
        assert other.shape != features.shape or not torch.equal(other, features)
    assert torch.equal(other, encoded(make(cfg, None, seed))[0])


def test_the_map_that_is_taken_is_in_the_key(tmp_path):
    net = dict(type='ResNetV1c', depth=18, stem_channels=8, base_channels=8, norm_eval=True)
    shapes = []
    for index in (2, 3, 2):
        encoder = dict(type='BackboneEncoder', image_size=64, out_index=index, backbone=net)
        features, _ = encoded(make(dict(METHODS['PrototypeMatcher'], encoder=encoder), tmp_path))
        shapes.append(tuple(features.shape))
    assert shapes == [(2, 32, 4, 4), (2, 64, 2, 2), (2, 32, 4, 4)] and len(keys(tmp_path)) == 2


def scaled_by(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda images: factor * images


class Scaled(Encoder):
    """Holds a function that was made elsewhere."""

    arch = 'scaled'

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, pictures: Tensor) -> tuple[Tensor]:
        return (self.function(self.normalise(pictures)),)


def test_a_function_in_an_attribute_is_told_apart_by_what_it_holds(tmp_path):
    """By the numbers that it closes over, its defaults and its place in the file."""
    functions = [
        scaled_by(2), scaled_by(3), lambda x: 4 * x, lambda x, by=5: by * x,
        functools.partial(torch.mul, 6),
    ]  # fmt: skip
    functions.append(lambda x, by=7: by * x)
    found = []
    for function in (*functions, *functions):
        cfg = dict(METHODS['PrototypeMatcher'], encoder=dict(type=Scaled, function=function))
        found.append(encoded(make(cfg, tmp_path)))
    first = found[0][0] / 2
    for factor, (features, _) in zip((2, 3, 4, 5, 6, 7) * 2, found, strict=True):
        torch.testing.assert_close(features, factor * first)
    assert [computed for _, computed in found] == [2] * 6 + [0] * 6


# ------------------------------------------------------------------------- code of one's own
OWN = '''
import torch
from mmfss.datasets.deferred import image_steps
from mmfss.datasets.transforms import LoadImage
from mmfss.encoders.base import Encoder, Step
{imports}

class Own(Encoder):
    arch = 'own'

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Conv2d(3, 4, 8, 8)

    def forward(self, images):
        {inside}
        return ({value},)
'''
STEPS = '''
    def steps(self):
        return (Step(dict(net=self.net), self.forward),)
'''


def load(folder: Path, module: str = 'own_encoder') -> type[Encoder]:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    return importlib.import_module(module).Own


def features_of(kind: type[Encoder], directory: Path | None, seed: int = 0):
    """In lists, for the way between processes: features, how many were computed."""
    cfg = dict(METHODS['PrototypeMatcher'], encoder=dict(type=kind))
    features, computed = encoded(make(cfg, directory), pictures=images(seed))
    return features.tolist(), computed


def write(folder: Path, name: str, value: str, imports: str = '', inside: str = 'pass') -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f'{name}.py'
    path.write_text(OWN.format(value=value, imports=imports, inside=inside))
    return path


TWICE, HALF = 'self.net(2 * images)', 'self.net(images / 2)'


def test_two_encoders_around_one_network_in_one_process(tmp_path):
    write(tmp_path / 'code', 'one_encoder', TWICE)
    write(tmp_path / 'code', 'two_encoder', HALF)

    def work():
        kinds = [load(tmp_path / 'code', f'{name}_encoder') for name in ('one', 'two')]
        alone = [features_of(kind, None) for kind in kinds]
        together = [features_of(kind, tmp_path / 'kept') for kind in (*kinds, *kinds)]
        return alone, together

    alone, together = in_a_process(work)
    assert [computed for _, computed in together] == [2, 2, 0, 0]
    assert [features for features, _ in together] == [features for features, _ in alone * 2]
    assert alone[0] != alone[1] and len(keys(tmp_path / 'kept')) == 2


@pytest.mark.parametrize('names', [('one_encoder', 'two_encoder'), ('encoder', 'encoder')])
def test_two_encoders_around_one_network_in_two_processes(tmp_path, names):
    """Also where module and class have the same names, in two folders."""
    found, alone = [], []
    for folder, name, value in zip('ab', names, (TWICE, HALF)):
        write(tmp_path / folder, name, value)
        place = tmp_path / folder
        alone.append(in_a_process(lambda: features_of(load(place, name), None)))  # noqa: B023
        kept = tmp_path / 'kept'
        found.append(in_a_process(lambda: features_of(load(place, name), kept)))  # noqa: B023
    assert [computed for _, computed in found] == [2, 2]
    assert [f for f, _ in found] == [f for f, _ in alone] and found[0] != found[1]


BESIDE = 'FACTOR = {0}\n\n\ndef scaled(images):\n    return {0} * images\n'
EDITS = {
    'the class': dict(value='self.net({0} * images)', edits='own_encoder'),
    'a function beside it': dict(
        value='self.net(scaled(images))', imports='from beside import scaled', edits='beside'
    ),
    'a module beside it': dict(
        value='self.net(beside.scaled(images))', imports='import beside', edits='beside'
    ),
    'a number beside it': dict(
        value='self.net(FACTOR * images)', imports='from beside import FACTOR', edits='beside'
    ),
    'what is imported when it runs': dict(
        value='self.net(scaled(images))', inside='from beside import scaled', edits='beside'
    ),
    'what a module beside it imports': dict(
        value='self.net(further(images))',
        imports='from between import further',
        between='from beside import scaled as further\n',
        edits='beside',
    ),
    'a number two modules away': dict(
        value='self.net(MORE * images)',
        imports='from between import MORE',
        between='from beside import FACTOR\nMORE = 1 * FACTOR\n',
        edits='beside',
    ),
    'a file that is not imported': dict(value=TWICE, edits='beside'),
}


@pytest.mark.parametrize(('packed', 'steps'), [(False, False), (True, True)])
@pytest.mark.parametrize('kind', EDITS)
def test_an_edit_of_the_code_is_another_key(tmp_path, kind, packed, steps):
    """Of the class and of what it imports; of modules, and of a folder without ``__init__.py`` as
    mmseg's projects are; also where the steps do not name the encoder itself."""
    case = EDITS[kind]
    code, kept = tmp_path / 'code', tmp_path / 'kept'
    place = code / 'project' if packed else code
    prefix = 'project.' if packed else ''

    def named(text: str) -> str:
        for name in ('beside', 'between'):
            text = text.replace(f'from {name} import', f'from {prefix}{name} import')
        return text.replace('import beside', f'from {prefix[:-1]} import beside' if packed else
                            'import beside')  # fmt: skip

    def write_all(factor: int) -> None:
        write(place, 'own_encoder', case['value'].format(factor),
              named(case.get('imports', '')), named(case.get('inside', 'pass')))  # fmt: skip
        if steps:
            with (place / 'own_encoder.py').open('a') as file:
                file.write(STEPS)
        (place / 'beside.py').write_text(BESIDE.format(factor))
        (place / 'between.py').write_text(named(case.get('between', '')))

    def run(directory: Path | None):
        return in_a_process(lambda: features_of(load(code, f'{prefix}own_encoder'), directory))

    write_all(2)
    before = run(kept)
    assert run(kept) == (before[0], 0)
    write_all(3)
    after = run(kept)
    if kind == 'a file that is not imported':
        assert after == (before[0], 0)
        return
    assert after == (run(None)[0], 2) and after[0] != before[0]
    write_all(2)
    assert run(kept) == (before[0], 0)  # the old key is still there


def test_an_edit_while_a_process_runs_is_not_its_code(tmp_path):
    """It goes on with what it has imported, and must not leave that under the key of the new
    file: a training often runs while its author goes on writing."""
    code, kept = tmp_path / 'code', tmp_path / 'kept'
    write(code, 'own_encoder', TWICE)

    def work():
        kind = load(code)
        first = features_of(kind, kept)
        write(code, 'own_encoder', HALF)
        again, later = features_of(kind, kept), features_of(kind, kept, seed=5)
        return first, again, later

    first, again, later = in_a_process(work)
    assert again == (first[0], 0) and later[1] == 2
    for seed in (0, 5):
        new = in_a_process(lambda: features_of(load(code), kept, seed))  # noqa: B023
        assert new == (in_a_process(lambda: features_of(load(code), None, seed))[0], 2)  # noqa: B023
        assert new[0] != (later if seed else first)[0]


def test_an_edit_before_the_first_image_is_not_its_code(tmp_path):
    """From the import to the first image it may be minutes."""
    code, kept = tmp_path / 'code', tmp_path / 'kept'
    write(code, 'own_encoder', TWICE)

    def work():
        kind = load(code)
        write(code, 'own_encoder', HALF)
        return features_of(kind, kept)

    old = in_a_process(work)
    new = in_a_process(lambda: features_of(load(code), kept))
    assert new == (in_a_process(lambda: features_of(load(code), None))[0], 2) and new != old


def test_a_module_that_is_loaded_again_is_its_new_code(tmp_path):
    """As in a notebook."""
    code, kept = tmp_path / 'code', tmp_path / 'kept'
    write(code, 'own_encoder', TWICE)

    def work():
        kind = load(code)
        first = features_of(kind, kept)
        write(code, 'own_encoder', HALF + ' + 0')
        again = importlib.reload(sys.modules['own_encoder']).Own
        return first, features_of(again, kept), features_of(again, None)

    first, found, alone = in_a_process(work)
    assert found == alone and found[1] == 2 and found[0] != first[0]


# --------------------------------------------------------------------- encoders that are trained
class TwoSteps(Encoder):
    """Trunk and neck; counts the images that each sees."""

    arch = 'two steps'

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.neck = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 1)
        self.seen = [0, 0]

    def _trunk(self, pictures: Tensor) -> tuple[Tensor]:
        self.seen[0] += len(pictures)
        return (self.trunk(self.normalise(pictures)),)

    def _neck(self, level: Tensor) -> tuple[Tensor]:
        self.seen[1] += len(level)
        return (self.neck(level),)

    def forward(self, pictures: Tensor) -> tuple[Tensor]:
        return self._neck(*self._trunk(pictures))

    def steps(self) -> tuple[Step, Step]:
        trunk = dict(trunk=self.trunk, normalise=self.normalise)
        return Step(trunk, self._trunk), Step(dict(neck=self.neck), self._neck)


def trained(directory: Path, trainable: str | None = 'encoder.neck', training: bool = True):
    cfg = dict(METHODS['PrototypeMatcher'], encoder=dict(type=TwoSteps),
               loss_decode=dict(type='SquaredDiceLoss'))  # fmt: skip
    if trainable is not None:
        cfg['trainable'] = [trainable]
    return make(cfg, directory, training=training)


def seen(model) -> tuple[int, int]:
    """Images that trunk and neck saw since this was asked last."""
    found, model.encoder.seen = tuple(model.encoder.seen), [0, 0]
    return found


def train_step(model) -> None:
    data = episodes(2, 1)
    model.train()
    model.zero_grad()
    loss = model.loss(inputs_of(data), samples_of(data))['loss_dice']
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    model.eval()


def test_in_evaluation_the_whole_of_a_trained_encoder_is_kept(tmp_path):
    model = trained(tmp_path)
    first, _ = encoded(model)
    assert seen(model) == (2, 2)
    again, _ = encoded(model)
    assert seen(model) == (0, 0) and torch.equal(first, again)
    later = trained(tmp_path)
    assert torch.equal(encoded(later)[0], first) and seen(later) == (0, 0)
    # what is before the trained step has a key of its own; it is kept in a training alone
    assert len(keys(tmp_path)) == 2 and len(list(tmp_path.rglob('*.safetensors'))) == 2
    frozen = trained(tmp_path, trainable=None)
    assert torch.equal(encoded(frozen)[0], first) and seen(frozen) == (0, 0)


def test_in_training_what_comes_before_the_first_gradient_is_kept(tmp_path):
    model = trained(tmp_path)
    train_step(model)
    assert seen(model) == (4, 4) and len(keys(tmp_path)) == 1
    assert model.encoder.neck.weight.grad.any() and model.encoder.trunk.weight.grad is None
    train_step(model)
    assert seen(model) == (0, 4)  # trunk from the cache, neck with a gradient
    with torch.no_grad():
        model.encoder.trunk.weight += 1
    train_step(model)
    assert seen(model) == (4, 4) and len(keys(tmp_path)) == 2
    whole = trained(tmp_path, trainable='encoder')
    for _ in range(2):
        train_step(whole)
        assert seen(whole) == (4, 4)  # nothing comes before the first gradient
    assert len(keys(tmp_path)) == 2


def test_validations_during_a_training_leave_passing_features_in_memory(tmp_path):
    model = trained(tmp_path)
    kept = set()
    for epoch in range(3):
        train_step(model)
        seen(model)
        features, _ = encoded(model, pictures=images(9))
        assert seen(model) == (2 if epoch == 0 else 0, 2)  # new weights of the neck alone
        again, _ = encoded(model, pictures=images(9))
        assert seen(model) == (0, 0) and torch.equal(features, again)
        alone = trained(tmp_path / 'none', training=False)
        alone.load_state_dict(model.state_dict())
        assert torch.equal(encoded(alone, pictures=images(9))[0], features)
        kept |= keys(tmp_path) - {'none'}
    # on disk: the trunk's, of the images of training and of validation
    assert len(kept) == 1
    files = list((tmp_path / kept.pop()).rglob('*.safetensors'))
    assert len(files) == 4 + 2
    # a test of what came out of it keeps the whole
    after = trained(tmp_path)
    after.load_state_dict(model.state_dict())
    assert torch.equal(encoded(after, pictures=images(9))[0], features)
    assert seen(after) == (0, 2) and len(keys(tmp_path) - {'none'}) == 2


def test_weights_that_come_back_have_their_key_back(tmp_path):
    model = make(METHODS['PrototypeMatcher'], tmp_path)
    first, _ = encoded(model)
    state = copy.deepcopy(model.state_dict())
    randomised(model, seed=3)
    second, computed = encoded(model)
    assert computed == 2 and not torch.equal(first, second) and len(keys(tmp_path)) == 2
    model.load_state_dict(state)
    third, computed = encoded(model)
    assert computed == 0 and torch.equal(first, third) and first.shape[-1] != SIZE


# ------------------------------------------------------------------------------- images
TRANSFORM = '''
from mmcv.transforms import BaseTransform
from beside import scaled

class Own(BaseTransform):
    deterministic = True

    def transform(self, results):
        results['img'] = scaled(results['img'])
        return results
'''


def test_an_edit_behind_a_transform_is_another_image(tmp_path):
    """Of a module that the transform's own imports: the pixels are others."""
    (tmp_path / 'own_transform.py').write_text(TRANSFORM)

    def digest() -> str:
        return image_steps(Compose([LoadImage(), load(tmp_path, 'own_transform')()])).digest

    digests = []
    for factor in (2, 3, 2):
        (tmp_path / 'beside.py').write_text(BESIDE.format(factor))
        digests.append(in_a_process(digest))
    assert digests[0] == digests[2] != digests[1]
