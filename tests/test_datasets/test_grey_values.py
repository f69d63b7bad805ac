"""Photos of more than 8 bits: which values become black and white, what is said of the others."""

from __future__ import annotations

import json
import pickle
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from mmfss.apis.images import as_bgr
from mmfss.datasets.grey_values import GreyValues, options_of
from mmfss.datasets.io import read_photo
from mmfss.datasets.transforms import LoadImage

RNG = np.random.default_rng(0)
FULL = RNG.integers(0, 65536, (40, 50), dtype=np.uint16)


def heard(values: np.ndarray, bits: int | None = 16, **options) -> tuple[np.ndarray, list[str]]:
    """What becomes of values, and what is said, in two calls."""
    said: list[str] = []
    grey_values = GreyValues(**options, say=said.append)
    grey = grey_values.to_8_bit(values, 'a.tif', bits)
    np.testing.assert_array_equal(grey_values.to_8_bit(values, 'a.tif', bits), grey)
    return grey, said


@pytest.mark.parametrize('bits', [8, 9, 10, 12, 14, 16])
def test_bit_depth_is_a_division_into_256_equal_parts(bits):
    values = np.arange(2**bits, dtype=np.uint16).reshape(16, -1)
    for array in (values, values.astype(np.int32), values.astype(np.float32)):
        grey, _ = heard(array, bit_depth=bits)
        np.testing.assert_array_equal(grey, np.floor(values / 2**bits * 256))
    assert heard(np.full((2, 2), 2**bits, np.int32), bit_depth=bits)[0].max() == 255
    assert heard(np.full((2, 2), -1, np.int32), bit_depth=bits)[0].max() == 0


def test_limits_are_black_and_white():
    for kind in (np.uint16, np.int32, np.float32, np.float64):
        values = np.array([[0, 99, 100, 101], [1000, 2000, 3100, 3101]], kind)
        truth = np.clip(np.rint((values.astype(float) - 100) / 3000 * 255), 0, 255)
        np.testing.assert_array_equal(heard(values, limits=(100, 3100))[0], truth)


def test_percentiles_are_of_each_photo_and_all_its_channels():
    values = np.dstack([FULL >> 6, (FULL >> 6) + 700, (FULL >> 6) + 90])
    low, high = np.percentile(values, (2, 98))
    truth = np.clip(np.rint((values - low) / (high - low) * 255), 0, 255)
    grey, said = heard(values, percentiles=(2, 98))
    np.testing.assert_array_equal(grey, truth)
    assert not said
    np.testing.assert_array_equal(heard(values + np.uint16(900), percentiles=(2, 98))[0], truth)
    assert not heard(np.full((3, 3), 7, np.uint16), percentiles=(1, 99))[0].any()


def test_parts_of_a_large_photo_are_scaled_alike():
    values = RNG.random((3000, 3001)).astype(np.float32)  # more than one part
    truth = np.rint(values.astype(float) * 255)
    np.testing.assert_array_equal(heard(values, None, limits=(0, 1))[0], truth)


