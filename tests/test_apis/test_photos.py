"""Large photos by windows: the pixels of as_bgr, whichever way they are read."""

import sys
import threading

import numpy as np
import pytest
from PIL import Image

from mmfss.apis import photos
from mmfss.apis.images import as_bgr
from mmfss.apis.photos import MAX_PIXELS, Photo, large_photos, open_photo
from mmfss.apis.windows import Tiles
from mmfss.datasets.grey_values import GreyValues


def _picture(mode='RGB', size=(97, 61)):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 4), dtype=np.uint8), 'RGBA')
    image = coarse.resize(size, Image.Resampling.BICUBIC)
    return (
        image.convert('RGB').convert(mode)
        if mode in ('P', 'CMYK', 'L', '1')
        else (image.convert(mode))
    )


@pytest.fixture
def every_photo_is_large(monkeypatch):
    monkeypatch.setattr(photos, '_WHOLE', 0)


def _same(path, kind):
    whole = as_bgr(path)
    with open_photo(path) as photo:
        assert type(photo).__name__ == kind
        assert photo.shape == whole.shape[:2]
        for window in Tiles(32, 5).over(*photo.shape).windows:
            rows = slice(window.top, window.top + window.height)
            part = whole[rows, window.left : window.left + window.width]
            read = photo.window(window)
            assert read.flags.c_contiguous and read.dtype == np.uint8
            assert np.array_equal(read, part), window


@pytest.mark.parametrize(
    ('ending', 'mode'),
    [
        ('jpg', 'RGB'), ('jpg', 'L'), ('jpg', 'CMYK'), ('png', 'RGB'), ('png', 'RGBA'),
        ('png', 'P'), ('png', 'L'), ('png', '1'), ('png', 'LA'), ('bmp', 'RGB'), ('webp', 'RGB'),
    ],
)  # fmt: skip
def test_decoded_once(tmp_path, every_photo_is_large, ending, mode):
    path = tmp_path / f'photo.{ending}'
    _picture(mode).save(path)
    _same(path, '_PillowPhoto')


def test_turned_upright(tmp_path, every_photo_is_large):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f'{orientation}.jpg'
        _picture().save(path, exif=exif)
        _same(path, '_PillowPhoto')


def test_others_are_decoded_whole(tmp_path, every_photo_is_large):
    deep = np.random.default_rng(1).integers(0, 65536, (40, 50), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / 'deep.png')
    _picture().save(tmp_path / 'photo.ppm')
    for name in ('deep.png', 'photo.ppm'):
        _same(tmp_path / name, 'Photo')


def test_what_is_small_is_decoded_whole(tmp_path):
    _picture().save(tmp_path / 'photo.png')
    _same(tmp_path / 'photo.png', 'Photo')


