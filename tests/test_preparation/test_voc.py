"""VOC 2012 with SBD: masks of every source, lists, bad input."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest
from PIL import Image
from prepared_checks import fails, files, picture, prepare, read, save

from mmfss.datasets.segmentation import PascalVOCFewShot

TRAIN, VAL = ['b1', 'b3', 'b2'], ['v1', 'v2']  # VOC's own, with SegmentationClass
NOVAL = ['a1', 'b1', 'c1']  # of SBD; b1 is VOC's as well
SBD = [*NOVAL, 'v1', 'm1']  # m1 is in VOC's Main/val alone
SHAPE = (60, 80)
needs_scipy = pytest.mark.skipif(
    importlib.util.find_spec('scipy') is None,
    reason='scipy is not installed: pip install -r requirements/common.txt',
)


def label(name: str, border: int = 255) -> np.ndarray:
    """Half of the picture is a class that follows from the name, with a border above."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[30:] = ord(name[0]) % 20 + 1
    mask[29] = border
    return mask


def lines(names) -> str:
    return ''.join(f'{name}\n' for name in names)


def write_sbd(root, names=SBD, noval=NOVAL):
    from scipy.io import savemat

    folder = root / 'benchmark_RELEASE/dataset'
    (folder / 'cls').mkdir(parents=True)
    for name in names:
        content = dict(Segmentation=label(name, 0), CategoriesPresent=np.array([1]))
        savemat(folder / f'cls/{name}.mat', dict(GTcls=content), do_compression=True)
    if noval:
        (folder / 'train_noval.txt').write_text(lines(noval))
    return folder.parent


def write_voc(root):
    src = root / 'VOC2012'
    for name in {*TRAIN, *VAL, *SBD}:
        picture(src / f'JPEGImages/{name}.jpg', SHAPE)
    for name in (*TRAIN, *VAL):
        save(src / f'SegmentationClass/{name}.png', label(name))
    for folder in ('Segmentation', 'Main'):
        (src / 'ImageSets' / folder).mkdir(parents=True)
    (src / 'ImageSets/Segmentation/train.txt').write_text(lines(TRAIN))
    (src / 'ImageSets/Segmentation/val.txt').write_text(lines(VAL))
    (src / 'ImageSets/Main/val.txt').write_text(lines([*VAL, 'm1', 'x9']))
    return src


@needs_scipy
def test_masks_and_list_of_both_sources(tmp_path, capsys):
    src, sbd = write_voc(tmp_path), write_sbd(tmp_path)
    said = prepare(capsys, 'voc', src, '--sbd', sbd)
    masks = {p.stem: p for p in (src / 'SegmentationClassAug').iterdir()}
    assert sorted(masks) == ['a1', 'b1', 'b2', 'b3', 'c1', 'm1', 'v1', 'v2']
    for name, path in masks.items():
        own = name in (*TRAIN, *VAL)  # VOC's masks win; SBD's have no border
        np.testing.assert_array_equal(read(path), label(name, 255 if own else 0), err_msg=name)
        with Image.open(path) as mask:
            assert mask.mode == 'P' and mask.getpalette()[3:9] == [128, 0, 0, 0, 128, 0]
    train_list = src / 'ImageSets/Segmentation/train_aug_fss.txt'
    assert train_list.read_text() == lines(['a1', 'b1', 'b2', 'b3', 'c1'])
    assert f'8 masks in {src / "SegmentationClassAug"}: 8 made, 0 complete already' in said
    assert f"5 images in {train_list} (VOC's train joined with SBD's train_noval)" in said
    assert 'WARNING: not the 5953 images of the published list' in said
    assert 'WARNING: not the 1449 images of the published list' in said
    # ord('b') % 20 + 1 = 19 and 'a' 18, 'c' 20: novel in fold 3; 'v' also 19
    assert '  fold 0: 5 training images, 0 test images, no test image of aeroplane' in said
    assert '  fold 3: 0 training images, 2 test images, no test image of pottedplant' in said
    dataset = PascalVOCFewShot('ImageSets/Segmentation/train_aug_fss.txt', str(src))
    assert len(dataset) == 5
    before = files(src)
    assert '0 made, 8 complete already' in prepare(capsys, 'voc', src, '--sbd', sbd / 'dataset')
    assert files(src) == before