LOST = [
    # values, options, what is said
    (FULL >> 4, {}, r'a\.tif uses \d\.\.40\d\d of the 16-bit pixels 0\.\.65535, so that 16 of .*'
                    r'give --bit-depth 12 \(0\.\.4095\), or --percentiles 1 99, .*; said once$'),
    (FULL >> 6, {}, r'so that 4 of 256 grey values are left of it: give --bit-depth 10 '),
    (FULL >> 2, {}, r'so that 64 of 256 .* give --bit-depth 14'),
    (33000 + FULL // 55, {}, r'uses 330\d\d\.\.341\d\d of .* --value-range 330\d\d 34'),
    (np.where(FULL < 700, 65535, FULL >> 4), {}, r'uses \d+\.\.65535 of .* so that 17 of 256 grey'),
    (FULL, dict(bit_depth=12), r'^9[34]% of the values .* outside the given range 0\.\.4095 and '),
    (FULL >> 4, dict(limits=(0, 60000)), r'of the 16-bit pixels 0\.\.60000, so that 18 of 256'),
    ((FULL / 65535).astype(np.float32), dict(limits=(0, 255)), r'float pixels 0\.\.255, so that 2'),
]  # fmt: skip


@pytest.mark.parametrize('values, options, message', LOST)
def test_what_is_lost_is_said_once(values, options, message):
    _, said = heard(values, **options)
    assert len(said) == 1 and re.search(message, said[0]), said


@pytest.mark.parametrize(
    'values, options',
    [
        (FULL, {}),
        (FULL >> 1, {}),
        (FULL >> 4, dict(bit_depth=12)),
        (FULL >> 6, dict(bit_depth=12)),  # a dark one: 64 are left
        (FULL >> 4, dict(limits=(0, 4095))),
        (FULL >> 4, dict(percentiles=(0, 100))),
        (np.where(FULL > 30000, 65535, 0).astype(np.uint16), {}),  # a drawing: nothing is lost
        (np.full((40, 50), 300, np.uint16), {}),
    ],
)
def test_nothing_is_said_where_nothing_is_lost(values, options):
    assert heard(values, **options)[1] == []


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(bit_depth=7), 'bit_depth must be an integer from 8 to 32, got 7'),
        (dict(bit_depth=12.0), 'bit_depth must be an integer'),
        (dict(bit_depth=True), 'bit_depth must be an integer'),
        (dict(percentiles=(1, 101)), r'percentiles must be two numbers from 0 to 100, low < high'),
        (dict(percentiles=(5, 5)), 'percentiles must be two numbers'),
        (dict(limits=(3, 1)), r'limits must be two numbers, low < high, got \(3, 1\)'),
        (dict(limits=(0, float('nan'))), 'limits must be two numbers'),
        (dict(limits=3), 'limits must be two numbers'),
        (dict(limits=(0, 1), bit_depth=8), 'given as bit_depth and as limits; give one of them'),
    ],
)
def test_wrong_ranges(options, message):
    with pytest.raises(ValueError, match=message):
        GreyValues(**options)
    with pytest.raises(ValueError, match='has no \'bits\'; it is one of bit_depth, percentiles'):
        GreyValues.of(dict(bits=12))


def test_a_record_gives_the_same_again():
    for options in ({}, dict(bit_depth=12), dict(percentiles=(0.5, 99)), dict(limits=(-3, 0.25))):
        one = GreyValues(**options)
        again = GreyValues.of(json.loads(json.dumps(one.record())))
        assert again.record() == one.record() == pickle.loads(pickle.dumps(one)).record()
        assert (one.record() is None) == (not options)
    assert options_of(dict(limits=[-3.0, 0.25])) == ['--value-range', '-3', '0.25']
    assert options_of(dict(bit_depth=12)) == ['--bit-depth', '12'] and options_of(None) == []


