"""What preparation, training and test say of classes that are scarce or occur together."""

from __future__ import annotations

import numpy as np
import pytest
from coco_cases import coco_folder, write
from prepared_checks import episodes, fails, picture, prepare, save

from mmfss.datasets.account import FILE, Account
from mmfss.datasets.segmentation import PreparedDataset

SPOTS = [(4, 4), (4, 36), (36, 4), (36, 36)]


def values(src, shown, names=('root', 'stem', 'leaf', 'blossom')):
    """Photos that show classes together: ``shown`` has the values of each."""
    for number, classes in enumerate(shown):
        mask = np.zeros((64, 64), np.uint8)
        for value, (y, x) in zip(classes, SPOTS):
            mask[y : y + 20, x : x + 20] = value
        picture(src / f'images/{number:02}.jpg', (64, 64), number)
        save(src / f'masks/{number:02}.png', mask)
    (src / 'classes.txt').write_text('\n'.join(names))


def test_classes_that_always_occur_together(tmp_path, capsys):
    values(tmp_path / 'all', [(1, 2, 3, 4)] * 8)
    said = prepare(capsys, 'folder', tmp_path / 'all', tmp_path / 'a', '--folds', '4')
    assert 'warning: no training image in fold 0, 1, 2, 3: all images of its base classes' in said
    assert 'exclude_novel_images=False' in said and 'fewer --folds' in said
    assert "no splits 'train' and 'test'" in said and '--test-fraction' in said
    values(tmp_path / 'some', [(1, 2), (1, 2), (3,), (3,), (4,), (4,), (1, 2), (3,)])
    options = ['--folds', '4', '--test-fraction', '0.4']
    said = prepare(capsys, 'folder', tmp_path / 'some', tmp_path / 'b', *options)
    assert 'no training image' not in said and 'no splits' not in said
    said = prepare(capsys, 'folder', tmp_path / 'some', tmp_path / 'c')
    assert 'one fold: all classes are novel, to test a trained model; to train, add --folds' in said
    with pytest.raises(
        ValueError, match=r"must be one of \['all'\], .*; to train, prepare it with"
    ):
        PreparedDataset(str(tmp_path / 'c'), 'train')


def test_a_single_class(tmp_path, capsys):
    values(tmp_path / 'src', [(1,)] * 4, ['erosion'])
    said = prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    assert 'to train, add further classes: training needs other classes than those' in said


def test_classes_that_are_dropped_are_named(tmp_path, capsys):
    """Four photos of root are there; five shots need six."""
    values(tmp_path / 'src', [(1,)] * 4 + [(2,)] * 8 + [(3,)] * 2, ['root', 'stem', 'leaf'])
    prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out', '--folds', '3')
    out = tmp_path / 'out'
    data = episodes(out, 'all', 'novel', 1, num_episodes=2, scarce_classes='drop')
    assert len(data) == 2
    for fold, shots in ((0, 5), (2, 2)):
        with pytest.raises(ValueError) as refused:
            episodes_of(out, fold, shots, 'drop')
        name, number = (('root', 4), None, ('leaf', 2))[fold]
        assert f"scarce_classes='drop' leaves none of the novel classes: {shots}-shot" in str(
            refused.value
        )
        assert f'need {shots + 1} images of a class' in str(refused.value)
        assert f'there are of {name} {number}. Add images' in str(refused.value)
    with pytest.raises(ValueError, match=r'too few of root: 4\. Add images, lower shots'):
        episodes_of(out, 0, 5, 'error')


def episodes_of(out, fold, shots, scarce):
    from mmfss.datasets import EpisodicDataset

    pipeline = [dict(type='LoadImage'), dict(type='LoadLabel'), dict(type='BinarizeLabel')]
    return EpisodicDataset(
        dict(type='PreparedDataset', data_root=str(out), split='all'),
        str(out),
        fold,
        'novel',
        shots,
        pipeline,
        pipeline,
        scarce_classes=scarce,
        class_index_file=None,
    )


def test_training_says_what_preparation_left_out(tmp_path, capsys):
    """Of 'cup' one photo has an outline, and the others a box."""
    pytest.importorskip('pycocotools')
    content, _ = coco_folder(tmp_path / 'src', number=9)
    content['categories'].append(dict(id=2, name='cup'))
    for annotation in content['annotations'][5:]:
        annotation['category_id'] = 2
        if annotation['id'] > 5:
            annotation['segmentation'] = []
    write(tmp_path / 'src', content)
    out = tmp_path / 'out'
    said = prepare(capsys, 'folder', tmp_path / 'src', out, '--folds', '2')
    rows = [line.split() for line in said.splitlines() if 'cup 3' in line or 'cup 1' in line][-2:]
    assert ' '.join(rows[0]).startswith(
        '3 box without an outline: its pixels are unknown (255) cup 3 annotation 6 in 6.png'
    )
    assert ' '.join(rows[1]).startswith('1 class with fewer than two images: no episode is of it')
    for scarce, begin in (('error', 'too few of cup: 1'), ('drop', "'drop' leaves none")):
        with pytest.raises(ValueError) as refused:
            episodes_of(out, 1, 1, scarce)
        assert begin in str(refused.value)
        assert (
            'The preparation left out: 3 x box without an outline: its pixels are unknown (255) '
            '(cup 3): annotation 6 in 6.png'
        ) in str(refused.value)
    assert len(episodes_of(out, 0, 1, 'error')) == 5


def test_the_account_is_of_the_last_run(tmp_path, capsys):
    """What has been mended is not said again; what is refused is written, too."""
    content, _ = coco_folder(tmp_path / 'src')
    content['annotations'][0]['iscrowd'] = 1
    write(tmp_path / 'src', content)
    out = tmp_path / 'out'
    prepare(capsys, 'folder', tmp_path / 'src', out)
    assert Account.read(out).count() == 1
    fails('folder', tmp_path / 'src', out, '--min-area', '5000')
    assert Account.read(out).count() == 5
    content['annotations'][0]['iscrowd'] = 0
    write(tmp_path / 'src', content)
    prepare(capsys, 'folder', tmp_path / 'src', out)
    assert not (out / FILE).exists()


def test_masks_of_nothing_but_ignored_pixels(tmp_path):
    values(tmp_path / 'src', [(255,)] * 3 + [(1,)], ['root'])
    said = fails('folder', tmp_path / 'src', tmp_path / 'out')
    assert '3 x mask with no value but 255, which is ignored in masks of class values' in said
    assert '00.png' in said