def test_without_rasterio_a_tiff_is_decoded_once(tmp_path, every_photo_is_large, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    for mode in ('RGB', 'L', 'RGBA'):
        _picture(mode).save(tmp_path / 'photo.tif')
        _same(tmp_path / 'photo.tif', '_PillowPhoto')
    _picture().save(tmp_path / 'turned.tif', tiffinfo={274: 6})
    _same(tmp_path / 'turned.tif', 'Photo')


def _tiff(path, array, **options):
    rasterio = pytest.importorskip('rasterio')
    bands = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    kind = dict(driver='GTiff', count=len(bands), height=array.shape[0], width=array.shape[1])
    with rasterio.open(path, 'w', **kind, dtype=array.dtype, **options) as file:
        file.write(bands)


@pytest.mark.filterwarnings('ignore')  # of rasterio: these have no georeference
def test_tiffs_are_read_by_window(tmp_path, every_photo_is_large):
    pytest.importorskip('rasterio')
    rgb, tiled = dict(photometric='RGB'), dict(tiled=True, blockxsize=16, blockysize=16)
    for i, (mode, options) in enumerate(
        [
            ('RGB', dict(**rgb, **tiled)),
            ('RGB', dict(**rgb, **tiled, compress='deflate', predictor=2)),
            ('RGB', dict(**rgb, compress='lzw', blockysize=7)),
            ('RGB', dict(**rgb, **tiled, interleave='band')),
            ('RGBA', dict(**rgb, **tiled, alpha='yes')),
            ('L', dict(**tiled, compress='packbits')),
        ]
    ):
        _tiff(tmp_path / f'{i}.tif', np.asarray(_picture(mode)), **options)
        _same(tmp_path / f'{i}.tif', '_TiledFile')
    # another decoder may give other pixels
    _tiff(tmp_path / 'jpeg.tif', np.asarray(_picture()), **rgb, **tiled, compress='jpeg')
    _same(tmp_path / 'jpeg.tif', '_PillowPhoto')


@pytest.mark.filterwarnings('ignore')
def test_a_broken_tiff_is_named(tmp_path, every_photo_is_large):
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    path = tmp_path / 'broken.tif'
    _tiff(path, noise, photometric='RGB', tiled=True, blockxsize=64, blockysize=64, compress='lzw')
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with (
        open_photo(path) as photo,
        pytest.raises(ValueError, match='cannot read image file .*broken.tif'),
    ):
        assert type(photo).__name__ == '_TiledFile'
        for window in Tiles(64, 0).over(*photo.shape).windows:
            photo.window(window)


def test_a_small_copy_by_bands(monkeypatch):
    pixels = np.asarray(_picture(size=(1000, 700)))
    photo = Photo(pixels)
    whole = photo.small(100)
    assert whole.shape == (70, 100, 3)
    monkeypatch.setattr(photos, '_WHOLE', 0)
    monkeypatch.setattr(photos, '_SHORT', 50)
    assert np.abs(photo.small(100).astype(int) - whole).max() <= 1  # ten rows to one: no remainder
    assert np.abs(photo.small(93).astype(int) - Photo(pixels).small(93)).max() <= 12
    assert np.array_equal(photo.small(2000), pixels)


def test_a_small_copy_of_a_jpeg(tmp_path, every_photo_is_large):
    path = tmp_path / 'photo.jpg'
    for size in ((1000, 700), (640, 1001)):
        _picture(size=size).save(path)
        for side in (100, 99, 200, 2000):
            want = Photo(as_bgr(path)).small(side)
            with open_photo(path) as photo:
                found = photo.small(side)
            assert found.shape == want.shape and max(found.shape) == min(side, max(size))
            assert np.abs(found.astype(int) - want).mean() < 3


def test_broken_and_missing_files(tmp_path, every_photo_is_large):
    _picture(size=(300, 300)).save(tmp_path / 'photo.jpg')
    data = (tmp_path / 'photo.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r'cut\.jpg: it is truncated, damaged'):
        open_photo(tmp_path / 'cut.jpg')
    with pytest.raises(FileNotFoundError, match=r'image file not found: .*none\.jpg'):
        open_photo(tmp_path / 'none.jpg')
    frames = [_picture(), _picture('L').convert('RGB')]
    frames[0].save(tmp_path / 'two.webp', save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match='has 2 frames or pages'):
        open_photo(tmp_path / 'two.webp')


def test_the_limit_is_lifted_and_put_back(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    path = tmp_path / 'photo.png'
    _picture(size=(100, 100)).save(path)
    with pytest.raises(ValueError, match='has too many pixels'):
        as_bgr(path)
    with open_photo(path) as photo:
        assert photo.shape == (100, 100)
    assert Image.MAX_IMAGE_PIXELS == 1000
    monkeypatch.setattr(photos, 'MAX_PIXELS', 9999)
    with pytest.raises(
        ValueError, match='has 100 x 100 pixels, 0 megapixels; in tiles at most 0 are labelled'
    ):
        open_photo(path)
    with pytest.raises(ValueError, match='image array has 100 x 100 pixels'):
        open_photo(np.zeros((100, 100, 3), np.uint8), 'array')
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_limits_of_several_threads(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    inside, leave = threading.Event(), threading.Event()

    def other():
        with large_photos():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with large_photos():
        thread.start()
        assert inside.wait(10)
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS  # the other one is still reading
    leave.set()
    thread.join()
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.filterwarnings('ignore')
def test_overviews_are_no_pages(tmp_path, every_photo_is_large):
    rasterio = pytest.importorskip('rasterio')
    path = tmp_path / 'overviews.tif'
    tiled = dict(tiled=True, blockxsize=16, blockysize=16, photometric='RGB')
    _tiff(path, np.asarray(_picture()), **tiled)
    with rasterio.open(path, 'r+') as file:
        file.build_overviews([2, 4])
    _same(path, '_TiledFile')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('by_window', [True, False])
def test_alpha_that_is_none_is_said(tmp_path, every_photo_is_large, monkeypatch, by_window):
    if by_window:
        pytest.importorskip('rasterio')
    else:
        monkeypatch.setitem(sys.modules, 'rasterio', None)
    pixels, said = np.array(_picture('RGBA')), []
    for name, infrared in (('alpha', False), ('infrared', True)):
        pixels[..., 3] = np.random.default_rng(0).integers(20, 200, pixels.shape[:2])
        if not infrared:
            pixels[..., 3] = 255
        Image.fromarray(pixels, 'RGBA').save(tmp_path / f'{name}.tif')
        with open_photo(tmp_path / f'{name}.tif', None, GreyValues(say=said.append)) as photo:
            assert type(photo).__name__ == ('_TiledFile' if by_window else '_PillowPhoto')
    assert len(said) == 1 and 'band 4 of image' in said[0] and 'infrared.tif' in said[0]
