from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmfss.datasets.io import read_image, read_mask


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def test_rgb_becomes_bgr(tmp_path, rgb):
    image = read_image(save(tmp_path / 'a.png', rgb))
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, rgb[..., ::-1])


def test_grey(tmp_path, rgb):
    image = read_image(save(tmp_path / 'a.png', rgb[..., 0]))
    np.testing.assert_array_equal(image, np.repeat(rgb[..., :1], 3, 2))


def test_16_bit_grey_keeps_the_high_byte(tmp_path):
    grey = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    image = read_image(save(tmp_path / 'a.png', grey))
    np.testing.assert_array_equal(image[0, :, 0], [0, 0, 1, 255])


def test_16_bit_colour_keeps_the_high_byte(tmp_path, rgb):
    import cv2

    cv2.imwrite(str(tmp_path / 'a.png'), rgb.astype(np.uint16) * 256 + 77)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), rgb)  # cv2 writes BGR


def test_alpha_is_dropped(tmp_path, rgb):
    rgba = np.dstack([rgb, np.zeros(rgb.shape[:2], np.uint8)])
    np.testing.assert_array_equal(read_image(save(tmp_path / 'a.png', rgba)), rgb[..., ::-1])
    la = Image.fromarray(rgb[..., 0])
    la.putalpha(Image.fromarray(rgb[..., 1]))
    la.save(tmp_path / 'la.png')
    np.testing.assert_array_equal(read_image(tmp_path / 'la.png')[..., 2], rgb[..., 0])


def test_palette_and_cmyk_images(tmp_path, rgb):
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    np.testing.assert_array_equal(read_image(save(tmp_path / 'p.png', red, 'P')), red[..., ::-1])
    cmyk = read_image(save(tmp_path / 'c.jpg', red, 'CMYK', quality=95)).astype(int)
    assert np.abs(cmyk - red[..., ::-1]).max() <= 3


def test_one_pixel_wide(tmp_path, rgb):
    assert read_image(save(tmp_path / 'a.png', rgb[:, :1])).shape == (5, 1, 3)
    assert read_mask(save(tmp_path / 'm.png', rgb[:1, :, 0])).shape == (1, 7)


def test_exif_orientation_only_when_asked(tmp_path, rgb):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(rgb).save(tmp_path / 'a.png', exif=exif)
    assert read_image(tmp_path / 'a.png').shape == (5, 7, 3)
    assert read_image(tmp_path / 'a.png', exif_orientation=True).shape == (7, 5, 3)


def test_float_image(tmp_path):
    Image.fromarray(np.ones((3, 3), np.float32)).save(tmp_path / 'a.tiff')
    with pytest.raises(ValueError, match=r'a\.tiff has float pixels.*convert it to 8-bit RGB'):
        read_image(tmp_path / 'a.tiff')


@pytest.mark.parametrize('value', [-1, 200, 70000])  # one byte of any would be arbitrary
def test_32_bit_image(tmp_path, value):
    Image.fromarray(np.full((3, 3), value, np.int32)).save(tmp_path / 'a.tiff')
    with pytest.raises(ValueError, match=r'a\.tiff has 32-bit pixels .*give --bit-depth N'):
        read_image(tmp_path / 'a.tiff')


@pytest.mark.parametrize('suffix', ['png', 'tiff', 'pgm', 'jp2'])
def test_16_bit_grey_of_every_format(tmp_path, suffix):
    grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    path = save(tmp_path / f'a.{suffix}', grey)
    np.testing.assert_array_equal(read_image(path)[..., 0], grey >> 8)


@pytest.mark.parametrize('read, kind', [(read_image, 'image'), (read_mask, 'mask')])
def test_missing_and_broken_files_are_named(tmp_path, read, kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    with pytest.raises(FileNotFoundError, match=rf'{kind} file not found: .*none\.png'):
        read(tmp_path / 'none.png')
    for name, options in (('a.png', {}), ('a.jpg', dict(quality=90))):
        whole = save(tmp_path / name, noise, **options).read_bytes()
        for length in (0, 10, 40, len(whole) // 2, len(whole) - 30):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(ValueError, match=rf'cannot read {kind} file .*{name}.*truncated'):
                read(tmp_path / name)
    with pytest.raises(ValueError, match=rf'cannot read {kind} file {tmp_path}'):
        read(tmp_path)


def test_palette_mask_gives_label_values(tmp_path):
    labels = np.array([[0, 1, 20], [255, 3, 0]], dtype=np.uint8)
    image = Image.fromarray(labels).convert('P')
    image.putdata(labels.ravel().tolist())
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768).tolist())
    image.save(tmp_path / 'm.png')
    mask = read_mask(tmp_path / 'm.png')
    assert mask.dtype == np.uint8 and mask.flags.writeable
    np.testing.assert_array_equal(mask, labels)


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_grey_mask_of_few_bits(tmp_path, bits):
    labels = np.arange(4, dtype=np.uint8).reshape(2, 2) % min(4, 2**bits)
    write_grey_png(tmp_path / 'm.png', labels, bits)
    np.testing.assert_array_equal(read_mask(tmp_path / 'm.png'), labels)


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'I;16', 'LA'])
def test_masks_of_other_modes(tmp_path, mode):
    save(tmp_path / 'm.png', np.ones((3, 3), np.uint8), mode)
    with pytest.raises(ValueError, match=r"m\.png must be a palette .*got mode .*; convert"):
        read_mask(tmp_path / 'm.png')


def write_grey_png(path, labels, bits):
    """Pillow does not write grey PNGs of 1, 2 or 4 bits."""
    import struct
    import zlib

    height, width = labels.shape
    rows = b''
    for row in labels:
        number = 0
        for value in row:
            number = number << bits | int(value)
        size = -(-width * bits // 8)
        rows += b'\0' + (number << (size * 8 - width * bits)).to_bytes(size, 'big')

    def chunk(kind, data):
        body = kind + data
        return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))

    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, bits, 0, 0, 0, 0))
        + chunk(b'IDAT', zlib.compress(rows))
        + chunk(b'IEND', b'')
    )
