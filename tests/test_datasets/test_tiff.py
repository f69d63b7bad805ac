"""TIFFs of all kinds that tifffile, Pillow and OpenCV write, and some written by hand: the pixels
that were written, or the reason why not."""

from __future__ import annotations

import lzma
import re
import struct
import warnings
import zlib
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from mmfss.apis.images import as_bgr
from mmfss.datasets import tiff
from mmfss.datasets.grey_values import GreyValues, GreyValueWarning
from mmfss.datasets.io import image_shape, read_image, read_mask, read_photo

H, W = 37, 50


def scene(bands: int = 1) -> np.ndarray:
    """uint16 (H, W) or (H, W, bands) that use all values."""
    rng = np.random.default_rng(bands)
    smooth = np.add.outer(np.arange(H) * 900, np.arange(W) * 600)[..., None]
    values = (smooth + np.arange(bands) * 4000 + rng.integers(0, 3000, (H, W, bands))) % 65536
    values[0, 0], values[-1, -1] = 0, 65535
    return values.astype(np.uint16)[..., 0] if bands == 1 else values.astype(np.uint16)


def as_colour(grey: np.ndarray) -> np.ndarray:
    """RGB of uint8 (H, W) or (H, W, 3)."""
    return grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, 2)


def read(path, **grey_values) -> np.ndarray:
    """RGB, by :func:`read_photo` and three other ways that must agree."""
    range_of = GreyValues(**grey_values, say=lambda text: None)
    rgb = read_photo(path, grey_values=range_of)[..., ::-1]
    assert rgb.dtype == np.uint8 and image_shape(path) == rgb.shape[:2]
    np.testing.assert_array_equal(read_image(path, grey_values=range_of)[..., ::-1], rgb)
    with Image.open(path) if can_open(path) else warnings.catch_warnings() as image:
        if image is not None:
            np.testing.assert_array_equal(as_bgr(image, 'x', range_of)[..., ::-1], rgb)
    return rgb


def can_open(path) -> bool:
    try:
        Image.open(path).close()
    except OSError:
        return False
    return True


LAYOUTS = {
    'strips': dict(rowsperstrip=5),
    'one strip': dict(rowsperstrip=H),
    'tiles': dict(tile=(16, 32)),
    'deflate': dict(compression='zlib', rowsperstrip=7),
    'deflate tiles': dict(compression='zlib', tile=(32, 16)),
    'predicted': dict(compression='zlib', predictor=True, tile=(16, 16)),
    'lzma': dict(compression='lzma', rowsperstrip=9),
}


@pytest.mark.parametrize('byteorder, bigtiff', [('<', False), ('>', True)])
@pytest.mark.parametrize('planar', ['contig', 'separate'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_16_bit_colours_in_every_layout(tmp_path, byteorder, bigtiff, planar, layout):
    rgb = scene(3)
    data = np.moveaxis(rgb, 2, 0) if planar == 'separate' else rgb
    options = dict(photometric='rgb', planarconfig=planar, byteorder=byteorder, bigtiff=bigtiff)
    tifffile.imwrite(tmp_path / 'a.tif', data, **options, **LAYOUTS[layout])
    np.testing.assert_array_equal(read(tmp_path / 'a.tif'), rgb >> 8)
    narrow = rgb >> 4
    tifffile.imwrite(tmp_path / 'a.tif', data >> 4, **options, **LAYOUTS[layout])
    np.testing.assert_array_equal(read(tmp_path / 'a.tif', bit_depth=12), narrow >> 4)


@pytest.mark.parametrize('layout', ['one strip', 'deflate tiles', 'predicted'])
@pytest.mark.parametrize('kind', ['u1', 'i2', 'u4', 'i4', 'u8', 'f2', 'f4', 'f8'])
def test_every_kind_of_number(tmp_path, kind, layout):
    """In 0..255 with a given range: the truth needs no other rounding."""
    grey = (scene() >> 8).astype(kind)
    options = LAYOUTS[layout]
    if kind in ('f2', 'f4', 'f8', 'u8'):  # their predictors need another library to be written
        options = {key: value for key, value in options.items() if key != 'predictor'}
    for byteorder in '<>':
        path = tmp_path / 'a.tif'
        tifffile.imwrite(path, grey, photometric='minisblack', byteorder=byteorder, **options)
        truth = as_colour(grey.astype(np.uint8))
        np.testing.assert_array_equal(read(path, limits=(0, 255)), truth)
        tifffile.imwrite(path, grey, photometric='miniswhite', byteorder=byteorder, **options)
        np.testing.assert_array_equal(read(path, limits=(0, 255)), 255 - truth)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['grey 8', 'rgb 8', 'grey 16', 'rgb 16', 'palette'])
@pytest.mark.parametrize('compression', [None, 'zlib'])
def test_every_orientation(tmp_path, orientation, kind, compression):
    stored = scene(3 if 'rgb' in kind else 1)
    stored = stored if '16' in kind else (stored >> 8).astype(np.uint8)
    tag = (274, 'H', 1, orientation, True)
    options = dict(photometric='rgb' if 'rgb' in kind else 'minisblack')
    shown = stored >> 8 if '16' in kind else stored
    if kind == 'palette':
        colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
        options = dict(photometric='palette', colormap=colours << 8 | colours)
        shown = np.moveaxis(colours, 0, 1)[stored].astype(np.uint8)
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, stored, extratags=[tag], compression=compression, **options)
    truth = as_colour(shown)
    if orientation in (5, 6, 7, 8):
        truth = np.swapaxes(truth, 0, 1)
    if orientation in (2, 3, 6, 7):
        truth = truth[:, ::-1]
    if orientation in (3, 4, 7, 8):
        truth = truth[::-1]
    np.testing.assert_array_equal(read(path), truth)


