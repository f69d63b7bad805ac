"""The inferencer, with a model of random weights."""

import types

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image
from tiny_models import FULL, SIZE

from mmfss.apis import FewShotInferencer, SupportSet, load_model
from mmfss.apis.images import to_model_size
from mmfss.functional import logits_to_mask


def _image(seed, shape=(50, 70)):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def _mask(left=5, shape=(50, 70)):
    mask = np.zeros(shape, bool)
    mask[10:40, left : left + 30] = True
    return mask


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return MODELS.build(FULL)


@pytest.fixture
def inferencer(model):
    inferencer = FewShotInferencer(model, threshold=0.0)
    inferencer.set_support(
        {'cat': [(_image(0), _mask()), (_image(1), _mask(20))], 'cup': [(_image(2), _mask(35))]}
    )
    return inferencer


def test_every_kind_of_input_gives_the_same(inferencer, tmp_path):
    images = [_image(7, (33, 65)), _image(8, (90, 41))]
    paths = [tmp_path / f'{i}.png' for i in range(2)]
    for path, image in zip(paths, images):
        Image.fromarray(image[..., ::-1]).save(path)
    alone = [inferencer(image) for image in images]
    assert [p.labels.shape for p in alone] == [(33, 65), (90, 41)]
    as_list = inferencer(images)
    from_folder = inferencer(tmp_path)
    from_generator = inferencer(path for path in paths)
    assert isinstance(as_list, list)
    assert isinstance(from_folder, types.GeneratorType)
    for found in (as_list, list(from_folder), list(from_generator), inferencer(tuple(paths))):
        for one, other in zip(found, alone, strict=True):
            assert np.array_equal(one.logits, other.logits)
            assert np.array_equal(one.labels, other.labels)
            assert np.array_equal(one.scores, other.scores)
    assert inferencer(str(paths[0])).source == str(paths[0])
    with Image.open(paths[0]) as image:
        assert np.array_equal(inferencer(image).labels, alone[0].labels)


def test_one_class_equals_the_models_own_prediction(model):
    inferencer = FewShotInferencer(model, threshold=0.0)
    inferencer.set_support({'cat': [(_image(0), _mask()), (_image(1), _mask(20))]})
    query = _image(9, (61, 47))
    support = inferencer.support.shots['cat']

    def tensor(image):
        return torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1).float()

    inputs = dict(
        query=tensor(to_model_size(query, SIZE))[None],
        support=torch.stack([tensor(shot.image) for shot in support])[None],
        support_mask=torch.stack([torch.from_numpy(shot.mask) for shot in support])[None],
    )
    with torch.no_grad():
        logits = model.run(inputs).logits
    found = inferencer(query)
    np.testing.assert_allclose(found.logits[0], logits[0, 0].numpy(), atol=2e-5)
    wanted = logits_to_mask(torch.from_numpy(found.logits)[None], (61, 47))[0, 0].numpy()
    assert np.array_equal(found.labels, wanted)


def test_order_of_supports_and_other_classes_do_not_matter(inferencer, model):
    pairs = [(_image(0), _mask()), (_image(1), _mask(20))]
    other = FewShotInferencer(model, threshold=0.0)
    other.set_support({'cup': [(_image(2), _mask(35))], 'cat': pairs[::-1]})
    query = _image(5)
    a, b = inferencer(query), other(query)
    np.testing.assert_allclose(a.logits, b.logits[::-1], atol=1e-4)
    np.testing.assert_allclose(a.scores, b.scores[::-1], atol=1e-5)


def test_support_is_encoded_once_and_an_image_once_for_all_classes(inferencer, monkeypatch):
    calls = {'encode_image': 0, 'encode_support': 0, 'segment': 0}
    for name in calls:
        before = getattr(inferencer.model, name)

        def counted(*args, name=name, before=before):
            calls[name] += 1
            return before(*args)

        monkeypatch.setattr(inferencer.model, name, counted)
    inferencer([_image(i) for i in range(3)])
    assert calls == {'encode_image': 3, 'encode_support': 0, 'segment': 6}


def test_saved_support_gives_the_same(inferencer, model, tmp_path):
    inferencer.save_support(tmp_path / 'set')
    other = FewShotInferencer(model, threshold=0.0)
    other.load_support(tmp_path / 'set')
    a, b = inferencer(_image(5)), other(_image(5))
    assert np.array_equal(a.logits, b.logits) and np.array_equal(a.scores, b.scores)
    assert other.classes == ('cat', 'cup')


def test_absent_classes_give_nothing(inferencer):
    inferencer.threshold = 1.0
    found = inferencer(_image(5))
    assert found.present == () and not found.labels.any()
    inferencer.threshold = {'cat': 0.0, 'cup': 1.0}
    assert set(inferencer(_image(5)).present) <= {'cat'}


