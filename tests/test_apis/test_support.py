"""Support sets and their files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from mmfss.apis.support import SupportSet, as_mask, check_classes, make_negative, make_shot

SIZE = 32


def _image(seed=0, shape=(40, 60)):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def _mask(shape=(40, 60), value=1):
    mask = np.zeros(shape, np.uint8)
    mask[5:25, 10:40] = value
    return mask


@pytest.fixture
def support():
    pairs = [(_image(i), _mask()) for i in range(3)]
    return SupportSet.build({'cat': pairs[:1], 'tasse à café': pairs[1:]}, SIZE)


def _same(a, b):
    assert a.classes == b.classes and a.image_size == b.image_size
    assert set(a.negatives) == set(b.negatives)
    for name in a.classes:
        some = (*a.shots[name], *a.negatives.get(name, ()))
        for one, other in zip(some, (*b.shots[name], *b.negatives.get(name, ())), strict=True):
            assert np.array_equal(one.image, other.image)
            assert np.array_equal(one.mask, other.mask)
            assert (one.shape, one.source) == (other.shape, other.source)


def test_number_of_shots_may_differ(support):
    assert support.classes == ('cat', 'tasse à café')
    assert [len(shots) for shots in support.shots.values()] == [1, 2]
    shot = support.shots['cat'][0]
    assert shot.image.shape == (SIZE, SIZE, 3) and shot.shape == (40, 60)
    assert np.array_equal(
        shot.mask, _mask()[np.ix_(*(np.arange(SIZE) * s // SIZE for s in (40, 60)))]
    )


def test_file_gives_back_the_same(support, tmp_path):
    support.save(tmp_path / 's.safetensors')
    _same(support, SupportSet.load(tmp_path / 's.safetensors'))
    first = (tmp_path / 's.safetensors').read_bytes()
    support.save(tmp_path / 's.safetensors')
    assert (tmp_path / 's.safetensors').read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ['s.safetensors']


@pytest.fixture
def with_negatives():
    pairs = [(_image(i), _mask()) for i in range(3)]
    negatives = {'dog': [], 'cat': [_image(7), (_image(8), _mask(value=255))]}
    return SupportSet.build({'cat': pairs[:1], 'dog': pairs[1:]}, SIZE, negatives=negatives)


def test_negatives_are_an_image_or_a_marked_part_of_one(with_negatives):
    (first, second), shot = with_negatives.negatives['cat'], with_negatives.shots['cat'][0]
    assert set(with_negatives.negatives) == {'cat'}
    assert first.mask.shape == (SIZE, SIZE) and (first.mask == 1).all()
    np.testing.assert_array_equal(second.mask, shot.mask)
    assert (first.source, second.source) == ('negative 1 of \'cat\'', 'negative 2 of \'cat\'')
    all_of_it = make_negative((_image(), np.ones((40, 60), bool)), SIZE, 'n')
    np.testing.assert_array_equal(all_of_it.mask, first.mask)
    shots, negatives = with_negatives.pairs()
    assert [len(some) for some in shots] == [1, 2] and [len(some) for some in negatives] == [2, 0]


def test_negatives_are_kept_in_a_file_of_version_2(support, with_negatives, tmp_path):
    for kind, version in ((support, 1), (with_negatives, 2)):
        path = tmp_path / f'{version}.safetensors'
        kind.save(path)
        with safe_open(path, 'pt') as file:
            content = json.loads(file.metadata()['mmfss-support'])
            assert any(key.startswith('not_') for key in file.keys()) == (version == 2)  # noqa: SIM118
        assert content['version'] == version
        assert any('negatives' in entry for entry in content['classes']) == (version == 2)
        _same(kind, SupportSet.load(path))
    _rewritten(path, tensors={'not_mask.0.1': torch.zeros(9, dtype=torch.uint8)})
    with pytest.raises(ValueError, match=r'2\.safetensors is damaged'):
        SupportSet.load(path)


@pytest.mark.parametrize(
    'negatives, message',
    [
        ([_image()], "negatives must be a dict {'cat': .*got list"),
        (
            {'dog': [_image()]},
            "'dog' has negatives and no support; the classes with .* are cat. Ma",
        ),
        ({'cat': _image()}, "negatives of 'cat' must be a list of images or .image, mask. pairs"),
        ({'cat': [(_image(),)]}, "negative 1 of 'cat' must be an image or a pair"),
        ({'cat': [(_image(), np.zeros((40, 60), bool))]}, 'marks nothing as not the class; draw'),
        ({'cat': [(_image(), _mask((60, 40)))]}, 'they must be equal; an EXIF tag'),
        ({'cat': ['nowhere.jpg']}, 'nowhere.jpg'),
    ],
)
def test_negatives_that_cannot_be(negatives, message):
    pairs = {'cat': [(_image(), _mask())]}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        SupportSet.build(pairs, SIZE, negatives=negatives)


def _rewritten(path, tensors=None, text=None, **changes):
    with safe_open(path, 'pt') as file:
        content = {**json.loads(file.metadata()['mmfss-support']), **changes}
        meta = {'mmfss-support': json.dumps(content) if text is None else text}
        kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file({**kept, **(tensors or {})}, path, meta)


def test_other_formats_versions_and_damage(support, tmp_path):
    path = tmp_path / 's.safetensors'
    with pytest.raises(FileNotFoundError, match='support file .* not found'):
        SupportSet.load(path)
    for content in (b'', b'PK\x03\x04 a zip', b'\x80\x02 a pickle'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r's\.safetensors is no support file of mmfss'):
            SupportSet.load(path)
    support.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match='no support file of mmfss, or damaged'):
        SupportSet.load(path)
    save_file({'x': torch.zeros(1)}, path, {'format': 'pt'})
    with pytest.raises(ValueError, match='no support file of mmfss: it holds other tensors'):
        SupportSet.load(path)
    path.write_bytes(whole)
    _rewritten(path, version=7)
    with pytest.raises(ValueError, match='version 7, this mmfss reads 1 and 2'):
        SupportSet.load(path)


@pytest.mark.parametrize(
    'change',
    [
        dict(text='{'),
        dict(text='[]'),
        dict(classes=[dict(name='cat')]),
        dict(image_size=64),
        dict(classes=[]),
        dict(image_size='32'),
        dict(tensors={'mask.0.0': torch.zeros(9, dtype=torch.uint8)}),
    ],
)
def test_a_damaged_description_is_named(support, tmp_path, change):
    path = tmp_path / 's.safetensors'
    support.save(path)
    _rewritten(path, **change)
    with pytest.raises(ValueError, match=r's\.safetensors is damaged.*copy it again'):
        SupportSet.load(path)


def test_a_picture_of_another_size_is_not_decoded(support, tmp_path, monkeypatch):
    path = tmp_path / 's.safetensors'
    support.save(path)
    Image.new('L', (5000, 5000)).save(tmp_path / 'bomb.png')
    data = torch.frombuffer(bytearray((tmp_path / 'bomb.png').read_bytes()), dtype=torch.uint8)
    _rewritten(path, tensors={'mask.0.0': data})
    with monkeypatch.context() as limits:
        limits.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
        with pytest.raises(ValueError, match=r'is damaged \(DecompressionBombError'):
            SupportSet.load(path)
    with pytest.raises(ValueError, match=r'a PNG is L \(5000, 5000\), not L \(32, 32\)'):
        SupportSet.load(path)


def test_masks_in_all_forms(tmp_path):
    wanted = _mask()
    Image.fromarray(wanted).save(tmp_path / 'ones.png')
    Image.fromarray(wanted * 255).save(tmp_path / 'drawn.png')
    Image.fromarray(wanted * 255).convert('1').save(tmp_path / 'bit.png')
    forms = [
        wanted,
        wanted == 1,
        wanted * 255,
        torch.from_numpy(wanted),
        Image.fromarray(wanted),
        *(tmp_path / f'{name}.png' for name in ('ones', 'drawn', 'bit')),
    ]
    for form in forms:
        assert np.array_equal(as_mask(form, 'm'), wanted)
    unsure = wanted.copy()
    unsure[0] = 255
    assert np.array_equal(as_mask(unsure, 'm'), unsure)  # beside 1, 255 is unknown


@pytest.mark.parametrize(
    'mask, message',
    [
        (np.zeros((4, 4), bool), 'the mask marks no pixel'),
        (np.ones((4, 4), bool), 'marks every pixel.*not inverted'),
        (np.full((4, 4), 255, np.uint8), 'marks every pixel'),
        (np.arange(16, dtype=np.uint8).reshape(4, 4), r'values \[0, 1, 2.*allowed are 0 with 1'),
        (np.zeros((4, 4), np.float32), 'bool or uint8, got float32'),
        (np.zeros((4, 4, 3), np.uint8), r'array \(H, W\), got uint8 \(4, 4, 3\)'),
        (np.zeros((0, 4), np.uint8), r'got uint8 \(0, 4\)'),
        (None, 'path or an array'),
    ],
)
def test_masks_that_cannot_be(mask, message):
    with pytest.raises(ValueError, match=message):
        as_mask(mask, 'the mask')


def test_only_unknown_beside_the_object_is_all_foreground():
    mask = np.ones((4, 4), np.uint8)
    mask[0] = 255
    with pytest.raises(ValueError, match='marks every pixel'):
        as_mask(mask, 'm')


def test_image_and_mask_must_fit():
    with pytest.raises(ValueError, match='40 x 60 pixels .*the image 60 x 40.*EXIF tag'):
        make_shot((_image(), _mask((60, 40))), SIZE, 'support 1')
    with pytest.raises(ValueError, match='30 x 20 pixels .*the image 60 x 40; they must be equal$'):
        make_shot((_image(), _mask((20, 30))), SIZE, 'support 1')
    with pytest.raises(ValueError, match=r'support 1 must be a pair \(image, mask\)'):
        make_shot(_image(), SIZE, 'support 1')
    dot = np.zeros((400, 600), np.uint8)
    dot[1, 1] = 1
    with pytest.raises(ValueError, match='has 1 pixels and vanishes.*32 x 32; cut out'):
        make_shot((_image(shape=(400, 600)), dot), SIZE, 'support 1')


@pytest.mark.parametrize(
    'names, message',
    [
        ([], '1 to 254 classes, got 0'),
        ([f'c{i}' for i in range(255)], '1 to 254 classes, got 255'),
        (['cat', ' Cat '], "two classes are named 'Cat'"),
        (['caf\u00e9', 'cafe\u0301'], 'two classes are named'),
        (['  '], '1 to 100 printable'),
        (['a' * 101], '1 to 100 printable'),
        (['a\nb'], '1 to 100 printable'),
        (['Background'], "not be 'background'"),
        ([3], 'must be text, got 3'),
    ],
)
def test_names_that_cannot_be(names, message):
    with pytest.raises(ValueError, match=message):
        check_classes(names)


@pytest.mark.parametrize(
    'support, message',
    [
        ([('a', 'b')], "must be a dict {'cat'"),
        ({'cat': []}, "class 'cat' needs a list of at least one"),
        ({'cat': 'a.jpg'}, "class 'cat' needs a list"),
        ({'cat': [('nowhere.jpg', 'm.png')]}, 'nowhere.jpg'),
    ],
)
def test_supports_that_cannot_be(support, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        SupportSet.build(support, SIZE)
