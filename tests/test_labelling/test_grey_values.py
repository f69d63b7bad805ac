"""Photos of 16 bits, floats and bands, labelled, and read by mmseg as they were labelled."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tifffile
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

from mmfss.apis import FewShotInferencer
from mmfss.apis.support import make_negative
from mmfss.apis.support_folder import read_support
from mmfss.commands.label import label
from mmfss.datasets.classes import label_palette
from mmfss.datasets.grey_values import GreyValues
from mmfss.datasets.io import read_mask, read_photo, save_png


@pytest.fixture
def photos(tmp_path):
    """One scene in every format that folders are searched for; the deep ones use 12 bits."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 200, (5, 6, 3), dtype=np.uint8))
    rgb = np.array(small.resize((90, 70), Image.Resampling.BILINEAR))
    rgb[20:50, 10:40] = (250, 220, 40)
    root = tmp_path / 'photos'
    root.mkdir()
    picture, deep = Image.fromarray(rgb), rgb.astype(np.uint16) << 4
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ('a.jpg', 'b.jpeg', 'c.png', 'd.bmp', 'e.webp', 'f.tif', 'g.ppm', 'h.gif'):
        picture.save(root / name)
    picture.save(root / 'turned.jpg', exif=exif)
    picture.convert('CMYK').save(root / 'cmyk.jpg')
    picture.convert('L').save(root / 'i.pgm')
    picture.convert('P').save(root / 'palette.png')
    picture.convert('RGBA').save(root / 'alpha.png')
    picture.convert('1').save(root / 'bit.png')
    Image.fromarray(deep[..., 1]).save(root / 'deep_grey.png')
    rgbs = dict(photometric='rgb')
    tifffile.imwrite(root / 'deep.tiff', deep, **rgbs)
    tifffile.imwrite(root / 'planes.tif', np.moveaxis(deep, 2, 0), planarconfig='separate', **rgbs)
    tifffile.imwrite(root / 'float.tif', deep.astype(np.float32), **rgbs)
    tifffile.imwrite(root / 'signed.tif', deep[..., 0].astype(np.int32), photometric='minisblack')
    tifffile.imwrite(root / 'white.tif', deep[..., 0], photometric='miniswhite')
    with tifffile.TiffWriter(root / 'overview.tif') as file:
        file.write(rgb, **rgbs)
        file.write(rgb[::2, ::2].copy(), subfiletype=1, **rgbs)
    return root


def test_labelled_data_are_read_as_they_were_labelled(case, photos, tmp_path, capsys):
    out = tmp_path / 'labelled'
    assert label(case.arguments(out, '--bit-depth', '12', images=photos)) == 0
    assert 'of 256 grey values are left' not in capsys.readouterr().err
    settings = json.loads((out / 'run.json').read_text())['settings']
    assert settings['grey_values'] == dict(bit_depth=12)
    cfg = Config.fromfile(out / 'dataset.py')
    cfg.labelled_dataset['_scope_'] = 'mmseg'
    dataset = DATASETS.build(cfg.labelled_dataset)
    range_of = GreyValues(bit_depth=12)
    inferencer = FewShotInferencer(case.config, case.weights, 'cpu', 0.0, grey_values=range_of)
    inferencer.load_support(case.support)
    seen = set()
    for i in range(len(dataset)):
        packed = dataset[i]
        path = packed['data_samples'].img_path
        pixels = read_photo(path, grey_values=range_of)
        np.testing.assert_array_equal(packed['inputs'].numpy().transpose(1, 2, 0), pixels)
        truth = packed['data_samples'].gt_sem_seg.data.numpy()[0]
        np.testing.assert_array_equal(truth, inferencer(path).labels)
        seen.add(path.rsplit('/', 1)[-1])
    assert seen == {file.name for file in photos.iterdir()}
    # all but rounding show one scene
    deep = read_photo(photos / 'deep.tiff', grey_values=range_of)
    for name in ('c.png', 'f.tif', 'planes.tif', 'float.tif', 'overview.tif'):
        np.testing.assert_array_equal(read_photo(photos / name, grey_values=range_of), deep)