@pytest.mark.parametrize('bits', [10, 12, 14])
@pytest.mark.parametrize('bands', [1, 3])
@pytest.mark.parametrize('compression', [1, 8])
def test_packed_bits(tmp_path, bits, bands, compression):
    """A row ends with a byte; 37 x 50 leaves bits over."""
    values = scene(bands) >> (16 - bits)
    rows = []
    for row in values.reshape(H, -1):
        text = ''.join(f'{value:0{bits}b}' for value in row)
        text += '0' * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8, 'big'))
    strips = [b''.join(rows[top : top + 10]) for top in range(0, H, 10)]
    if compression == 8:
        strips = [zlib.compress(strip) for strip in strips]
    path = tmp_path / 'a.tif'
    write(path, strips, bits=bits, bands=bands, compression=compression, rows=10)
    np.testing.assert_array_equal(read(path), as_colour((values >> (bits - 8)).astype(np.uint8)))


def write(path, strips, bits=8, bands=1, compression=1, rows=H, width=W, height=H, **more) -> None:
    """A TIFF by hand; ``more``: values of tags, as 't339'."""
    data, offsets = b'', []
    for strip in strips:
        offsets.append(8 + len(data))
        data += strip + b'\0' * (len(strip) % 2)
    tags = {
        256: [width], 257: [height], 258: [bits] * bands, 259: [compression],
        262: [2 if bands > 2 else 1], 273: offsets, 277: [bands], 278: [rows],
        279: [len(strip) for strip in strips],
    } | {int(key[1:]): value for key, value in more.items()}  # fmt: skip
    entries, extra, start = b'', b'', 8 + len(data) + 6 + 12 * len(tags)
    for tag in sorted(tags):
        raw = struct.pack(f'<{len(tags[tag])}I', *tags[tag])
        place = raw if len(raw) == 4 else struct.pack('<I', start + len(extra))
        extra += b'' if len(raw) == 4 else raw
        entries += struct.pack('<HHI', tag, 4, len(tags[tag])) + place
    head = b'II*\0' + struct.pack('<I', 8 + len(data))
    path.write_bytes(head + data + struct.pack('<H', len(tags)) + entries + b'\0' * 4 + extra)


@pytest.mark.parametrize('kind', ['u2', 'f4'])
@pytest.mark.parametrize('bands', [1, 3])
@pytest.mark.parametrize('compression', [1, 5, 32773, 8])
def test_what_opencv_writes(tmp_path, kind, bands, compression):
    """LZW and PackBits are decompressed by OpenCV where nothing else can."""
    values = scene(bands)
    values = values if kind == 'u2' else (values / 65535).astype(np.float32)
    path = tmp_path / 'a.tif'
    done = cv2.imwrite(str(path), values[..., ::-1] if bands == 3 else values,
                       [cv2.IMWRITE_TIFF_COMPRESSION, compression])  # fmt: skip
    assert done
    limits = dict(limits=(0, 1)) if kind == 'f4' else {}
    truth = values >> 8 if kind == 'u2' else np.rint(values.astype(float) * 255).astype(np.uint8)
    np.testing.assert_array_equal(read(path, **limits), as_colour(truth.astype(np.uint8)))


