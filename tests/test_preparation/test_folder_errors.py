"""What can be wrong with a user's own folder: every message, and nothing written."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from own_folders import SHAPE, blob, by_class, by_coco, by_value
from prepared_checks import fails, picture, prepare, save


def test_all_bad_masks_are_named_and_nothing_is_written(tmp_path):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    by_class(src)
    save(src / 'ant/0.png', blob(0)[:, :30])
    save(src / 'ant/1.png', np.dstack([blob(1), blob(2), blob(1)]))
    save(src / 'ant/2.png', blob(2).astype(np.uint16) * 100)
    save(src / 'bee/0.png', np.zeros(SHAPE, np.uint8))
    save(src / 'bee/1.png', blob(3, 254, 3))
    (src / 'bee/2.png').write_bytes((src / 'bee/2.png').read_bytes()[:40])
    (src / 'cat/0.jpg').write_bytes(b'no image')
    said = fails('folder', src, out)
    assert said.startswith('error: checking: 7 of 12 failed')
    for message in (
        r'ant/0\.png is 30 x 40 pixels \(width x height\), its image .*ant/0\.jpg is 50 x 40; they',
        r"ant/1\.png has \d colours \(mode 'RGB'\), allowed are values; save the object white on",
        r"ant/2\.png has mode 'I;16' with values up to 25500; allowed are 0\.\.255",
        r'bee/0\.png marks no pixel as object; draw it, or remove it and its image',
        r'bee/1\.png has 2 unknown values: \[3, 254\]; allowed are 0 and 255 \(or 0, 1 and 255',
        r'bee/2\.png: it is truncated',
        r'cannot read image .*cat/0\.jpg',
    ):
        assert re.search(message, said), message
    assert not out.exists()


def test_files_without_a_partner(tmp_path):
    src = tmp_path / 'src'
    by_class(src)
    (src / 'ant/0.png').unlink()
    (src / 'ant/3.jpg').unlink()
    said = fails('folder', src, tmp_path / 'out')
    assert re.search(r'1 images have no mask in .*ant: .*ant/0\.jpg; 1 masks have no image', said)
    picture(src / 'ant/3.jpg', SHAPE)
    said = fails('folder', src, tmp_path / 'out')
    assert re.search(r'error: 1 images have no mask in .*ant/0\.jpg; an image and its mask', said)
    (src / 'ant/3.jpg').unlink()
    picture(src / 'ant/1.jpeg', SHAPE)
    said = fails('folder', src, tmp_path / 'out')
    assert re.search(r'2 files differ by their suffix alone: .*1\.jpeg, .*1\.jpg; remove', said)


def test_a_folder_around_that_of_a_dataset(tmp_path):
    by_value(tmp_path / 'src/mydata')
    (tmp_path / 'src/mydata/classes.txt').unlink()
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert f'if mydata is no class but a dataset of several, give {tmp_path}/src/mydata' in said


def test_wrong_values(tmp_path):
    src = tmp_path / 'src'
    by_value(src)
    save(src / 'masks/3.png', blob(3, 4))
    said = fails('folder', src, tmp_path / 'out')
    assert '1 of 8 failed' in said
    assert 'has 1 unknown values: [4]; allowed are 0..3 (the lines of classes.txt) and 255' in said
    (src / 'classes.txt').unlink()
    said = fails('folder', src, tmp_path / 'out')
    assert re.search(r'classes\.txt not found; write the names of the values 1, 2, \.\.\.', said)
    (src / 'classes.txt').write_text('ant\nbackground\nbee\n')
    assert 'names background as a class; it is value 0' in fails('folder', src, tmp_path / 'out')
    (src / 'classes.txt').write_text('ant\nbee\nant\n')
    assert "has lines twice: ['ant']" in fails('folder', src, tmp_path / 'out')
    for file in (src / 'masks').iterdir():
        save(file, blob(1, 255))
    (src / 'classes.txt').write_text('ant\n')
    (src / 'classes.txt').write_text('ant\nbee\n')
    said = fails('folder', src, tmp_path / 'out')
    assert 'no class has two images with at least 256 pixels of it' in said
    assert '8 x mask with no value but 255, which is ignored in masks of class values' in said


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda c: c['images'][1].update(file_name='9.jpg'), r'image not found: .*9\.jpg'),
        (lambda c: c['images'][1].update(file_name='../9.jpg'), r'image not found: \.\./9\.jpg'),
        (lambda c: c['images'][1].update(width=51), r'is 50 x 40 .*annotations are for 51 x 40'),
        (lambda c: c['images'][1].update(id=0), r'image ids more than once: \[0\]'),
        (lambda c: c['annotations'][0].update(image_id=50), 'image_id is not among its 6 images'),
        (lambda c: c.pop('categories'), 'COCO format: it has no list categories of objects'),
        (lambda c: c['annotations'][0].update(iscrowd=2), r'annotation 0 of 0\.jpg: iscrowd must'),
        (lambda c: c['categories'][0].update(id=20), 'category ids more than once: 20 is ant and'),
    ],
)
def test_wrong_coco_annotations(tmp_path, change, message):
    pytest.importorskip('pycocotools')
    src = tmp_path / 'src'
    content = by_coco(src)
    change(content)
    (src / 'annotations.json').write_text(json.dumps(content))
    assert re.search(message, fails('folder', src, tmp_path / 'out'))


def test_annotations_without_an_area_are_counted(tmp_path, capsys):
    pytest.importorskip('pycocotools')
    src = tmp_path / 'src'
    content = by_coco(src)
    content['annotations'][0]['segmentation'] = []
    content['annotations'][2]['segmentation'] = [[1, 1, 2, 2]]
    (src / 'annotations.json').write_text(json.dumps(content))
    said = prepare(capsys, 'folder', src, tmp_path / 'out')
    assert '2  neither outline nor box: left out  ant 2    annotation 0 in 0.jpg' in said
    assert 'ant 4, bee 3, cat 3' in said


@pytest.mark.parametrize(
    'options, message',
    [
        (['--folds', '4'], r'--folds must be in 1\.\.3, the number of classes, got 4'),
        (['--folds', '0'], r'--folds must be in 1\.\.3, the number of classes, got 0'),
        (['--test-fraction', '1'], '--test-fraction must be from 0 to below 1, got 1.0'),
        (['--test-fraction', '0.01'], 'leaves 12 images to train and 0 to test of 12'),
        (['--min-area', '0'], '--min-area must be at least 1 pixel, got 0'),
        (['--min-area', '900'], 'no class has two images with at least 900 pixels of it'),
        (['--name', 'pascal-5i'], "--name must be a name of your own, got 'pascal-5i'"),
        (['--images', 'x'], "--images and --annotations are of layout coco, .*, this is 'classes'"),
        (['--layout', 'values'], r'classes\.txt not found'),
        (['--layout', 'coco'], r'annotations not found: .*annotations\.json; export it again'),
    ],
)
def test_wrong_options(tmp_path, options, message):
    by_class(tmp_path / 'src')
    assert re.search(message, fails('folder', tmp_path / 'src', tmp_path / 'out', *options))


def test_folders_of_something_else(tmp_path):
    src, out = tmp_path / 'src', tmp_path / 'out'
    assert re.search(
        r'folder .*src not found; expected one of: a folder', fails('folder', src, out)
    )
    src.mkdir()
    assert 'has no folder of a class; expected one of' in fails('folder', src, out)
    by_class(src)
    assert 'OUT must not be SRC or below it' in fails('folder', src, src / 'prepared')
    save(out / 'holiday.png', blob(1))
    said = fails('folder', src, out)
    assert 'is not empty and was not made by this command; nothing was written' in said
    assert [p.name for p in out.iterdir()] == ['holiday.png']


def test_links_to_themselves_are_named(tmp_path):
    src, link = tmp_path / 'src', tmp_path / 'link'
    by_class(src)
    link.symlink_to('link')
    assert f'folder {link} not found; expected one of: ' in fails('folder', link, tmp_path / 'out')
    assert re.search(r'(symbolic links|File exists).*link', fails('folder', src, link))
    (src / 'ant/0.jpg').unlink()
    (src / 'ant/0.jpg').symlink_to('0.jpg')
    said = fails('folder', src, tmp_path / 'out')
    assert said.startswith('error: checking: 1 of 12 failed') and 'ant/0.jpg' in said
    assert not (tmp_path / 'out').exists()