@needs_scipy
def test_list_without_train_noval(tmp_path, capsys):
    """All images with masks but those of Main/val are the same list."""
    src, sbd = write_voc(tmp_path), write_sbd(tmp_path, noval=None)
    said = prepare(capsys, 'voc', src, '--sbd', sbd)
    assert 'all images with masks but those of ImageSets/Main/val.txt, and VOC train' in said
    train_list = src / 'ImageSets/Segmentation/train_aug_fss.txt'
    assert train_list.read_text() == lines(['a1', 'b1', 'b2', 'b3', 'c1'])
    train_list.unlink()
    (src / 'ImageSets/Main/val.txt').unlink()
    assert re.search(
        r'the training list needs train_noval\.txt in the folder of SBD, or .*Main/val\.txt; down',
        fails('voc', src, '--sbd', sbd),
    )


@needs_scipy
def test_another_output_folder(tmp_path, capsys):
    src, sbd, out = write_voc(tmp_path), write_sbd(tmp_path), tmp_path / 'out'
    before = files(src)
    prepare(capsys, 'voc', src, '--sbd', sbd, '--out', out)
    assert files(src) == before
    assert (out / 'JPEGImages').resolve() == src / 'JPEGImages'
    for name, number in (('train_aug_fss', 5), ('val', 2)):
        assert len(PascalVOCFewShot(f'ImageSets/Segmentation/{name}.txt', str(out))) == number
    all_made = files(out)
    prepare(capsys, 'voc', src, '--sbd', sbd, '--out', out)
    assert files(out) == all_made  # nothing is written twice
    made = files(out / 'SegmentationClassAug')
    # from masks that are there in place of SBD
    again = tmp_path / 'again'
    prepare(capsys, 'voc', out, '--out', again)
    copies = files(again / 'SegmentationClassAug')
    assert {k: v[1] for k, v in copies.items()} == {k: v[1] for k, v in made.items()}
    (tmp_path / 'full/JPEGImages').mkdir(parents=True)
    said = fails('voc', src, '--sbd', sbd, '--out', tmp_path / 'full')
    assert 'full/JPEGImages is there and is no link to' in said


@needs_scipy
def test_existing_list(tmp_path, capsys):
    src, sbd = write_voc(tmp_path), write_sbd(tmp_path)
    train_list = src / 'ImageSets/Segmentation/train_aug_fss.txt'
    train_list.write_text(lines(['c1', 'b1', 'b2', 'a1', 'b3']))
    assert '(the list that was there, in its order)' in prepare(capsys, 'voc', src, '--sbd', sbd)
    assert train_list.read_text() == lines(['c1', 'b1', 'b2', 'a1', 'b3'])
    train_list.write_text(lines(['c1', 'b1', 'b2', 'a1', 'm1']))
    said = fails('voc', src, '--sbd', sbd)
    assert 'train_aug_fss.txt has other images than' in said
    assert '1 more (m1) and 1 fewer (b3); move it away, and it is made anew' in said


def aug(tmp_path):
    """VOC with a complete SegmentationClassAug, as it can be downloaded."""
    src = write_voc(tmp_path)
    for name in {*TRAIN, *VAL, *SBD}:
        save(src / f'SegmentationClassAug/{name}.png', label(name))
    for file in (src / 'SegmentationClass').iterdir():
        file.unlink()
    return src


def test_existing_masks_are_checked_and_left(tmp_path, capsys):
    src = aug(tmp_path)
    before = files(src / 'SegmentationClassAug')
    said = prepare(capsys, 'voc', src)
    assert '0 made, 8 complete already' in said and '5 images in' in said
    assert files(src / 'SegmentationClassAug') == before


@pytest.mark.parametrize(
    'name, mask, message',
    [
        (
            'a1',
            np.zeros((*SHAPE, 3), np.uint8),
            r"a1\.png must be .* got mode 'RGB'.*opened and save",
        ),
        ('a1', np.zeros(SHAPE, np.uint16), r"a1\.png must be .* got mode 'I;16'"),
        (
            'c1',
            np.zeros((80, 60), np.uint8),
            r'c1\.png is 60 x 80 pixels \(width x height\), its image 80 x 60; they must be equal',
        ),
        (
            'v2',
            np.full(SHAPE, 21, np.uint8),
            r'v2\.png has the values \[21\], allowed are 0\.\.20 and 255; it is no class',
        ),
    ],
)
def test_wrong_masks(tmp_path, name, mask, message):
    src = aug(tmp_path)
    save(src / f'SegmentationClassAug/{name}.png', mask)
    assert re.search(f'1 of 8 failed(.|\n)*{message}', fails('voc', src))


