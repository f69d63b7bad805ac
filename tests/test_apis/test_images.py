"""What may be given as an image."""

import numpy as np
import pytest
from PIL import Image

from mmfss.apis.images import (
    as_bgr,
    files_below,
    mask_to_model_size,
    other_files_below,
    to_model_size,
)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)


def test_all_forms_give_the_same(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    bgr = rgb[..., ::-1]
    for given in (tmp_path / 'a.png', str(tmp_path / 'a.png'), bgr, Image.fromarray(rgb)):
        assert np.array_equal(as_bgr(given), bgr)
    assert np.array_equal(as_bgr(np.dstack([bgr, bgr[..., 0]])), bgr)  # alpha is dropped
    grey = rgb[..., 0]
    assert np.array_equal(as_bgr(grey), np.dstack([grey] * 3))
    assert np.array_equal(as_bgr(grey[..., None]), np.dstack([grey] * 3))


def test_a_turned_photo_is_upright(tmp_path, rgb):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(tmp_path / 'a.png', exif=exif)
    upright = np.rot90(rgb, -1)[..., ::-1]
    assert np.array_equal(as_bgr(tmp_path / 'a.png'), upright)
    with Image.open(tmp_path / 'a.png') as image:
        assert np.array_equal(as_bgr(image), upright)


def test_other_kinds_of_pixels(tmp_path, rgb):
    deep = (rgb[..., 0].astype(np.uint16) << 8) + 7
    Image.fromarray(deep).save(tmp_path / 'deep.png')
    assert np.array_equal(as_bgr(tmp_path / 'deep.png')[..., 1], rgb[..., 0])
    assert np.array_equal(as_bgr(Image.fromarray(deep))[..., 1], rgb[..., 0])
    Image.new('CMYK', (4, 3), (0, 255, 255, 0)).save(tmp_path / 'ink.jpg')
    assert np.abs(as_bgr(tmp_path / 'ink.jpg').astype(int) - (0, 0, 255)).max() <= 8
    Image.fromarray(rgb[:1, :1]).save(tmp_path / 'dot.png')
    assert as_bgr(tmp_path / 'dot.png').shape == (1, 1, 3)


def _frames(path, number):
    frames = [Image.new('RGB', (4, 4), (60 * i, 0, 0)) for i in range(number)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def test_animations_and_pages_are_refused_and_stills_are_not(tmp_path):
    for name in ('a.gif', 'a.png', 'a.tif', 'a.webp'):
        _frames(tmp_path / name, 3)
        with pytest.raises(ValueError, match=f'{name} has 3 frames or pages, allowed are still'):
            as_bgr(tmp_path / name)
    _frames(tmp_path / 'one.gif', 1)
    assert as_bgr(tmp_path / 'one.gif').shape == (4, 4, 3)
    _frames(tmp_path / 'phone.mpo', 2)
    (tmp_path / 'phone.mpo').rename(tmp_path / 'phone.jpg')
    assert as_bgr(tmp_path / 'phone.jpg').shape == (4, 4, 3)


@pytest.mark.parametrize(
    'given, message',
    [
        (np.zeros((4, 4, 3), np.float32), r'uint8 array \(H, W, 3\) in BGR.*float32 \(4, 4, 3\)'),
        (np.zeros((0, 4, 3), np.uint8), r'at least one pixel; got uint8 \(0, 4, 3\)'),
        (np.zeros((4, 4, 2), np.uint8), r'got uint8 \(4, 4, 2\)'),
        (np.zeros((2, 4, 4, 3), np.uint8), r'got uint8 \(2, 4, 4, 3\)'),
        (7, 'must be a path, an array or an image of Pillow, got int'),
        (Image.new('F', (3, 3)), 'has float pixels'),
    ],
)
def test_what_is_no_image(given, message):
    with pytest.raises(ValueError, match=message):
        as_bgr(given, 'query 3')


def test_broken_files_are_named(tmp_path, rgb):
    with pytest.raises(FileNotFoundError, match=r'none\.jpg'):
        as_bgr(tmp_path / 'none.jpg')
    (tmp_path / 'empty.jpg').touch()
    Image.fromarray(np.tile(rgb, (40, 40, 1))).save(tmp_path / 'cut.jpg')
    whole = (tmp_path / 'cut.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'text.png').write_text('no image')
    for name in ('empty.jpg', 'cut.jpg', 'text.png'):
        with pytest.raises(ValueError, match=f'cannot read image file .*{name}'):
            as_bgr(tmp_path / name)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new('L', (400, 400)).save(tmp_path / 'big.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(ValueError, match=r'big\.png has too many pixels: .*160000.*Make it'):
        as_bgr(tmp_path / 'big.png')


def test_a_hundred_megapixels(tmp_path):
    Image.new('L', (10000, 10000), 9).save(tmp_path / 'large.png')
    with pytest.warns(Image.DecompressionBombWarning):
        image = as_bgr(tmp_path / 'large.png')
    assert image.shape == (10000, 10000, 3)
    assert (to_model_size(image, 64) == 9).all()


def test_sizes_of_the_model(rgb):
    mask = (rgb[..., 0] > 128).astype(np.uint8) * 255
    assert to_model_size(rgb, 64).shape == (64, 64, 3)
    small = mask_to_model_size(mask, 64)
    assert small.shape == (64, 64) and set(np.unique(small)) == {0, 255}


def test_folder_in_order_without_hidden_and_other_files(tmp_path):
    for name in ('b.jpg', 'a.PNG', 'sub/c.jpeg', 'notes.txt', '.hidden.jpg', '.thumbs/d.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    assert found == ['a.PNG', 'b.jpg', 'sub/c.jpeg']
    (tmp_path / 'void').mkdir()
    with pytest.raises(ValueError, match=r'void holds no image; .*\.jpg'):
        files_below(tmp_path / 'void')
    with pytest.raises(FileNotFoundError, match='folder of images .*nowhere not found'):
        files_below(tmp_path / 'nowhere')


def test_links_are_not_passed_over(tmp_path, rgb):
    (tmp_path / 'photos/below').mkdir(parents=True)
    (tmp_path / 'elsewhere').mkdir()
    for name in ('photos/a.png', 'photos/below/b.png', 'elsewhere/c.png'):
        Image.fromarray(rgb).save(tmp_path / name)
    (tmp_path / 'photos/linked').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere/back').symlink_to(tmp_path / 'photos')
    (tmp_path / 'photos/broken.png').symlink_to(tmp_path / 'nowhere.png')
    (tmp_path / 'photos/d.psd').write_bytes(b'')
    names = ['a.png', 'below/b.png', 'broken.png', 'linked/c.png']
    assert files_below(tmp_path / 'photos') == [tmp_path / 'photos' / name for name in names]
    assert other_files_below(tmp_path / 'photos') == [tmp_path / 'photos/d.psd']