@pytest.mark.parametrize('kind', ['u2', 'f4'])
@pytest.mark.parametrize('bands', [3, 4])
def test_lzw_band_after_band(tmp_path, kind, bands):
    """No library at hand writes it: the parts are of files of one band."""
    values = scene(bands) if kind == 'u2' else (scene(bands) / 65535).astype(np.float32)
    parts, path, lzw = [], tmp_path / 'a.tif', [cv2.IMWRITE_TIFF_COMPRESSION, 5]
    for band in range(bands):
        cv2.imwrite(str(path), np.ascontiguousarray(values[..., band]), lzw)
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            assert page.compression == 5
            rows, predictor = page.rowsperstrip, int(page.predictor)
            places = zip(page.dataoffsets, page.databytecounts, strict=True)
            parts += [path.read_bytes()[at : at + size] for at, size in places]
    write(path, parts, bits=values.itemsize * 8, bands=bands, compression=5, rows=rows, t284=[2],
          t317=[predictor], t339=[3 if kind == 'f4' else 1] * bands,
          **(dict(t338=[0]) if bands == 4 else {}))  # fmt: skip
    limits = dict(limits=(0, 1)) if kind == 'f4' else {}
    truth = values >> 8 if kind == 'u2' else np.rint(values.astype(float) * 255)
    np.testing.assert_array_equal(read(path, **limits), truth[..., :3])


def test_8_bits_are_pillows(tmp_path, monkeypatch):
    """No other reader is asked, and the pixels are those of the decoder."""
    monkeypatch.setattr(tiff, 'read', lambda *args: pytest.fail('tifffile was asked'))
    monkeypatch.setattr(tifffile, 'TiffFile', lambda *args: pytest.fail('tifffile was asked'))
    rgb = (scene(3) >> 8).astype(np.uint8)
    for mode in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK'):
        image = Image.fromarray(rgb).convert(mode)
        for compression in ('raw', 'tiff_lzw', 'packbits', 'tiff_deflate', 'jpeg'):
            if compression == 'jpeg' and mode not in ('L', 'RGB'):
                continue
            if mode in ('LA', 'RGBA'):
                image.putalpha(255)
            image.save(tmp_path / 'a.tif', compression=compression)
            with Image.open(tmp_path / 'a.tif') as again:
                truth = np.asarray(again.convert('RGB'))
            np.testing.assert_array_equal(read_photo(tmp_path / 'a.tif')[..., ::-1], truth)


def test_pages(tmp_path):
    rgb = (scene(3) >> 8).astype(np.uint8)
    half = np.ascontiguousarray(rgb[::2, ::2])
    for deep in (False, True):
        whole, less = ((a.astype(np.uint16) << 8 if deep else a) for a in (rgb, half))
        for first in (whole, less):  # a preview may come first
            with tifffile.TiffWriter(tmp_path / 'a.tif') as file:
                for page in (first, less if first is whole else whole, less):
                    kind = 0 if page is whole else 1
                    file.write(page, photometric='rgb', subfiletype=kind, metadata=None)
            np.testing.assert_array_equal(read(tmp_path / 'a.tif'), rgb)
        with tifffile.TiffWriter(tmp_path / 'b.tif') as file:
            for page in (whole, whole, less):
                file.write(page, photometric='rgb', metadata=None)
        for reader in (read_photo, read_image):
            with pytest.raises(ValueError, match=r'b\.tif has 3 frames or pages, allowed are st'):
                reader(tmp_path / 'b.tif')
    tifffile.imwrite(tmp_path / 'stack.tif', np.zeros((4, H, W), np.uint16), imagej=True)
    with pytest.raises(ValueError, match=r'stack\.tif has \d frames or pages'):
        read_photo(tmp_path / 'stack.tif')


def test_masks_of_every_orientation_and_of_pages(tmp_path):
    labels = (scene() % 4).astype(np.uint8)
    for orientation in range(1, 9):
        tag = (274, 'H', 1, orientation, True)
        tifffile.imwrite(tmp_path / 'm.tif', labels, extratags=[tag], photometric='minisblack')
        pixels = read_mask(tmp_path / 'm.tif')
        np.testing.assert_array_equal(pixels, tiff.turned(labels, orientation))
        np.testing.assert_array_equal(pixels, read(tmp_path / 'm.tif')[..., 0])
    with tifffile.TiffWriter(tmp_path / 'm.tif') as file:
        for _ in range(2):
            file.write(labels, photometric='minisblack', metadata=None)
    with pytest.raises(
        ValueError, match=r'^mask .*m\.tif has 2 frames or pages, allowed are still'
    ):
        read_mask(tmp_path / 'm.tif')
    Image.fromarray(labels).save(tmp_path / 'm.tif')
    np.testing.assert_array_equal(read_mask(tmp_path / 'm.tif'), labels)
    four = [bytes(a << 4 | b for a, b in row.reshape(-1, 2)) for row in labels]
    write(tmp_path / 'm.tif', [b''.join(four)], bits=4)
    np.testing.assert_array_equal(read_mask(tmp_path / 'm.tif'), labels)