def test_before_there_is_support_and_after_a_bad_one(model, inferencer):
    with pytest.raises(ValueError, match='no support yet: call set_support'):
        FewShotInferencer(model)(_image(0))
    before = inferencer(_image(5)).labels
    with pytest.raises(ValueError, match="class 'dog' needs a list"):
        inferencer.set_support({'dog': []})
    assert np.array_equal(inferencer(_image(5)).labels, before)
    with pytest.raises(ValueError, match='for models of 32 x 32 pixels, this one takes 64'):
        inferencer.set_support(SupportSet.build({'cat': [(_image(0), _mask())]}, 32))


@pytest.mark.parametrize('given', [7, None, 3.5])
def test_what_is_no_input(inferencer, given):
    with pytest.raises(ValueError, match='inputs must be a path, an array'):
        inferencer(given)


def test_images_of_one_pixel_and_of_long_sides(inferencer):
    for shape in ((1, 1), (1, 300), (200, 2)):
        assert inferencer(_image(0, shape)).labels.shape == shape


# ------------------------------------------------------------------ models by config
@pytest.fixture
def tiny(tmp_path, model):
    """A config file of the tiny model, and its weights."""
    cfg = Config(dict(model=FULL, object_threshold=0.25))
    cfg.dump(str(tmp_path / 'tiny.py'))
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'tiny.pth')
    return tmp_path / 'tiny.py', tmp_path / 'tiny.pth'


def test_from_config_and_weights(tiny, model):
    inferencer = FewShotInferencer(*tiny, device='cpu')
    assert inferencer.threshold == 0.25
    assert FewShotInferencer(*tiny, threshold=0.75).threshold == 0.75
    for key, value in inferencer.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
    assert not inferencer.model.training


def test_weights_below_home(tiny, monkeypatch):
    config, weights = tiny
    monkeypatch.setenv('HOME', str(weights.parent))  # as "~" the files beside it are found too
    assert FewShotInferencer(config, '~/tiny.pth', device='cpu').weights == str(weights)


def test_weights_that_are_missing_or_do_not_fit(tiny, tmp_path, model, monkeypatch):
    config, weights = tiny
    with pytest.raises(FileNotFoundError, match='weights .*none.pth not found. Train one'):
        load_model(config, tmp_path / 'none.pth')
    with pytest.raises(ValueError, match='weights must be given for .*tiny.py'):
        load_model(config)
    state = model.state_dict()
    state.pop('sam2.maskmem_tpos_enc')
    torch.save({'state_dict': state}, tmp_path / 'less.pth')
    with pytest.raises(ValueError, match='less.pth: .*1 missing keys: sam2.maskmem_tpos_enc'):
        load_model(config, tmp_path / 'less.pth')
    torch.save([1], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match='list.pth must be a dict'):
        load_model(config, tmp_path / 'list.pth')
    torch.save({'epoch': 1}, tmp_path / 'none_in.pth')
    with pytest.raises(ValueError, match='has no state_dict; use one that tools/train.py'):
        load_model(config, tmp_path / 'none_in.pth')
    arch = dict(sam2='sam2_large', prior_encoder=None)
    meta = dict(benchmark='pascal-5i', fold=0, trained_classes=[], arch=arch)
    torch.save({'state_dict': model.state_dict(), 'meta': {'mmfss': meta}}, tmp_path / 'o.pth')
    with pytest.raises(ValueError, match="o.pth is of another arch: .*sam2_large"):
        load_model(config, tmp_path / 'o.pth')
    with pytest.raises(ValueError, match='device cuda:99 cannot be used here'):
        load_model(config, weights, 'cuda:99')


def test_names_of_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='config nope not found.*fss_sam2_pascal_1shot'):
        load_model('nope')
    with pytest.raises(ValueError, match='weights must be given for .*fss_sam2_pascal_1shot'):
        load_model('fss_sam2_pascal_1shot')


def test_the_model_of_the_demo_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr('mmfss.apis.loading.DEMO_WEIGHTS', 'nowhere/epoch_5.pth')
    with pytest.raises(
        FileNotFoundError, match='`make demo` is not trained yet: nowhere.*Run it on'
    ):
        FewShotInferencer('fss_sam2_shapes_1shot')


def test_a_method_beside_what_is_loaded_is_refused(model):
    with pytest.raises(ValueError, match="method 'prototype' and a FSSAM are both given"):
        FewShotInferencer(model, method='prototype')


def test_amp_keeps_the_form(model):
    inferencer = FewShotInferencer(model, amp=True, threshold=0.0)
    inferencer.set_support({'cat': [(_image(0), _mask())]})
    found = inferencer(_image(3))
    assert found.logits.dtype == np.float32 and found.scores.dtype == np.float32
    assert found.labels.shape == (50, 70)


def test_weights_with_a_built_model_are_refused(model):
    with pytest.raises(ValueError, match='load them into it'):
        FewShotInferencer(model, weights='a.pth')
