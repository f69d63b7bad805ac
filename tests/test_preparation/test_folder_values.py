"""Masks as people have them: forms of files, what all files must agree on, classes that overlap."""

from __future__ import annotations

import re

import numpy as np
import pytest
from own_folders import SHAPE, blob
from PIL import Image
from prepared_checks import fails, picture, prepare, read, save

from mmfss.datasets.folds import get_benchmark
from mmfss.datasets.preparation.mask_files import read_values

COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)


def two_classes(i: int) -> np.ndarray:
    """A label map of 0, 1, 2."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[:20, i : 20 + i], labels[20:, 10 + i : 30 + i] = 1, 2
    return labels


def values_folder(src, write, number=4, names='cat\ndog\n'):
    """images, masks and classes.txt; ``write(path, i, labels)`` saves a mask."""
    (src / 'masks').mkdir(parents=True)
    if names:
        (src / 'classes.txt').write_text(names)
    for i in range(number):
        picture(src / f'images/{i}.jpg', SHAPE, i)
        write(src / f'masks/{i}.png', i, two_classes(i))


def with_palette(order):
    """Saves a label map as a palette of COLOURS in another order: labels of new value v are
    order[v]."""

    def write(path, i, labels):
        use = order(i)
        image = Image.fromarray(np.argsort(use)[labels].astype(np.uint8))
        image.putpalette(COLOURS[use].ravel().tolist())
        image.save(path)

    return write


# ------------------------------------------------------------------------------------ palettes
def test_one_palette(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'out'
    values_folder(src, with_palette(lambda i: [0, 1, 2]))
    assert 'cat 4, dog 4' in prepare(capsys, 'folder', src, out)
    for i in range(4):
        np.testing.assert_array_equal(read(out / f'masks/{i}.png'), two_classes(i))


@pytest.mark.parametrize('odd', [1, 2, 3])
def test_a_palette_in_each_file(tmp_path, capsys, odd):
    """Programs that save space number colours by use: red is 1 here and 2 there, in few files or
    in many."""
    src, out = tmp_path / 'src', tmp_path / 'out'
    values_folder(src, with_palette(lambda i: [0, 2, 1] if i < odd else [0, 1, 2]))
    said = fails('folder', src, out)
    assert 'error: value 1 has 2 colours (red, green, blue) in the palettes of the masks' in said
    few, many = sorted((odd, 4 - odd))
    assert f'in {many} masks (' in said and f'in {few} masks (' in said
    assert 'save all with one palette' in said and not out.exists()
    (src / 'labelmap.txt').write_text('dog:0,0,255::\ncat:255,0,0::\n')
    (src / 'classes.txt').unlink()
    assert 'dog 4, cat 4' in prepare(capsys, 'folder', src, out)  # by colour, then
    for i in range(4):
        labels = np.array([0, 2, 1])[two_classes(i)]
        np.testing.assert_array_equal(read(out / f'masks/{i}.png'), labels)


@pytest.mark.parametrize('order', [[1, 2, 0], [1, 0, 2], [2, 1, 0]])
def test_a_background_that_is_not_0(tmp_path, order):
    src = tmp_path / 'src'
    values_folder(src, with_palette(lambda i: order))
    said = fails('folder', src, tmp_path / 'out')
    red = tuple(COLOURS[order[0]].tolist())
    assert f'value 0, which is background, has the colour {red} in the palettes' in said
    assert f'and value {order.index(0)} is black' in said and 'is that the background?' in said


def test_grey_values_among_palettes_are_said(tmp_path, capsys):
    """Grey ramps of some files beside colours of others, and files without a palette: nothing tells
    whether they agree."""

    def write(path, i, labels):
        image = Image.fromarray(labels)
        if i % 3 == 0:
            image.putpalette([v for v in range(256) for _ in range(3)])
        elif i % 3 == 1:
            image.putpalette(COLOURS.ravel().tolist())
        image.save(path)

    values_folder(tmp_path / 'src', write)
    said = prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    assert 'cat 4, dog 4' in said
    assert '3  mask of grey values among masks with a palette: its values are taken' in said


def test_colours_of_what_is_ignored_do_not_matter(tmp_path, capsys):
    def write(path, i, labels):
        labels[0] = 255
        image = Image.fromarray(labels)
        image.putpalette([*COLOURS.ravel().tolist(), *([0] * 756), i, 255, i])
        image.save(path)

    values_folder(tmp_path / 'src', write)
    assert 'cat 4, dog 4' in prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')


def test_colours_of_values_that_do_not_occur_do_not_matter(tmp_path, capsys):
    def write(path, i, labels):
        image = Image.fromarray(labels)
        image.putpalette([*COLOURS.ravel().tolist(), *([i] * 30)])
        image.save(path)

    values_folder(tmp_path / 'src', write)
    assert 'cat 4, dog 4' in prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')


def test_colours_without_a_list_of_them(tmp_path, capsys):
    src = tmp_path / 'src'
    values_folder(src, lambda path, i, labels: save(path, COLOURS[labels]))
    said = fails('folder', src, tmp_path / 'out')
    assert "has 3 colours (mode 'RGB'), allowed are values; say in SRC/labelmap.txt" in said
    (src / 'class_dict.csv').write_text('name,r,g,b\nbackground,0,0,0\ncat,255,0,0\ndog,0,0,255\n')
    (src / 'classes.txt').unlink()
    prepare(capsys, 'folder', src, tmp_path / 'out')
    np.testing.assert_array_equal(read(tmp_path / 'out/masks/3.png'), two_classes(3))


# ---------------------------------------------------------------------- forms of two values
def rgba(mask, alpha):
    return Image.merge('RGBA', [Image.fromarray(mask)] * 3 + [Image.fromarray(alpha)])


OPAQUE = np.full(SHAPE, 255, np.uint8)
FORMS = {
    'grey': lambda m: Image.fromarray(m),
    'rgb': lambda m: Image.fromarray(np.dstack([m] * 3)),
    'rgba': lambda m: rgba(m, OPAQUE),
    'la': lambda m: Image.merge('LA', [Image.fromarray(m), Image.fromarray(OPAQUE)]),
    'one bit': lambda m: Image.fromarray(m > 0),
    '16 bit': lambda m: Image.fromarray((m > 0).astype(np.uint16) * 65535),
    '16 bit of 255': lambda m: Image.fromarray(m.astype(np.uint16)),
    'white on nothing': lambda m: rgba(OPAQUE, m),
    'ones in rgb': lambda m: Image.fromarray(np.dstack([m // 255] * 3)),
}


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.bmp'])
@pytest.mark.parametrize('form', FORMS)
def test_black_and_white_in_any_form(tmp_path, form, suffix):
    if suffix == '.bmp' and form not in ('grey', 'rgb', 'one bit'):
        suffix = '.png'
    path = tmp_path / f'mask{suffix}'
    FORMS[form](blob(3)).save(path)
    found = read_values(path, two=True)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found > 0, blob(3) > 0)
    white = 1 if form in ('one bit', 'ones in rgb') and suffix != '.bmp' else None
    assert {*np.unique(found)} in ([{0, white}] if white else [{0, 255}, {0, 1}])


@pytest.mark.parametrize('layout', ['class', 'values'])
@pytest.mark.parametrize('form', ['rgb', '16 bit', 'rgba', 'white on nothing', 'grey'])
def test_forms_in_a_folder(tmp_path, capsys, form, layout):
    src, out = tmp_path / 'src', tmp_path / 'out'
    inner = 'crack/' if layout == 'class' else ''
    for i in range(3):
        picture(src / f'images/{inner}{i}.jpg', SHAPE, i)
        path = src / f'masks/{inner}{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        FORMS[form](blob(i)).save(path)
    if layout == 'values':
        (src / 'classes.txt').write_text('crack\n')
    assert 'crack 3' in prepare(capsys, 'folder', src, out)
    for i in range(3):
        np.testing.assert_array_equal(read(out / f'masks/{inner}{i}.png'), blob(i, 1))


@pytest.mark.parametrize(
    'image, said',
    [
        (Image.fromarray(np.dstack([blob(0), blob(1), blob(0)])), r'colours \(mode .RGB.\), .*wh'),
        (rgba(blob(0), blob(1)), 'is transparent in parts, so it has no value there; flatten'),
        (Image.fromarray(blob(0).astype(np.uint16) * 100), 'with values up to 25500; allowed are'),
        (Image.fromarray(blob(0).astype(np.float32)), "got mode 'F'"),
    ],
)
def test_forms_that_are_refused(tmp_path, image, said):
    path = tmp_path / 'mask.tif'
    image.save(path)
    with pytest.raises(ValueError, match=rf'mask .*mask\.tif .*{said}'):
        read_values(path, two=True)


def test_no_value_of_a_class_is_taken_for_white(tmp_path):
    """65535 may mean ignored in masks of class values."""
    Image.fromarray((blob(0) > 0).astype(np.uint16) * 65535).save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match='values up to 65535; allowed are 0..255'):
        read_values(tmp_path / 'a.png', two=False)


# --------------------------------------------------------------------------------- inverted
def class_folder(src, masks):
    for i, mask in enumerate(masks):
        picture(src / f'crack/{i}.jpg', mask.shape, i)
        save(src / f'crack/{i}.png', mask)


@pytest.mark.parametrize('white', [1, 255])
@pytest.mark.parametrize('odd', [2, 3, 4])
def test_inverted_masks_are_asked_about(tmp_path, capsys, white, odd):
    src, out = tmp_path / 'src', tmp_path / 'out'
    black = [blob(i, 0, white) for i in range(odd)]
    class_folder(src, black + [blob(i, white) for i in range(odd, 4)])
    if odd == 2:
        prepare(capsys, 'folder', src, out)  # not most of them: large objects
        return
    said = fails('folder', src, out)
    assert f'in {odd} of 4 masks of crack {white} covers most of the image and nearly all' in said
    assert f'--object-value 0 says that it is, --object-value {white} that it is not' in said
    prepare(capsys, 'folder', src, out, '--object-value', white)
    np.testing.assert_array_equal(read(out / 'masks/crack/0.png'), blob(0, 0, 1))
    prepare(capsys, 'folder', src, out, '--object-value', '0')
    np.testing.assert_array_equal(read(out / 'masks/crack/0.png'), blob(0, 1))


def test_one_class_by_values_may_be_inverted_too(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'out'
    values_folder(src, lambda p, i, _: save(p, blob(i, 0, 255)), names='crack\n')
    assert 'in 4 of 4 masks of crack 255 covers' in fails('folder', src, out)
    prepare(capsys, 'folder', src, out, '--object-value', '0')
    np.testing.assert_array_equal(read(out / 'masks/2.png'), blob(2, 1))


def test_large_objects_are_not_asked_about(tmp_path, capsys):
    """They reach three borders, or fill the image."""
    most = np.full(SHAPE, 255, np.uint8)
    most[:12] = 0
    class_folder(tmp_path / 'src', [most, most, np.full(SHAPE, 255, np.uint8)])
    assert 'crack 3' in prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')


# ------------------------------------------------------------------- one class, white is it
def test_white_is_the_object_of_one_class(tmp_path, capsys):
    """A list of one name, and nothing but 0 and 255; an image may show none."""
    src, out = tmp_path / 'src', tmp_path / 'out'
    values_folder(src, lambda p, i, _: save(p, blob(i) * (i > 0)), names='crack\n')
    said = prepare(capsys, 'folder', src, out)
    assert 'crack 3' in said and '1 images show no class' in said
    np.testing.assert_array_equal(read(out / 'masks/1.png'), blob(1, 1))
    save(src / 'masks/3.png', blob(3, 1))  # 1 is the class, so 255 is ignored
    assert re.search(
        'no class has two images .* 2 x mask with no value but 255', fails('folder', src, out)
    )
    assert 'for masks of two values, these are of 2 classes' in _of_two(tmp_path)


def _of_two(tmp_path) -> str:
    values_folder(tmp_path / 'two', lambda p, i, labels: save(p, labels))
    return fails('folder', tmp_path / 'two', tmp_path / 'no', '--object-value', '255')


# ------------------------------------------------------------------------ masks by class
@pytest.mark.parametrize('deep', ['', 'cam/', 'train/'])
def test_masks_in_a_folder_of_each_class(tmp_path, capsys, deep):
    """Images in one folder; classes overlap, and not all are in all images."""
    src, out = tmp_path / 'src', tmp_path / 'out'
    for i in range(3):
        picture(src / f'images/{deep}{i}.jpg', SHAPE, i)
        save(src / f'masks/leaf/{deep}{i}.png', blob(i))
        if i:
            spot = np.zeros(SHAPE, np.uint8)
            spot[np.nonzero(blob(i))] = np.tile([255, 0], 200)
            save(src / f'masks/spot/{deep}{i}.png', spot * (i < 2))
    picture(src / f'images/{deep}9.jpg', SHAPE)
    said = prepare(capsys, 'folder', src, out, '--min-area', '100')
    assert 'out: 3 images (layout classes), class masks in' in said
    assert 'leaf 3, spot 1' in said and '1  image without a mask of any class, left out' in said
    assert get_benchmark(str(out)).classes == ('leaf', 'spot')
    lines = (out / 'splits/all.txt').read_text().split('\n')
    assert lines == [f'{deep}0.jpg\t1', f'{deep}1.jpg\t1 2', f'{deep}2.jpg\t1', '']
    np.testing.assert_array_equal(read(out / f'masks/1/{deep}2.png'), blob(2, 1))
    spot = read(src / f'masks/spot/{deep}1.png') // 255
    np.testing.assert_array_equal(read(out / f'masks/2/{deep}1.png'), spot)


def test_masks_by_class_that_do_not_overlap_are_label_maps(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'out'
    for i in range(2):
        picture(src / f'images/{i}.jpg', SHAPE, i)
        for c, name in enumerate(('cat', 'dog'), 1):
            save(src / f'masks/{name}/{i}.png', (two_classes(i) == c) * np.uint8(255))
    assert 'label maps in' in prepare(capsys, 'folder', src, out)
    np.testing.assert_array_equal(read(out / 'masks/1.png'), two_classes(1))
    save(src / 'masks/dog/7.png', blob(0))
    assert '1 masks have no image in' in fails('folder', src, out)


@pytest.mark.parametrize('form', ['{n}_mask', '{n}-mask', '{n}.mask', '{n}_Mask', '{n}_label'])
def test_names_of_masks_with_a_tail(tmp_path, capsys, form):
    src, out = tmp_path / 'src', tmp_path / 'out'
    for i in range(2):
        for name in ('cat', 'dog'):
            picture(src / f'{name}/{i}.{"jpg" if i else "png"}', SHAPE, i)
            save(src / f'{name}/{form.format(n=i)}.png', blob(i))
    assert 'cat 2, dog 2' in prepare(capsys, 'folder', src, out)
    np.testing.assert_array_equal(read(out / 'masks/dog/0.png'), blob(0, 2))