# ---------------------------------------------------------------------------------- other formats
def write_la(path, values: np.ndarray) -> None:
    """Grey and alpha of 16 bits, which no library at hand writes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))

    height, width = values.shape[:2]
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    head = struct.pack('>IIBBBBB', width, height, 16, 4, 0, 0, 0)
    parts = chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + parts)


def write_deep(path, kind: str, values: np.ndarray) -> np.ndarray:
    """A file of 16 bits with these values, uint16 (H, W, 4) RGBA; what it shows, grey or RGB."""
    bgra = np.ascontiguousarray(values[..., [2, 1, 0, 3]])
    grey = np.ascontiguousarray(values[..., 0])
    if kind == 'la':
        write_la(path, values[..., [0, 3]])
        return grey
    shown = dict(grey=grey, rgb=bgra[..., :3], rgba=bgra)[kind]
    options = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if path.suffix == '.jp2' else []
    assert cv2.imwrite(str(path), shown, options)
    return grey if kind == 'grey' else values[..., :3]


DEEP = [('png', 'grey'), ('png', 'la'), ('png', 'rgb'), ('png', 'rgba'), ('ppm', 'rgb'),
        ('pgm', 'grey'), ('jp2', 'rgb'), ('jp2', 'grey')]  # fmt: skip


@pytest.mark.parametrize('suffix, kind', DEEP)
def test_all_bits_of_every_format_are_read(tmp_path, suffix, kind):
    path = tmp_path / f'a.{suffix}'
    values = np.repeat(np.repeat(RNG.integers(0, 65536, (60, 70, 4), dtype=np.uint16), 2, 0), 2, 1)
    for shift, options in ((0, {}), (4, dict(bit_depth=12)), (4, {}), (0, dict(bit_depth=16))):
        shown = write_deep(path, kind, values >> shift)
        said: list[str] = []
        got = read_photo(path, grey_values=GreyValues(**options, say=said.append))[..., ::-1]
        with Image.open(path) as image:
            again = read_photo(image, 'x', GreyValues(**options, say=lambda text: None))
        np.testing.assert_array_equal(again[..., ::-1], got)
        truth = shown >> (8 - shift if options.get('bit_depth') == 12 else 8)
        np.testing.assert_array_equal(got, truth if truth.ndim == 3 else np.dstack([truth] * 3))
        assert len(said) == (shift == 4 and not options)


@pytest.mark.parametrize('most', [1023, 4095])
@pytest.mark.parametrize('kind', ['P5', 'P6'])
def test_netpbm_of_a_stated_depth(tmp_path, kind, most):
    path = tmp_path / 'a.pnm'
    shape = (9, 8) if kind == 'P5' else (9, 8, 3)
    values = RNG.integers(0, most + 1, shape).astype(np.uint16)
    path.write_bytes(f'{kind} 8 9 {most}\n'.encode() + values.astype('>u2').tobytes())
    bits = most.bit_length()
    for options in ({}, dict(bit_depth=bits)):
        got = read_photo(path, grey_values=GreyValues(**options, say=pytest.fail))[..., ::-1]
        truth = values >> (bits - 8)
        truth = truth if truth.ndim == 3 else np.dstack([truth] * 3)
        np.testing.assert_array_equal(got, truth)


def test_a_turned_png_of_16_bits(tmp_path):
    values = RNG.integers(0, 4096, (6, 9, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), values[..., ::-1])
    with Image.open(tmp_path / 'a.png') as plain:
        assert plain.mode == 'RGB'
    exif = Image.Exif()
    exif[0x0112] = 6
    data = (tmp_path / 'a.png').read_bytes()
    body = b'eXIf' + exif.tobytes().removeprefix(b'Exif\0\0')
    chunk = struct.pack('>I', len(body) - 4) + body + struct.pack('>I', zlib.crc32(body))
    (tmp_path / 'a.png').write_bytes(data[:33] + chunk + data[33:])
    got = read_photo(tmp_path / 'a.png', grey_values=GreyValues(bit_depth=12))[..., ::-1]
    np.testing.assert_array_equal(got, np.rot90(values >> 4, -1))


def test_jpegs_of_other_codings_are_named(tmp_path):
    for marker, bits, said in ((0xC1, 12, '12 bits per channel'), (0xC3, 8, '8 bits .*, lossless')):
        app = b'\xff\xe0' + struct.pack('>H', 16) + bytes(14)
        frame = struct.pack('>BBHBHHB', 0xFF, marker, 11, bits, 4, 4, 1) + b'\1\x11\0'
        (tmp_path / 'a.jpg').write_bytes(b'\xff\xd8' + app + frame + b'\xff\xd9')
        with pytest.raises(ValueError, match=rf'a\.jpg is a JPEG of {said}, which is not read; '):
            read_photo(tmp_path / 'a.jpg')
    (tmp_path / 'a.jpg').write_bytes(b'\xff\xd8' + app)
    with pytest.raises(ValueError, match=r'cannot read image file .*a\.jpg: it is truncated'):
        read_photo(tmp_path / 'a.jpg')


def test_a_range_changes_no_photo_of_8_bits(tmp_path):
    rgb = RNG.integers(0, 256, (9, 8, 3), dtype=np.uint8)
    for name in ('a.png', 'a.jpg', 'a.tif', 'a.bmp', 'a.webp'):
        Image.fromarray(rgb).save(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            truth = np.asarray(image.convert('RGB'))
        for options in ({}, dict(bit_depth=12), dict(percentiles=(10, 90)), dict(limits=(5, 9))):
            got = as_bgr(tmp_path / name, None, GreyValues(**options, say=pytest.fail))
            np.testing.assert_array_equal(got[..., ::-1], truth)


def test_load_image(tmp_path):
    values = RNG.integers(0, 4096, (9, 8)).astype(np.uint16)
    tifffile.imwrite(tmp_path / 'a.tif', values, photometric='minisblack')
    load = LoadImage(grey_values=dict(bit_depth=12))
    image = load(dict(img_path=str(tmp_path / 'a.tif')))['img']
    np.testing.assert_array_equal(image[..., 0], values >> 4)
    with pytest.raises(ValueError, match='bit_depth must be an integer'):
        LoadImage(grey_values=dict(bit_depth='12'))
