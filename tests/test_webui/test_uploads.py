"""Uploads: names and limits, before anything is decoded."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from mmfss.webui.limits import Limits
from mmfss.webui.uploads import (
    check_header,
    clean_name,
    read_upload,
    take,
    unused_name,
)

LIMITS = Limits()


@pytest.mark.parametrize(
    ('given', 'clean'),
    [
        ('cat.jpg', 'cat.jpg'),
        ('../../etc/passwd', 'passwd'),
        ('C:\\photos\\mug.png', 'mug.png'),
        ('..', 'image'),
        ('', 'image'),
        ('.png', 'png'),
        ('a\x00b\nc.png', 'a_b_c.png'),
        ('a<b>:"|?*.png', 'a_b______.png'),
        ('nul.png', 'image_nul.png'),
        ('Кошка 猫 é.jpg', 'Кошка 猫 é.jpg'),
        ('e\u0301.jpg', '\u00e9.jpg'),
        ('猫' * 200 + '.png', '猫' * 40 + '.png'),
        ('report. ', 'report'),
    ],
)
def test_names_lose_what_does_harm_and_keep_their_letters(given, clean):
    assert clean_name(given) == clean


def test_names_are_numbered_by_stem_whatever_their_case():
    assert unused_name('a.png', []) == 'a.png'
    assert unused_name('a.png', ['a.jpg']) == 'a_2.png'
    assert unused_name('A.png', ['a.jpg', 'a_2.png']) == 'A_3.png'


def huge_png(path: Path, width: int, height: int) -> Path:
    """A PNG whose header promises width x height pixels that are not there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        code = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + code

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', b''))
    return path


@pytest.mark.parametrize(('side', 'said'), [(8000, '8000 x 8000'), (30000, 'far more')])
def test_too_many_pixels_are_refused_by_the_header(tmp_path, side, said):
    with pytest.raises(ValueError, match=f'big.png has {said} pixels, allowed are 50 million'):
        check_header(huge_png(tmp_path / 'x.png', side, side), 'big.png', LIMITS)


def test_bytes_are_limited(tmp_path):
    file = tmp_path / 'x.png'
    file.write_bytes(bytes(2**21))
    with pytest.raises(ValueError, match='x.png has 2.0 MB, allowed are 1 MB'):
        check_header(file, 'x.png', Limits(max_upload_mb=1))


@pytest.mark.parametrize('content', [b'', b'hello', b'%!PS-Adobe-3.0 EPSF-3.0\n', b'\x89PNG\r\n'])
def test_other_files_are_refused_by_the_visitors_name(tmp_path, content):
    file = tmp_path / 'secret_path'
    file.write_bytes(content)
    with pytest.raises(ValueError, match='^notes.txt is not an image, or damaged; these are read'):
        read_upload(file, 'notes.txt', LIMITS)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'webp', 'tif', 'ppm', 'gif'])
def test_all_formats_are_read(tmp_path, suffix):
    Image.new('RGB', (12, 8), (10, 200, 30)).save(tmp_path / f'x.{suffix}')
    image = read_upload(tmp_path / f'x.{suffix}', 'x', LIMITS)
    assert image.shape == (8, 12, 3)
    assert np.abs(image[4, 6].astype(int) - [30, 200, 10]).max() <= 6  # BGR; JPEG is not exact


def test_truncated_files_and_animations_are_named_without_the_servers_path(tmp_path):
    file = tmp_path / 'kept.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ValueError, match='cannot read image file mug.png: it is truncated') as info:
        read_upload(file, 'mug.png', LIMITS)
    assert str(tmp_path) not in str(info.value)
    frames = [Image.new('L', (4, 4), value) for value in (0, 255)]
    frames[0].save(tmp_path / 'x.gif', save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match='image wink.gif has 2 frames'):
        read_upload(tmp_path / 'x.gif', 'wink.gif', LIMITS)


def test_taking_goes_on_after_a_bad_file_and_stops_at_the_limit(tmp_path):
    def read(path: Path, name: str) -> str:
        if 'bad' in name:
            raise ValueError(f'{name} is bad')
        return name

    files = [(tmp_path, name) for name in ('a.png', 'bad.png', 'a.jpg', 'b.png', 'c.png')]
    taken, refused = take(files, ['b.png'], 4, read)
    assert taken == ['a.png', 'a_2.jpg', 'b_2.png']
    assert refused == ['bad.png is bad', 'c.png was left out: 4 images are the most']


@pytest.mark.parametrize('value', [0, -1, 1.5, True])
def test_limits_are_whole_and_positive(value):
    with pytest.raises(ValueError, match='max_pixels must be a whole number of at least 1, got'):
        Limits(max_pixels=value)


def test_tiffs_of_all_kinds_are_checked_and_read(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4096, (30, 40, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / 'deep.tif', values, photometric='rgb')
    tifffile.imwrite(tmp_path / 'float.tif', values.astype(np.float32), photometric='rgb')
    said: list[str] = []
    whole = read_upload(tmp_path / 'deep.tif', 'my deep.tif', LIMITS, said.append)
    np.testing.assert_array_equal(whole[..., ::-1], values >> 8)
    assert len(said) == 1 and said[0].startswith('image my deep.tif uses 0..4095 of the 16-bit')
    with pytest.raises(
        ValueError, match=r'^image my\.tif has float pixels 0\.\.4095, and which of'
    ):
        read_upload(tmp_path / 'float.tif', 'my.tif', LIMITS)
    deep = Limits(grey_values=dict(bit_depth=12))
    for name in ('deep.tif', 'float.tif'):
        got = read_upload(tmp_path / name, name, deep, pytest.fail)
        np.testing.assert_array_equal(got[..., ::-1], values >> 4)
    monkeypatch.setattr('mmfss.webui.uploads.as_bgr', lambda *args: pytest.fail('decoded'))
    for name in ('deep.tif', 'float.tif'):
        with pytest.raises(ValueError, match=r'x has 40 x 30 pixels, allowed are 0\.001 million'):
            read_upload(tmp_path / name, 'x', Limits(max_pixels=1000))
    whole = (tmp_path / 'float.tif').read_bytes()
    (tmp_path / 'float.tif').write_bytes(whole[:100])
    with pytest.raises(ValueError, match='x is not an image, or damaged; these are read: JPEG'):
        check_header(tmp_path / 'float.tif', 'x', LIMITS)