BANDS = [
    # bands, photometric, extrasamples, read as, what is said
    (4, 'rgb', ['unspecified'], 3, '4 bands of .* and 1 that are no alpha'),
    (6, 'rgb', ['unspecified'] * 3, 3, '6 bands of .* and 3 that are no alpha'),
    (4, 'rgb', ['unassalpha'], 3, 'band 4 of image .* is marked as alpha, and by its values'),
    (2, 'minisblack', ['unspecified'], 1, '2 bands .* the first is read as grey'),
    (3, 'minisblack', ['unspecified'] * 2, 3, '3 bands .* not said to be colours; read as red'),
]


@pytest.mark.parametrize('bands, photometric, extra, colours, said', BANDS)
@pytest.mark.parametrize('planar', ['contig', 'separate'])
@pytest.mark.parametrize('depth', [8, 16])
def test_bands_that_are_left_out_are_said(
    tmp_path, bands, photometric, extra, colours, said, planar, depth
):
    values = scene(bands) >> (16 - depth)
    values = values.astype(f'u{depth // 8}')
    data = np.moveaxis(values, 2, 0) if planar == 'separate' else values
    tifffile.imwrite(tmp_path / 'a.tif', data, photometric=photometric, planarconfig=planar,
                     extrasamples=extra)  # fmt: skip
    heard: list[str] = []
    grey_values = GreyValues(say=heard.append)
    for _ in range(2):
        rgb = read_photo(tmp_path / 'a.tif', grey_values=grey_values)[..., ::-1]
        truth = (values >> (depth - 8)).astype(np.uint8)
        truth = as_colour(truth[..., 0] if colours == 1 else truth[..., :3])
        np.testing.assert_array_equal(rgb, truth)
    assert len(heard) == 1
    assert re.search(said, heard[0])


def test_real_alpha_is_not_said(tmp_path):
    values = np.dstack([scene(3), np.where(scene() > 30000, 65535, 0).astype(np.uint16)])
    for data in (values, (values >> 8).astype(np.uint8)):
        tifffile.imwrite(tmp_path / 'a.tif', data, photometric='rgb', extrasamples=['unassalpha'])
        read_photo(tmp_path / 'a.tif', grey_values=GreyValues(say=pytest.fail))


def test_kinds_that_are_refused_say_what_they_are(tmp_path):
    path = tmp_path / 'a.tif'

    def refused(text: str) -> None:
        with pytest.raises(ValueError, match=text):
            read_photo(path)

    for bands in (4, 12):
        tifffile.imwrite(path, np.moveaxis(scene(bands), 2, 0), planarconfig='separate',
                         photometric='minisblack')  # fmt: skip
        refused(rf'a\.tif has {bands} bands of 16 bits per pixel, and which .* it does not say')
    tifffile.imwrite(path, scene().astype(np.complex64))
    refused(r'a\.tif has pixels that are not read, complex')
    tifffile.imwrite(path, (scene(3) >> 8).astype(np.uint8), photometric='cielab')
    refused(r'a\.tif has colours that are not read, CIELAB of 8 bits')
    tifffile.imwrite(path, scene(), photometric='cfa')
    refused(r'a\.tif has colours that are not read, raw of a sensor of 16 bits')
    tifffile.imwrite(path, np.zeros((8, 32, 32), np.uint8), volumetric=True, tile=(16, 16, 16))
    refused(r'a\.tif is a volume of 8 layers')
    for kind, name in (('f4', 'float'), ('f8', 'float'), ('i4', '32-bit'), ('u4', '32-bit')):
        tifffile.imwrite(path, scene().astype(kind), photometric='minisblack')
        refused(rf'a\.tif has {name} pixels 0\.\.65535, and which of them are black and white it')
    tifffile.imwrite(path, (scene() >> 4).astype(np.int16) - 1000, photometric='minisblack')
    refused(r'a\.tif has signed 16-bit pixels -1000\.\.3095')
    for bits in (8, 16):
        write(path, [scene().tobytes()], bits=bits, t259=[32773], t317=[2])
        refused(r'a\.tif is compressed by PACKBITS with a predictor, which TIFF does not know')
    if find_spec('imagecodecs') is None:
        write(path, [scene().tobytes()], bits=16, t259=[34887])
        refused(r'a\.tif has pixels of 16 bits, compressed by LERC .*pip install imagecodecs')


