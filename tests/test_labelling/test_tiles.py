"""``mmfss label --tiles``: files, going on, features that are kept, georeferences."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from mmfss.apis.photos import large_photos
from mmfss.commands.label import label
from mmfss.datasets.classes import label_palette
from mmfss.datasets.io import read_mask, save_png

TILES = ('--tiles', '64', '--overlap', '12')


def _large(case, folder):
    """Two photos of several windows, of those of the case."""
    folder.mkdir()
    for name in ('01.jpg', '02.JPG'):
        with Image.open(case.images / name) as image:
            image.resize((170, 130)).save(folder / f'{name[:2]}.png')
    return folder


def test_photos_of_one_window_are_labelled_as_without(case, tmp_path, files_of):
    assert label(case.arguments(tmp_path / 'out', '--tiles', '4096')) == 0
    found, want = files_of(tmp_path / 'out'), files_of(case.reference)
    run, other = json.loads(found.pop('run.json')), json.loads(want.pop('run.json'))
    assert run['settings'].pop('tiles') == 4096 and run['settings'].pop('overlap') == 512
    assert run == other
    assert found == want


def test_files_of_a_run_in_tiles(case, tmp_path, capsys):
    images, out = _large(case, tmp_path / 'images'), tmp_path / 'out'
    assert label(case.arguments(out, *TILES, images=images)) == 0
    assert '2 labelled' in capsys.readouterr().out
    inferencer = case.inferencer()
    rows = {}
    for line in (out / 'scores.csv').read_text().splitlines()[1:]:
        name, *values = line.split(',')
        rows[name] = [float(value) for value in values]
    certainties = [values[0] for values in rows.values()]
    assert certainties == sorted(certainties)
    for name in ('01', '02'):
        found = inferencer(images / f'{name}.png', tiles=64, overlap=12)
        assert found.tile_scores.shape == (3, 4, 2)
        assert np.array_equal(read_mask(out / 'ann_dir' / f'{name}.png'), found.labels)
        certainty, *rest = rows[f'{name}.png']
        assert abs(certainty - found.certainty) < 1e-6
        for i, one in enumerate(inferencer.classes):
            score, present, share, confidence = rest[4 * i : 4 * i + 4]
            assert abs(score - found.scores[i]) < 1e-6
            assert present == (found.labels == i + 1).any()
            assert abs(share - (found.labels == i + 1).mean()) < 1e-6
            assert abs(confidence - found.confidence(one)) < 1e-6
        with Image.open(out / 'overlays' / f'{name}.jpg') as overlay:
            assert overlay.width == 170 and 130 < overlay.height < 180  # and its legend


def test_a_run_goes_on_with_the_same_tiles_alone(case, tmp_path, files_of, capsys):
    images, out = _large(case, tmp_path / 'images'), tmp_path / 'out'
    assert label(case.arguments(out, *TILES, images=images)) == 0
    before = files_of(out)
    (out / 'ann_dir' / '02.png').unlink()
    assert label(case.arguments(out, *TILES, images=images)) == 0
    assert '1 labelled' in capsys.readouterr().out
    assert files_of(out) == before
    for other, said in (
        (('--tiles', '80', '--overlap', '12'), 'tiles was 64, now 80'),
        (('--tiles', '64', '--overlap', '10'), 'overlap was 12, now 10'),
        ((), 'overlap was 12, now null; tiles was 64, now null'),
        ((*TILES, '--instances'), 'instances was null, now true'),
    ):
        assert label(case.arguments(out, *other, images=images)) == 2
        assert said in capsys.readouterr().err
    assert files_of(out) == before


def test_two_shares_give_the_same_files(case, tmp_path, files_of):
    """As of two processes: what a photo gives does not depend on the others."""
    images, out = _large(case, tmp_path / 'images'), tmp_path / 'out'
    assert label(case.arguments(out, *TILES, images=images)) == 0
    alone = tmp_path / 'alone'
    alone.mkdir()
    shutil.copy(images / '02.png', alone)
    assert label(case.arguments(tmp_path / 'other', *TILES, images=alone)) == 0
    assert (tmp_path / 'other/ann_dir/02.png').read_bytes() == (out / 'ann_dir/02.png').read_bytes()


def test_features_of_tiles_are_kept(case, tmp_path, files_of, monkeypatch):
    from mmfss.encoders.encoding import Encoding

    images, features = _large(case, tmp_path / 'images'), tmp_path / 'features'
    encoded, real = [], Encoding._chunk

    def chunk(self, encoder, steps, pixels):
        encoded.append(encoder)
        return real(self, encoder, steps, pixels)

    monkeypatch.setattr(Encoding, '_chunk', chunk)
    assert label(case.arguments(tmp_path / 'plain', *TILES, images=images)) == 0
    plain, windows = len(encoded), 2 * 3 * 4
    assert plain >= windows
    keep = ('--feature-cache', str(features))
    assert label(case.arguments(tmp_path / 'first', *TILES, *keep, images=images)) == 0
    assert len(encoded) == 2 * plain
    assert len(list(features.rglob('*.safetensors'))) >= windows
    encoded.clear()
    assert label(case.arguments(tmp_path / 'again', *TILES, *keep, images=images)) == 0
    assert len(encoded) < plain - windows  # supports alone, which are checked as they come
    assert files_of(tmp_path / 'again') == files_of(tmp_path / 'plain')
    # other windows of the same photos are other images
    encoded.clear()
    other = ('--tiles', '80', '--overlap', '12')
    assert label(case.arguments(tmp_path / 'other', *other, *keep, images=images)) == 0
    assert len(encoded) >= 2 * 2 * 3


def test_wrong_values(case, tmp_path, capsys):
    for given, said in (
        (('--overlap', '8'), '--overlap 8 is of tiles, and there are none; give --tiles'),
        (('--tiles', '16'), 'tiles must be an integer >= 32, got 16'),
        (('--tiles', '64', '--overlap', '40'), 'overlap must be at most half of the tiles'),
    ):
        assert label(case.arguments(tmp_path / 'out', *given)) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_photo_that_is_too_large_says_what_to_do(case, tmp_path, capsys, monkeypatch):
    images = _large(case, tmp_path / 'images')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10000)
    assert label(case.arguments(tmp_path / 'whole', images=images)) == 1
    failed = (tmp_path / 'whole/failed.csv').read_text()
    assert failed.count('or label it in tiles: --tiles 1024') == 2
    assert label(case.arguments(tmp_path / 'out', *TILES, images=images)) == 0
    # a label that a person has corrected is larger than what Pillow opens by itself, too
    path = tmp_path / 'out/ann_dir/01.png'
    with large_photos():
        values = read_mask(path)
    values[10:30, 10:30] = 1
    save_png(path, values, label_palette(2))
    kept = path.read_bytes()
    assert label(case.arguments(tmp_path / 'out', *TILES, images=images)) == 0
    assert '1 labels changed since are kept' in capsys.readouterr().out
    assert path.read_bytes() == kept
    monkeypatch.setattr('mmfss.apis.photos.MAX_PIXELS', 20000)
    assert label(case.arguments(tmp_path / 'more', *TILES, images=images)) == 1
    failed = (tmp_path / 'more/failed.csv').read_text()
    assert failed.count('has 170 x 130 pixels') == 2 and 'Cut it into files' in failed


def test_a_photo_that_breaks_off_fails_alone(case, tmp_path, monkeypatch):
    from mmfss.apis.photos import Photo

    images, real = _large(case, tmp_path / 'images'), Photo.window
    seen = []

    def window(self, window):
        seen.append(window)
        if len(seen) == 5:
            raise ValueError('cannot read image file 01.png: it is truncated or damaged')
        return real(self, window)

    monkeypatch.setattr(Photo, 'window', window)
    out = tmp_path / 'out'
    assert label(case.arguments(out, *TILES, images=images)) == 1
    assert '01.png,cannot read image file 01.png' in (out / 'failed.csv').read_text()
    assert [path.name for path in (out / 'ann_dir').iterdir()] == ['02.png']


# ----------------------------------------------------------------------------- georeferences
def _ortho(path, size=(130, 170), **tags):
    rasterio = pytest.importorskip('rasterio')
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(size[::-1], Image.Resampling.BILINEAR))
    kind = dict(driver='GTiff', count=3, dtype='uint8', height=size[0], width=size[1])
    with rasterio.open(path, 'w', **kind, photometric='RGB', **tags) as file:
        file.write(pixels.transpose(2, 0, 1))
    return pixels


@pytest.mark.filterwarnings('ignore')
def test_a_geotiff_keeps_its_georeference(case, tmp_path, capsys):
    rasterio = pytest.importorskip('rasterio')
    from rasterio.control import GroundControlPoint
    from rasterio.transform import Affine

    images, out = tmp_path / 'images', tmp_path / 'out'
    (images / 'below').mkdir(parents=True)
    place = Affine(0.05, 0.01, 500000.25, 0.01, -0.05, 5300000.5)  # turned, too
    _ortho(images / 'below' / 'field.tif', crs='EPSG:32633', transform=place)
    points = [
        GroundControlPoint(0, 0, 10.0, 50.0),
        GroundControlPoint(130, 0, 10.0, 49.0),
        GroundControlPoint(0, 170, 11.0, 50.0),
    ]
    _ortho(images / 'points.tif', gcps=points, crs='EPSG:4326')
    pixels = _ortho(images / 'plain.tif')
    for more in (TILES, ()):
        shutil.rmtree(out, ignore_errors=True)
        assert label(case.arguments(out, *more, images=images)) == 0
        said = capsys.readouterr().out
        assert f'2 images are georeferenced, their labels too: {out / "geotiff"}' in said
        assert not (out / 'geotiff' / 'plain.tif').exists()
        with rasterio.open(out / 'geotiff' / 'below' / 'field.tif') as file:
            assert file.crs.to_epsg() == 32633 and file.transform == place
            assert file.dtypes == ('uint8',) and file.count == 1
            labels = read_mask(out / 'ann_dir' / 'below' / 'field.png')
            assert np.array_equal(file.read(1), labels) and labels.any()
            colours = [list(file.colormap(1)[i][:3]) for i in range(3)]
            assert colours == label_palette(2)
        with rasterio.open(out / 'geotiff' / 'points.tif') as file:
            found, system = file.gcps
            assert system.to_epsg() == 4326
            assert [(p.row, p.col, p.x, p.y) for p in found] == [
                (p.row, p.col, p.x, p.y) for p in points
            ]
    # what a person corrects is corrected there, too
    path = out / 'ann_dir' / 'below' / 'field.png'
    values = np.zeros(pixels.shape[:2], np.uint8)
    values[20:60, 30:90] = 2
    save_png(path, values, label_palette(2))
    assert label(case.arguments(out, images=images)) == 0
    with rasterio.open(out / 'geotiff' / 'below' / 'field.tif') as file:
        assert np.array_equal(file.read(1), values) and file.transform == place


@pytest.mark.filterwarnings('ignore')
def test_what_cannot_be_carried_over_is_said(case, tmp_path, capsys, monkeypatch):
    pytest.importorskip('rasterio')
    from rasterio.transform import from_origin

    images = tmp_path / 'images'
    images.mkdir()
    place = dict(crs='EPSG:32633', transform=from_origin(500000, 5300000, 0.05, 0.05))
    _ortho(images / 'field.tif', **place)
    with Image.open(images / 'field.tif') as image:
        tags = {tag: image.tag_v2[tag] for tag in (33550, 33922, 34735)}
        image.save(images / 'turned.tif', tiffinfo={**tags, 274: 3})
    assert label(case.arguments(tmp_path / 'out', images=images)) == 0
    said = capsys.readouterr().out
    assert '1 image is georeferenced, their labels too' in said
    assert '1 image is georeferenced, their labels are not: their orientation tag' in said
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    assert label(case.arguments(tmp_path / 'without', images=images)) == 0
    said = capsys.readouterr().out
    assert (
        "2 images are georeferenced, their labels are not: rasterio is not installed: pip" in said
    )
    assert not (tmp_path / 'without' / 'geotiff').exists()
