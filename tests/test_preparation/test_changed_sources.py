"""A download that was replaced: what was made from the old one is made again, the rest stays."""

from __future__ import annotations

import os

import numpy as np
from prepared_checks import picture, prepare, read, save

from mmfss.datasets.preparation import chest_xray, isaid5i
from mmfss.datasets.preparation.class_masks import save_class_masks


def white(side: int, left: int, width: int) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[:, left : left + width] = 255
    return mask


def replace(path, array):
    """As unpacking does: another file, whose content is of long ago."""
    new = save(path.with_name('new' + path.suffix), array)
    os.utime(new, (0, 0))
    new.replace(path)


def test_black_and_white_masks(tmp_path, capsys):
    root = tmp_path / 'fss'
    for name in ('ant', 'bee'):
        for i in (1, 2):
            picture(root / name / f'{i}.jpg', (20, 20))
            save(root / name / f'{i}.png', white(20, 0, 5))
    (tmp_path / 'test.txt').write_text('bee\n')
    command = 'fss1000', root, tmp_path / 'out', '--splits', tmp_path / 'test.txt'
    prepare(capsys, *command)
    replace(root / 'bee/1.png', white(20, 10, 5))
    assert '1 made, 3 complete already' in prepare(capsys, *command)
    np.testing.assert_array_equal(read(tmp_path / 'out/masks/2/bee/1.png'), white(20, 10, 5) // 255)
    assert '0 made, 4 complete already' in prepare(capsys, *command)


def test_radiographs(tmp_path, capsys):
    start = chest_xray.SUBSETS['shenzhen']
    for i in (1, 2):
        picture(tmp_path / f'cxr/CXR_png/{start}{i}.png', (20, 20))
        save(tmp_path / f'cxr/masks/{start}{i}_mask.png', white(20, 0, 5))
    command = 'chest_xray', tmp_path / 'cxr', tmp_path / 'out'
    prepare(capsys, *command)
    photo = np.full((20, 20, 3), 7, np.uint8)
    replace(tmp_path / f'cxr/CXR_png/{start}1.png', photo)
    replace(tmp_path / f'cxr/masks/{start}2_mask.png', white(20, 10, 5))
    assert '2 made, 0 complete already' in prepare(capsys, *command)
    np.testing.assert_array_equal(read(tmp_path / f'out/images/{start}1.png'), photo)
    np.testing.assert_array_equal(
        read(tmp_path / f'out/masks/{start}2.png'), white(20, 10, 5) // 255
    )
    assert '0 made, 2 complete already' in prepare(capsys, *command)


def coded(label: int) -> np.ndarray:
    """The left half is background, the right one a class."""
    colours = np.zeros((40, 40, 3), np.uint8)
    colours[:, 20:] = tuple(isaid5i.COLOURS.values())[label]
    return colours


def test_tiles(tmp_path, capsys):
    for split in isaid5i.SPLITS:
        for name in ('a', 'b'):
            picture(tmp_path / f'isaid/{split}/images/{name}.png', (40, 40))
            save(tmp_path / f'isaid/{split}/masks/{name}_instance_color_RGB.png', coded(1))
    options = '--size', 20, '--stride', 20, '--min-area', 100
    command = 'isaid5i', tmp_path / 'isaid', tmp_path / 'out', *options
    prepare(capsys, *command)
    masks = tmp_path / 'isaid/val/masks'
    replace(masks / 'a_instance_color_RGB.png', coded(2))
    assert 'val: 4 tiles (2 made, 2 complete already)' in prepare(capsys, *command)
    assert set(np.unique(read(tmp_path / 'out/masks/val/a_0_20_20_40.png'))) == {2}
    replace(masks / 'a_instance_color_RGB.png', coded(0))  # no tile: the note alone says so
    assert 'val: 2 tiles (0 made, 2 complete already)' in prepare(capsys, *command)
    replace(masks / 'a_instance_color_RGB.png', coded(3))
    assert 'val: 4 tiles (2 made, 2 complete already)' in prepare(capsys, *command)
    assert set(np.unique(read(tmp_path / 'out/masks/val/a_0_20_20_40.png'))) == {3}


def test_objects_that_are_cut_out(tmp_path):
    photo, source, out = tmp_path / '1.jpg', tmp_path / '1.mat', tmp_path / 'out'
    picture(photo, (20, 20))
    source.write_bytes(b'old')
    mask = white(20, 0, 20) > 0

    def make():
        done = save_class_masks(photo, '1_1.png', {3: lambda: mask}, (0, 9, 0, 9), out, source)
        return done.written, done.kept

    assert (make(), make()) == ((2, 0), (0, 2))
    source.write_bytes(b'new')
    assert (make(), make()) == ((1, 1), (0, 2))
    picture(photo, (20, 20), seed=1)
    assert (make(), make()) == ((1, 1), (0, 2))
