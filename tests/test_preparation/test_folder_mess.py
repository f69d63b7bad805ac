"""What users' folders hold beside plain pictures: turned photos, odd names, links, editor marks."""

from __future__ import annotations

import json
import os
import re

import pytest
from own_folders import SHAPE, blob, by_class, by_coco, by_value
from PIL import Image
from prepared_checks import episodes, fails, picture, prepare, save

from mmfss.datasets.segmentation import PreparedDataset


@pytest.mark.parametrize('layout', [by_class, by_value, by_coco])
def test_photos_that_are_cut_off(tmp_path, layout):
    layout(tmp_path / 'src')
    photo = sorted((tmp_path / 'src').rglob('0.jpg'))[0]
    photo.write_bytes(photo.read_bytes()[:-100])
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert re.search(r'checking: 1 of .*\n.*cannot read image file .*0\.jpg: it is truncated', said)
    assert not (tmp_path / 'out').exists()


def test_photos_that_are_too_large(tmp_path):
    by_class(tmp_path / 'src')
    Image.new('1', (20000, 20000)).save(tmp_path / 'src/ant/9.tif', compression='group4')
    save(tmp_path / 'src/ant/9.png', blob(0))
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert re.search(r'ant/9\.tif is too large to be read: .*400000000.*; shrink it', said)


def test_palettes_that_contradict_their_values(tmp_path, capsys):
    """Programs that save space sort colours by use: then 0 is white, and the object."""
    by_class(tmp_path / 'src')
    for palette, fine in (([0, 0, 0, 255, 255, 255], True), ([255, 255, 255, 0, 0, 0], False)):
        for i in range(4):
            for name in ('ant', 'bee', 'cat'):
                mask = Image.fromarray(blob(i, 1))
                mask.putpalette(palette)
                mask.save(tmp_path / f'src/{name}/{i}.png')
        if fine:
            assert '12 made' in prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert 'checking: 12 of 12 failed' in said
    assert 'palette in which the background (value 0) is brighter than the object' in said


@pytest.mark.parametrize('first', ['background', '_background_', 'Background'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_the_line_of_the_background(tmp_path, capsys, first, encoding):
    by_value(tmp_path / 'src')
    (tmp_path / 'src/classes.txt').write_text(f'{first}\nant\nbee\ncat\n', encoding=encoding)
    prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    classes = PreparedDataset(str(tmp_path / 'out'), 'all').metainfo['classes']
    assert classes == ('background', 'ant', 'bee', 'cat')


def test_a_list_in_another_encoding(tmp_path):
    by_value(tmp_path / 'src')
    (tmp_path / 'src/classes.txt').write_text('ant\nbee\ncat\n', encoding='utf-16')
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert re.search(r'list .*classes\.txt is no UTF-8 text .*; save it as UTF-8', said)


def test_hidden_folders(tmp_path, capsys):
    by_class(tmp_path / 'src')
    picture(tmp_path / 'src/ant/.thumbnails/0.jpg', SHAPE)
    picture(tmp_path / 'src/ant/__MACOSX/0.jpg', SHAPE)
    assert '12 images' in prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')


def test_names_that_are_as_long_as_can_be(tmp_path, capsys):
    by_class(tmp_path / 'src')
    name = '蚂' * 83  # of 3 bytes each: with suffix 253 of the 255 that a name may have
    for suffix in ('.jpg', '.png'):
        (tmp_path / f'src/ant/0{suffix}').rename(tmp_path / f'src/ant/{name}{suffix}')
    prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    assert (tmp_path / f'out/masks/ant/{name}.png').is_file()


def test_names_that_are_no_utf8(tmp_path):
    by_class(tmp_path / 'src')
    for suffix in ('.jpg', '.png'):
        name = os.fsdecode(b'caf\xe9')
        (tmp_path / f'src/ant/0{suffix}').rename(tmp_path / f'src/ant/{name}{suffix}')
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert "image name 'ant/caf\\udce9.jpg' is no UTF-8" in said and 'rename it' in said
    assert not (tmp_path / 'out').exists()


def test_images_of_coco_that_differ_by_their_suffix(tmp_path):
    """They would have one mask."""
    content = by_coco(tmp_path / 'src')
    content['images'][1]['file_name'] = '0.png'
    (tmp_path / 'src/images/1.jpg').rename(tmp_path / 'src/images/0.png')
    (tmp_path / 'src/annotations.json').write_text(json.dumps(content))
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert '2 images differ by their suffix alone: 0.jpg, 0.png; rename all but one' in said
    assert not (tmp_path / 'out').exists()


def test_output_behind_a_link(tmp_path, capsys):
    """Data folders are links to larger disks: '..' is then not where the path says."""
    by_class(tmp_path / 'project/photos')
    (tmp_path / 'a/large/disk').mkdir(parents=True)
    (tmp_path / 'project/data').symlink_to(tmp_path / 'a/large/disk')
    out = tmp_path / 'project/data/mine'
    prepare(capsys, 'folder', tmp_path / 'project/photos', out)
    data = episodes(out, 'all', 'novel', num_episodes=2)
    assert data[0]['data_samples'].ori_shape == SHAPE


def test_photos_behind_a_link(tmp_path, capsys):
    by_class(tmp_path / 'a/large/disk/photos')
    (tmp_path / 'project').mkdir()
    (tmp_path / 'project/photos').symlink_to(tmp_path / 'a/large/disk/photos')
    out = tmp_path / 'project/mine'
    prepare(capsys, 'folder', tmp_path / 'project/photos', out)
    assert len(PreparedDataset(str(out), 'all')) == 12
    (tmp_path / 'a').rename(tmp_path / 'b')
    with pytest.raises(FileNotFoundError, match='12 of 12 images not found in .*photos'):
        PreparedDataset(str(out), 'all').full_init()


def test_all_moved_together(tmp_path, capsys):
    by_class(tmp_path / 'here/photos')
    prepare(capsys, 'folder', tmp_path / 'here/photos', tmp_path / 'here/mine')
    (tmp_path / 'here').rename(tmp_path / 'there')
    assert len(PreparedDataset(str(tmp_path / 'there/mine'), 'all')) == 12


def test_a_compressed_code_that_is_damaged(tmp_path):
    content = by_coco(tmp_path / 'src')
    content['annotations'][3]['segmentation'] = dict(size=list(SHAPE), counts='garbage%%%')
    (tmp_path / 'src/annotations.json').write_text(json.dumps(content))
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert re.search('segmentation of annotation 3 is wrong: .*; download or export', said)


def test_no_annotations_at_all(tmp_path):
    content = by_coco(tmp_path / 'src')
    (tmp_path / 'src/annotations.json').write_text(json.dumps({**content, 'annotations': []}))
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert re.search(r'annotations\.json has no annotations; annotate some images and', said)