def test_order_of_signed_values_is_kept(tmp_path):
    signed = np.add.outer(np.zeros(H), np.arange(W) * 60 - 1000).astype(np.int16)
    tifffile.imwrite(tmp_path / 'a.tif', signed, photometric='minisblack')
    grey = read(tmp_path / 'a.tif', limits=(-1000, 1940))[..., 0]
    np.testing.assert_array_equal(grey[0], np.rint(np.arange(W) * 60 / 2940 * 255))
    tifffile.imwrite(tmp_path / 'b.tif', np.abs(signed) * 10, photometric='minisblack')
    np.testing.assert_array_equal(read(tmp_path / 'b.tif')[..., 0], np.abs(signed) * 10 >> 8)


def test_values_of_no_data_and_nan(tmp_path):
    values = (scene() / 65535).astype(np.float32)
    values[:5], values[5:9] = -9999, np.nan
    tag = (42113, 's', 0, '-9999', True)
    tifffile.imwrite(tmp_path / 'a.tif', values, photometric='minisblack', extratags=[tag])
    grey = read(tmp_path / 'a.tif', percentiles=(0, 100))[..., 0]
    held = values[9:].astype(float)
    truth = np.rint((held - held.min()) / (held.max() - held.min()) * 255)
    np.testing.assert_array_equal(grey[9:], truth)
    assert not grey[:9].any()
    tifffile.imwrite(tmp_path / 'a.tif', np.full((H, W), np.nan, np.float32))
    assert not read(tmp_path / 'a.tif', percentiles=(1, 99)).any()


# ------------------------------------------------------------------------------ hostile and broken
@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_sizes_are_checked_before_anything_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / 'a.tif'
    monkeypatch.setattr(tiff, 'decoded', lambda *args: pytest.fail('decoded'))
    write(path, [b'\0' * 64], bits=16, width=2**16, height=2**16)
    with pytest.raises(ValueError, match=r'a\.tif has too many pixels: .*Make it smaller or cut'):
        read_photo(path)
    for more in (dict(bits=32, t339=[3], t262=[2], bands=4), dict(bits=64, bands=2)):
        write(path, [b'\0' * 64], width=12000, height=12000, **more)
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 8 * 10**7)
        with pytest.raises(ValueError, match='too many pixels: 12000 x 12000 .* of . bands, '):
            read_photo(path)


def test_a_part_cannot_grow_beyond_its_header(tmp_path):
    path = tmp_path / 'a.tif'
    for compress, code in ((zlib.compress, 8), (lzma.compress, 34925)):
        write(path, [compress(bytes(2**22))], bits=16, compression=code)
        with pytest.raises(ValueError, match='a part holds more than the 3700 bytes that its he'):
            read_photo(path)
    write(path, [bytes(64)], bits=16, t322=[2**20], t323=[2**20], t324=[8], t325=[64])
    with pytest.raises(ValueError, match=r'cannot read image file .*its tiles have 1048576 x 10'):
        read_photo(path)


@pytest.mark.parametrize('layout', ['strips', 'one strip', 'deflate', 'predicted', 'lzw'])
@pytest.mark.parametrize('kind', ['u2', 'f4'])
def test_cut_files_are_named(tmp_path, layout, kind):
    path, layout = tmp_path / 'a.tif', 'lzw' if (layout, kind) == ('predicted', 'f4') else layout
    values = scene(3).astype(kind)
    if layout == 'lzw':
        cv2.imwrite(str(path), values)
    else:
        tifffile.imwrite(path, values, photometric='rgb', **LAYOUTS[layout])
    whole = path.read_bytes()
    for share in (0.05, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r'cannot read image file .*a\.tif: it is truncated'):
            read_photo(path, grey_values=GreyValues(limits=(0, 65535)))


@pytest.mark.parametrize('layout', ['one strip', 'deflate tiles', 'predicted', 'lzma'])
def test_damaged_files_raise_nothing_else(tmp_path, layout):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, scene(3), photometric='rgb', **LAYOUTS[layout])
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[int(place)] = int(rng.integers(256))
        damaged[int(rng.integers(0, 300)) % len(whole)] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                assert read_photo(path, grey_values=GreyValues(limits=(0, 65535))).ndim == 3
        except ValueError as error:
            assert 'a.tif' in str(error)


def test_the_default_warns_once(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', scene() >> 4, photometric='minisblack')
    grey_values = GreyValues()
    with pytest.warns(GreyValueWarning, match=r'uses 0\.\.4095 of the 16-bit .* 0\.\.65535, so'):
        read_photo(tmp_path / 'a.tif', grey_values=grey_values)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read_photo(tmp_path / 'a.tif', grey_values=grey_values)
