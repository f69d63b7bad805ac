"""A user's own folder in its three layouts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from own_folders import NAMES, SHAPE, blob, by_class, by_coco, by_value
from prepared_checks import episodes, fails, files, picture, prepare, read, save

from mmfss.datasets.folds import get_benchmark
from mmfss.datasets.segmentation import PreparedDataset


@pytest.mark.parametrize('form', ['beside', 'inner', 'outer'])
def test_a_folder_per_class(tmp_path, capsys, form):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    masks = by_class(src, form)
    said = prepare(capsys, 'folder', src, out)
    assert f'mine: 12 images (layout classes), label maps in {out}: 12 made, 0 complete' in said
    assert 'splits: all 12' in said and 'ant 4, bee 4, cat 4' in said
    assert 'fold 0: 12 test images' in said
    benchmark = get_benchmark(str(out))
    assert (benchmark.name, benchmark.classes, benchmark.min_area) == ('mine', NAMES, 256)
    assert (benchmark.split(0).novel, benchmark.split(0).base) == ((1, 2, 3), ())
    dataset = PreparedDataset(str(out), 'all')
    assert len(dataset) == len(masks)
    for image, mask in masks.items():
        np.testing.assert_array_equal(read(out / f'masks/{image[:-4]}.png'), mask)
    made = files(out)
    assert '0 made, 12 complete already' in prepare(capsys, 'folder', src, out)
    after = files(out)
    assert {k: v for k, v in after.items() if 'masks' in k} == {
        k: v for k, v in made.items() if 'masks' in k
    }
    assert {k: v[1] for k, v in after.items()} == {k: v[1] for k, v in made.items()}


@pytest.mark.parametrize('suffix', ['.jp2', '.avif'])
def test_photos_of_other_formats(tmp_path, capsys, suffix):
    masks = by_class(tmp_path / 'src')
    for photo in [*(tmp_path / 'src').rglob('*.jpg')]:
        photo.unlink()
        picture(photo.with_suffix(suffix), SHAPE)
    assert 'mine: 12 images' in prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'mine')
    for image, mask in masks.items():
        np.testing.assert_array_equal(read(tmp_path / f'mine/masks/{image[:-4]}.png'), mask)
    data = episodes(tmp_path / 'mine', 'all', 'novel', num_episodes=1)
    assert data[0]['inputs']['query'].shape == (3, *SHAPE)


def test_it_is_an_episodic_dataset(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    by_class(src)
    prepare(capsys, 'folder', src, out, '--folds', '3', '--test-fraction', '0.5')
    data = episodes(out, 'all', 'novel', fold=1, num_episodes=4)
    assert len(data) == 4
    split = get_benchmark(str(out)).split(1)
    assert (split.novel_names, split.base_names) == (('bee',), ('ant', 'cat'))


def test_masks_of_0_and_1_with_255_ignored(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    by_class(src, inside=1)
    marked = blob(10, 1)
    marked[0] = 255
    save(src / 'ant/0.png', marked)
    prepare(capsys, 'folder', src, out)
    np.testing.assert_array_equal(read(out / 'masks/ant/0.png'), marked)
    np.testing.assert_array_equal(read(out / 'masks/cat/2.png'), blob(32, 3))
    save(src / 'bee/0.png', blob(0, 255))
    said = fails('folder', src, out)
    assert 'the object is 1 in some masks, but 1 masks have no 1: ' in said and 'bee/0.png' in said
    assert '11 masks have a 1' in fails('folder', src, out, '--object-value', '255')


def test_masks_of_class_values(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    by_value(src)
    picture(src / 'images/deep/er.png', SHAPE, 99)
    save(src / 'masks/deep/er.png', np.zeros(SHAPE, np.uint8))
    (src / 'images/notes.txt').write_text('')
    said = prepare(capsys, 'folder', src, out, '--name', 'insects')
    assert 'insects: 9 images (layout values), label maps in' in said
    assert 'ant 3, bee 3, cat 2' in said and '1 images show no class' in said
    assert 'warning' not in said
    said = prepare(capsys, 'folder', src, out, '--name', 'insects', '--test-fraction', '0.5')
    assert "warning: 1 classes have no two images in 'test', so no episode there: cat; add" in said
    assert '1 other files left out: images/notes.txt' in said
    for name in [*range(8), 'deep/er']:
        np.testing.assert_array_equal(
            read(out / f'masks/{name}.png'), read(src / f'masks/{name}.png')
        )
    assert get_benchmark(str(out)).classes == NAMES


@pytest.mark.parametrize('overlap', [True, False])
def test_coco_annotations(tmp_path, capsys, overlap):
    pytest.importorskip('pycocotools')
    src, out = tmp_path / 'src', tmp_path / 'mine'
    by_coco(src, overlap)
    picture(src / 'images/new.jpg', SHAPE)
    said = prepare(capsys, 'folder', src, out)
    assert '1 categories without annotations left out: x' in said
    assert '1  image that no annotation file names, left out' in said
    assert 'images/new.jpg' in (out / 'left_out.csv').read_text()
    assert get_benchmark(str(out)).classes == NAMES
    first, second = np.zeros((2, *SHAPE), np.uint8)
    first[5:25, :20] = 1
    left = 10 if overlap else 20
    second[5:30, left : left + 20] = 1
    rows = [PreparedDataset(str(out), 'all').get_data_info(i) for i in range(6)]
    if overlap:
        assert '6 images (layout coco), class masks in' in said and '12 made' in said
        assert [list(row['class_mask_paths']) for row in rows] == [[1, 2], [1, 3]] * 3
        np.testing.assert_array_equal(read(rows[1]['class_mask_paths'][1]), first)
        np.testing.assert_array_equal(read(rows[1]['class_mask_paths'][3]), second)
    else:
        assert 'label maps in' in said
        np.testing.assert_array_equal(read(rows[0]['seg_map_path']), first + 2 * second)


def test_coco_crowds_are_ignored_where_it_is_said(tmp_path, capsys):
    pytest.importorskip('pycocotools')
    src, out = tmp_path / 'src', tmp_path / 'mine'
    content = by_coco(src)
    crowd = dict(
        content['annotations'][0], id=99, iscrowd=1, segmentation=[[0, 0, 50, 0, 50, 9, 0, 9]]
    )
    alone = dict(crowd, id=98, category_id=21)
    content['annotations'] += [crowd, alone]
    (src / 'annotations.json').write_text(json.dumps(content))
    prepare(capsys, 'folder', src, out, '--crowd', 'ignored')
    expected = np.zeros(SHAPE, np.uint8)
    expected[:9] = 255
    expected[5:25, :20] = 1
    np.testing.assert_array_equal(read(out / 'masks/1/0.png'), expected)
    assert not (out / 'masks/3/0.png').exists()  # nothing but a crowd of it


def test_more_classes_than_label_maps_hold(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    for c in range(256):
        for i in range(2):
            picture(src / f'c{c:03}/{i}.jpg', (20, 20), c)
            save(src / f'c{c:03}/{i}.png', np.full((20, 20), 255, np.uint8))
    said = prepare(capsys, 'folder', src, out, '--min-area', '9')
    assert 'mine: 512 images (layout classes), class masks in' in said
    rows = PreparedDataset(str(out), 'all').get_data_info(511)
    assert list(rows['class_mask_paths']) == [256]
    assert read(out / 'masks/256/c255/1.png').tolist() == [[1] * 20] * 20


def test_splits(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    by_class(src, number=10)
    arguments = ['folder', src, out, '--test-fraction', '0.3', '--seed', '5']
    assert 'splits: all 30, train 21, test 9' in prepare(capsys, *arguments)
    lists = {n: (out / f'splits/{n}.txt').read_text().split() for n in ('all', 'train', 'test')}
    assert sorted(lists['train'] + lists['test']) == lists['all']
    for name in NAMES:
        assert sum(image.startswith(name) for image in lists['test']) == 3
    prepare(capsys, *arguments)
    assert (out / 'splits/test.txt').read_text().split() == lists['test']
    prepare(capsys, *arguments[:-1], '6')
    assert (out / 'splits/test.txt').read_text().split() != lists['test']
    prepare(capsys, 'folder', src, out)
    assert [p.name for p in (out / 'splits').iterdir()] == ['all.txt']


def test_what_changed_is_made_again(tmp_path, capsys):
    """A mask drawn again, an image taken away: as if made from the start."""
    src, out = tmp_path / 'src', tmp_path / 'mine'
    by_class(src)
    prepare(capsys, 'folder', src, out)
    save(src / 'ant/0.png', blob(99))
    (src / 'cat/3.jpg').unlink()
    (src / 'cat/3.png').unlink()
    (out / 'masks/.0.png.x.part').write_bytes(b'half')
    half = out / 'masks/bee/0.png'
    half.write_bytes(half.read_bytes()[:40])
    assert '2 made, 9 complete already' in prepare(capsys, 'folder', src, out)
    prepare(capsys, 'folder', src, tmp_path / 'fresh', '--name', 'mine')
    again, fresh = files(out), files(tmp_path / 'fresh')
    assert {k: v[1] for k, v in again.items()} == {k: v[1] for k, v in fresh.items()}