def test_all_bad_files_are_named(tmp_path):
    src = aug(tmp_path)
    (src / 'SegmentationClassAug/b1.png').unlink()
    half = src / 'SegmentationClassAug/b2.png'
    half.write_bytes(half.read_bytes()[:60])
    (src / 'JPEGImages/b3.jpg').unlink()
    (src / 'JPEGImages/c1.jpg').write_bytes(b'')
    said = fails('voc', src)
    assert '4 of 8 failed (0 made, 4 complete already of the others)' in said
    for text in ('no mask of image b1; looked for', 'b2.png: it is truncated', 'image not found'):
        assert text in said
    assert re.search(r'cannot read image .*c1\.jpg', said)
    assert not (src / 'ImageSets/Segmentation/train_aug_fss.txt').exists()


@pytest.mark.parametrize(
    'file, text, message',
    [
        ('val', lines(['v1', 'v2', 'v1']), r"val\.txt has lines twice: \['v1'\]; a list has one"),
        ('val', '', r'val\.txt is empty; a list has one name a line'),
        (
            'train',
            lines([*TRAIN, 'v1']),
            r"1 images are both in the training list .* and in .*val\.txt: \['v1'\]; a list was",
        ),
        ('train', lines([*TRAIN, 'zz']), r'image not found: .*zz\.jpg'),
    ],
)
def test_wrong_lists(tmp_path, file, text, message):
    src = aug(tmp_path)
    (src / f'ImageSets/Segmentation/{file}.txt').write_text(text)
    assert re.search(message, fails('voc', src))


def test_nothing_to_make_masks_from(tmp_path):
    assert re.search(
        r'folder .*none not found; unpack VOCtrainval', fails('voc', tmp_path / 'none')
    )
    src = write_voc(tmp_path)
    assert re.search(r'SegmentationClassAug has no masks; give --sbd', fails('voc', src))
    assert 'has no folder cls (nor dataset/cls)' in fails('voc', src, '--sbd', tmp_path)
    (src / 'ImageSets/Segmentation/val.txt').unlink()
    assert re.search(r'list not found: .*val\.txt', fails('voc', src))


@needs_scipy
@pytest.mark.parametrize(
    'spoil, message',
    [
        (
            lambda f: f.write_bytes(f.read_bytes()[:150]),
            r'cannot read .*a1\.mat: it is cut off, or',
        ),
        (lambda f: _save_mat(f, dict(other=1)), r'no GTcls\.Segmentation .*KeyError.*unpack'),
        (
            lambda f: _save_mat(f, dict(GTcls=dict(Segmentation=np.zeros((2, 2))))),
            r'must be 8-bit of two dimensions, got float64 \(2, 2\)',
        ),
        (
            lambda f: _save_mat(f, dict(GTcls=dict(Segmentation=np.zeros((9, 9), np.uint8)))),
            r'a1\.mat is 9 x 9 pixels \(width x height\), its image 80 x 60',
        ),
    ],
)
def test_wrong_mat_files(tmp_path, spoil, message):
    src, sbd = write_voc(tmp_path), write_sbd(tmp_path)
    spoil(sbd / 'dataset/cls/a1.mat')
    assert re.search(message, fails('voc', src, '--sbd', sbd))
    assert not list((src / 'SegmentationClassAug').glob('.*'))


def _save_mat(file, content):
    from scipy.io import savemat

    savemat(file, content)


def test_missing_scipy(tmp_path, monkeypatch):
    src = write_voc(tmp_path)
    (tmp_path / 'sbd/cls').mkdir(parents=True)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name == 'scipy' else find(name)
    )
    said = fails('voc', src, '--sbd', tmp_path / 'sbd')
    assert 'scipy, which reads .mat files, is not installed; pip install -r' in said


def test_real_photos(tmp_path, capsys, shared_dir):
    source = shared_dir / 'data/VOCdevkit/VOC2012'
    if not source.is_dir():
        pytest.skip(f'no photos at {source}')
    said = prepare(capsys, 'voc', source, '--out', tmp_path / 'out')
    assert '64 masks in' in said and '32 images in' in said and '(the list that was there)' in said
    assert '  fold 2: 26 training images, 6 test images, no test image of dog' in said
    for file in sorted((source / 'SegmentationClassAug').iterdir()):
        np.testing.assert_array_equal(
            read(tmp_path / 'out/SegmentationClassAug' / file.name), read(file), err_msg=file.name
        )
