"""Images in batches and with kept features give what they give one by one."""

from __future__ import annotations

import threading
import time
import weakref
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from mmengine.config import Config
from PIL import Image

from mmfss.apis import FewShotInferencer
from mmfss.apis.images import read_ahead

COUNT = 7


def _image(seed: int, shape: tuple[int, int] = (50, 70)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 160, (*shape, 3), dtype=np.uint8)
    top, left = (int(rng.integers(0, side // 2)) for side in shape)
    image[top : top + shape[0] // 2, left : left + shape[1] // 2] += 90
    return image


def _mask(left: int = 5) -> np.ndarray:
    mask = np.zeros((50, 70), bool)
    mask[10:40, left : left + 30] = True
    return mask


SHOTS = {
    'cat': [(_image(100), _mask()), (_image(101), _mask(20))],
    'cup': [(_image(102), _mask(35))],
    'dog': [(_image(103), _mask(1))],
}


@pytest.fixture(scope='module')
def model():
    return tiny_models.build()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    for i in range(COUNT):
        Image.fromarray(_image(i, (40 + 7 * i, 90 - 6 * i))).save(root / f'{i}.png')
    return root


def _inferencer(model, **options) -> FewShotInferencer:
    inferencer = FewShotInferencer(model, threshold=0.0, **options)
    inferencer.set_support(SHOTS)
    return inferencer


@pytest.fixture(scope='module')
def alone(model, folder):
    return list(_inferencer(model)(folder))


@pytest.mark.parametrize('batch_size', [2, 3, COUNT, 50])
@pytest.mark.parametrize('pairs', [1, 5])
def test_batches_give_the_same_labels(model, folder, alone, batch_size, pairs):
    found = list(_inferencer(model, batch_size=batch_size, pairs=pairs)(folder))
    assert [one.source for one in found] == [str(folder / f'{i}.png') for i in range(COUNT)]
    assert sum(len(one.present) for one in alone) >= COUNT  # more than empty masks
    for one, other in zip(found, alone, strict=True):
        assert np.array_equal(one.labels, other.labels)
        np.testing.assert_allclose(one.logits, other.logits, rtol=0, atol=1e-4)
        np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-5)


def test_one_image_does_not_depend_on_the_others(model, folder, alone):
    paths = [folder / f'{i}.png' for i in (4, 1, 6)]
    for path, one in zip(paths, _inferencer(model)(paths), strict=True):
        assert one.logits.tobytes() == alone[int(path.stem)].logits.tobytes()
        assert one.scores.tobytes() == alone[int(path.stem)].scores.tobytes()


@pytest.mark.parametrize('batch_size', [1, 2, 4, 9])
def test_a_broken_image_is_an_error_of_its_own(model, folder, tmp_path, batch_size):
    (tmp_path / 'torn.png').write_bytes((folder / '3.png').read_bytes()[:200])
    paths = [folder / '0.png', folder / '1.png', tmp_path / 'torn.png', folder / '2.png']
    inferencer = _inferencer(model, batch_size=batch_size)
    stream, before = inferencer(path for path in paths), []
    with pytest.raises(ValueError, match='torn.png: it is truncated'):
        before.extend(stream)
    assert [Path(one.source).name for one in before] == ['0.png', '1.png']
    with pytest.raises(ValueError, match='torn.png: it is truncated'):
        inferencer(paths)


@pytest.mark.parametrize('batch_size', [1, 3])
def test_a_generator_that_fails_after_two_images(model, batch_size):
    def images():
        yield from (_image(0), _image(1))
        raise OSError('camera is gone')

    found = []
    with pytest.raises(OSError, match='camera is gone'):
        found.extend(_inferencer(model, batch_size=batch_size)(images()))
    assert [one.source for one in found] == ['image 0', 'image 1']


def test_no_image_and_wrong_numbers(model):
    assert _inferencer(model, batch_size=3)([]) == []
    for name in ('batch_size', 'pairs'):
        for value in (0, -1, 2.0, True):
            with pytest.raises(ValueError, match=f'{name} must be an integer >= 1, got {value}'):
                FewShotInferencer(model, **{name: value})


# ------------------------------------------------------------------ reading
def test_one_list_is_read_ahead_and_no_more():
    asked, caller = [], threading.get_ident()

    def items():
        for i in range(10):
            asked.append(i)
            yield i

    def read(item):
        assert threading.get_ident() != caller
        return -item

    stream = read_ahead(read, items(), 2)
    assert [one.result() for one in next(stream)] == [0, -1] and asked == [0, 1, 2, 3]
    assert [one.result() for one in next(stream)] == [-2, -3] and asked[-1] == 5
    stream.close()
    assert len(asked) == 6
    rest = [[one.result() for one in batch] for batch in read_ahead(read, range(5), 3)]
    assert rest == [[0, -1, -2], [-3, -4]]
    assert list(read_ahead(read, [], 3)) == []


class Pixels:
    """Of an image."""


def test_a_list_is_emptied_before_the_next_is_asked_for():
    read, held = [], []

    def items():
        for i in range(8):
            held.append(sum(one() is not None for one in read))
            yield i

    def reads(item):
        pixels = Pixels()
        read.append(weakref.ref(pixels))
        return pixels

    for batch in read_ahead(reads, items(), 2):
        assert len(batch) == 2
        while len(read) < len(held):  # until all that were asked for are there
            time.sleep(0.001)
    assert len(read) == 8 and max(held) <= 2 + 1  # the next two, and the first of those after them


def test_an_image_is_let_go_with_its_list(model, folder, monkeypatch):
    def read_in_turn(read, items, batch):
        for item in items:
            now = [Future()]
            now[0].set_result(read(item))
            pixels = weakref.ref(now[0].result()[0])
            yield now
            now.clear()
            assert pixels() is None

    monkeypatch.setattr('mmfss.apis.inferencer.read_ahead', read_in_turn)
    assert len(list(_inferencer(model)(folder))) == COUNT


# ------------------------------------------------------------------ kept features
@pytest.fixture
def tiny(tmp_path, model):
    cfg = Config(dict(model=tiny_models.FULL, object_threshold=0.0))
    cfg.model.feature_cache = dict(type='FeatureCache', directory=str(tmp_path / 'of_config'))
    cfg.dump(str(tmp_path / 'tiny.py'))
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'tiny.pth')
    return tmp_path / 'tiny.py', tmp_path / 'tiny.pth', 'cpu'


def test_kept_features_change_no_bit_and_save_the_encoders(
    tiny, folder, alone, tmp_path, monkeypatch
):
    for run in range(2):
        inferencer = FewShotInferencer(*tiny, feature_cache=tmp_path / 'kept')
        inferencer.set_support(SHOTS)
        if run:  # everything is there
            monkeypatch.setattr(inferencer.model.encoding, '_chunk', None)
        for one, other in zip(inferencer(folder), alone, strict=True):
            assert one.logits.tobytes() == other.logits.tobytes()
            assert one.scores.tobytes() == other.scores.tobytes()
            assert np.array_equal(one.labels, other.labels)
    other_supports = {'cup': SHOTS['cup']}
    inferencer.set_support(other_supports)
    assert len(list(inferencer(folder))) == COUNT


def test_without_the_option_nothing_is_kept(tiny, folder, tmp_path):
    inferencer = FewShotInferencer(*tiny)
    inferencer.set_support(SHOTS)
    next(inferencer(folder))
    assert not (tmp_path / 'of_config').exists() and inferencer.model.encoding.cache is None


def test_kept_features_of_a_built_model_are_its_own(model, tmp_path):
    with pytest.raises(ValueError, match='feature_cache is given with a model that is built'):
        FewShotInferencer(model, feature_cache=tmp_path)


def test_encoders_take_a_batch_at_a_time(tiny):
    assert FewShotInferencer(*tiny, batch_size=4).model.encoding.chunk == 4
    assert FewShotInferencer(*tiny).model.encoding.chunk == 1
