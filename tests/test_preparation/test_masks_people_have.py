"""Masks of two values in every form that programs save, in folders and in Python; HEIC."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tiny_models
from PIL import Image
from prepared_checks import fails, picture

from mmfss.apis import FewShotInferencer
from mmfss.apis.images import as_bgr
from mmfss.apis.support import as_mask
from mmfss.apis.support_folder import read_support
from mmfss.datasets.preparation.frames import read_frame

MASK = np.zeros((60, 80), bool)
MASK[10:40, 20:50] = True
ONE = MASK.astype(np.uint8)
COLOURS = np.random.default_rng(0).integers(1, 255, (60, 80, 3), dtype=np.uint8)


def rgb(red, green, blue):
    return np.stack([ONE * red, ONE * green, ONE * blue], -1)


def palette():
    image = Image.fromarray(ONE).convert('P')
    image.putpalette([0, 0, 0, 255, 255, 255])
    return image


FORMS = {
    '0 and 255': ONE * 255,
    '0 and 1': ONE,
    '0 and 128': ONE * 128,
    '0 and 254': ONE * 254,
    'of 1 bit': MASK,
    'RGB, black and white': rgb(255, 255, 255),
    'RGB, 0 and 128': rgb(128, 128, 128),
    'RGB, red': rgb(255, 0, 0),
    'RGBA, opaque': np.dstack([rgb(255, 255, 255), np.full_like(ONE, 255)]),
    'RGBA, white on nothing': np.dstack([rgb(255, 255, 255), ONE * 255]),
    'RGBA, red on nothing': np.dstack([rgb(255, 0, 0), ONE * 255]),
    'RGBA, cut out of the photo': np.dstack([COLOURS, ONE * 255]),
    'LA': np.dstack([ONE * 255, np.full_like(ONE, 255)]),
    'of 16 bits': ONE.astype(np.uint16) * 65535,
    'palette': palette(),
}


@pytest.fixture(scope='module')
def inferencer():
    return FewShotInferencer(tiny_models.build())


@pytest.mark.parametrize('form', list(FORMS))
def test_masks(form, tmp_path, inferencer):
    """``a.jpg`` with ``a_mask.png`` above all."""
    saved = FORMS[form]
    saved = saved if isinstance(saved, Image.Image) else Image.fromarray(saved)
    for image, mask in (
        ('cat/a.jpg', 'cat/a_mask.png'),
        ('cat/a.jpg', 'cat/a.png'),
        ('a.jpg', 'a_mask.png'),
        ('images/a.jpg', 'masks/a.png'),
    ):
        folder = tmp_path / mask.replace('/', '-')
        picture(folder / image, MASK.shape)
        (folder / mask).parent.mkdir(exist_ok=True)
        saved.save(folder / mask)
        support, _ = read_support(folder, inferencer)
        (shot,) = support.shots['cat' if image.startswith('cat') else 'object']
        large = np.array(Image.fromarray(shot.mask).resize((80, 60), Image.Resampling.NEAREST))
        assert ((large == 1) ^ MASK).mean() < 0.03
        np.testing.assert_array_equal(as_mask(folder / mask, 'the mask') == 1, MASK)


@pytest.mark.parametrize(
    'pixels, said',
    [
        (np.dstack([rgb(255, 255, 255), np.roll(ONE, 9) * 255]), 'is transparent in parts'),
        (np.where(np.arange(80) > 70, 128, ONE * 255).astype(np.uint8), r'\[0, 128, 255\]'),
        (np.where(np.arange(80)[:, None] > 70, 9, rgb(255, 0, 0)).astype(np.uint8), '3 colours'),
        (ONE * 2, r'has the values \[0, 2\]'),
    ],
)
def test_masks_that_may_mean_anything(pixels, said, tmp_path, inferencer):
    picture(tmp_path / 'cat/a.jpg', MASK.shape)
    Image.fromarray(pixels).save(tmp_path / 'cat/a_mask.png')
    with pytest.raises(ValueError, match=said):
        read_support(tmp_path, inferencer)


def test_heic_without_its_plugin(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    (tmp_path / 'cat').mkdir()
    (tmp_path / 'cat/a.heic').write_bytes(b'\0\0\0\x18ftypheic')
    Image.fromarray(ONE * 255).save(tmp_path / 'cat/a_mask.png')
    said = r'a\.heic is HEIC, which needs a plugin: pip install pillow-heif; or save it as JPEG'
    for read in (as_bgr, read_frame):
        with pytest.raises(ValueError, match=said):
            read(tmp_path / 'cat/a.heic')
    assert 'pip install pillow-heif' in fails('folder', tmp_path / 'cat', tmp_path / 'out')


def test_heic(tmp_path, inferencer):
    heif = pytest.importorskip('pillow_heif')
    heif.register_heif_opener()
    (tmp_path / 'cat').mkdir()
    stored = np.zeros((60, 80, 3), np.uint8)
    stored[:, 60:] = 255
    Image.fromarray(stored).save(tmp_path / 'cat/a.HEIC', quality=-1)
    Image.fromarray(ONE * 255).save(tmp_path / 'cat/a_mask.png')
    photo = as_bgr(tmp_path / 'cat/a.HEIC')
    assert photo.shape == (60, 80, 3) and (photo[:, 60:] > 200).all() and (photo[:, :60] < 50).all()
    support, _ = read_support(tmp_path, inferencer)
    assert support.shots['cat'][0].shape == (60, 80)