def test_no_text_of_a_user_is_in_the_code(case, tmp_path):
    images = tmp_path / """it's "so" {{ x }}"""
    images.mkdir()
    (images / 'a"b.jpg').write_bytes((case.images / '01.jpg').read_bytes())
    out = tmp_path / '''t"""+str(1/0)+"""'''
    assert label(case.arguments(out, images=images)) == 0
    assert (out / 'dataset.py').read_bytes() == (case.reference / 'dataset.py').read_bytes()
    cfg = Config.fromfile(out / 'dataset.py')
    (part,) = cfg.labelled_dataset.datasets
    assert part.data_prefix.img_path == str(images) and part.ann_file == f'{out}/lists/jpg.txt'
    assert sorted(key for key in cfg if key.startswith('_')) == []
    assert len(DATASETS.build(dict(part, _scope_='mmseg'))) == 1


def test_a_run_with_another_range_does_not_go_on(case, photos, tmp_path, capsys):
    for path in photos.iterdir():
        if path.name not in ('deep.tiff', 'float.tif', 'c.png'):
            path.unlink()
    out = tmp_path / 'out'
    assert label(case.arguments(out, images=photos)) == 1  # floats have no range
    said = capsys.readouterr().err
    (note,) = re.findall(r'note: .*', said)
    assert re.search(
        r'deep\.tiff uses \d+\.\.4000 of the 16-bit pixels 0\.\.65535, so that 1', note
    )
    assert re.search(r'failed: image .*float\.tif has float pixels \d+\.\.4000, and which', said)
    assert label(case.arguments(out, '--bit-depth', '12', images=photos)) == 2
    said = capsys.readouterr().err
    assert 'other values: grey_values was null, now {"bit_depth": 12}' in said
    assert label(case.arguments(out, '--bit-depth', '12', '--overwrite', images=photos)) == 0
    grey = [read_mask(out / f'ann_dir/{name}.png') for name in ('deep', 'float', 'c')]
    np.testing.assert_array_equal(grey[0], grey[1])
    np.testing.assert_array_equal(grey[0], grey[2])
    for more, message in (
        (
            ('--bit-depth', '12', '--percentiles', '1', '99'),
            'as bit_depth and as percentiles; give',
        ),
        (('--bit-depth', '40'), 'bit_depth must be an integer from 8 to 32, got 40'),
    ):
        assert label(case.arguments(out, *more, images=photos)) == 2
        assert message in capsys.readouterr().err


def test_an_image_in_the_place_of_a_labelled_one_is_looked_at_with_the_range(
    case, photos, tmp_path, capsys
):
    """Its size tells whether a corrected label may still be of it."""
    for path in photos.iterdir():
        if path.name != 'float.tif':
            path.unlink()
    out, given = tmp_path / 'out', ('--bit-depth', '12')
    assert label(case.arguments(out, *given, images=photos)) == 0
    path = out / 'ann_dir/float.png'
    save_png(path, np.ones((70, 90), np.uint8), label_palette(2))
    tifffile.imwrite(photos / 'float.tif', np.zeros((70, 90, 3), np.float32), photometric='rgb')
    assert label(case.arguments(out, *given, images=photos)) == 0
    assert '1 labels changed since are kept' in capsys.readouterr().out
    tifffile.imwrite(photos / 'float.tif', np.zeros((50, 60, 3), np.float32), photometric='rgb')
    assert label(case.arguments(out, *given, images=photos)) == 0
    assert '1 labelled' in capsys.readouterr().out
    assert read_mask(path).shape == (50, 60)


def test_supports_are_read_with_the_range(case, photos, tmp_path):
    inferencer = FewShotInferencer(case.config, case.weights, 'cpu', grey_values=dict(bit_depth=12))
    mask = np.zeros((70, 90), bool)
    mask[20:50, 10:40] = True
    pairs = [(photos / name, mask) for name in ('c.png', 'deep.tiff', 'float.tif')]
    inferencer.set_support({'disc': pairs})
    first, *others = inferencer.support.shots['disc']
    assert len(others) == 2
    for shot in others:
        np.testing.assert_array_equal(shot.image, first.image)
    not_so = make_negative(photos / 'planes.tif', 64, 'x', grey_values=GreyValues(bit_depth=12))
    np.testing.assert_array_equal(not_so.image, make_negative(photos / 'c.png', 64, 'x').image)
    folder = tmp_path / 'support/disc'
    folder.mkdir(parents=True)
    Image.fromarray(mask).save(folder / 'deep.png')
    (folder / 'deep.tiff').write_bytes((photos / 'deep.tiff').read_bytes())
    (shot,) = read_support(folder.parent, inferencer)[0].shots['disc']
    np.testing.assert_array_equal(shot.image, first.image)
