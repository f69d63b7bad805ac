"""Names of splits are parts and never classes; links to folders are followed."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from own_folders import SHAPE, blob, by_class
from prepared_checks import fails, picture, prepare, read, save

from mmfss.apis.images import files_below
from mmfss.datasets.folds import get_benchmark
from mmfss.datasets.preparation.folder_layouts import find_source
from mmfss.datasets.preparation.folder_layouts.tree import split_of


def lists(out) -> dict[str, list[str]]:
    return {p.stem: p.read_text().splitlines() for p in (out / 'splits').iterdir()}


@pytest.mark.parametrize(
    'name, split',
    [
        *((name, 'train') for name in ('train', 'Training', 'TRAIN', 'train2017', 'train_set')),
        *((name, 'val') for name in ('val', 'valid', 'Validation', 'dev', 'val-2014')),
        *((name, 'test') for name in ('test', 'Testing', 'test-dev', 'test_set', 'holdout')),
        *((name, 'train') for name in ('TrainDataset', 'training-data', 'Train Set')),
        *((name, 'train') for name in ('Entrenamiento', 'Entraînement', 'Trainingsdaten')),
        *((name, 'val') for name in ('Validación', 'Validierung')),
        *((name, 'test') for name in ('prueba', 'Testdaten')),
        *((name, 'trainval') for name in ('trainval', 'train-val', 'train_val')),
        *(
            (name, '')
            for name in (
                'trainer',
                'test1',
                'validity',
                'train cat',
                'cat',
                'contest',
                'TestTube',
                'data',
                'images',
            )
        ),
    ],
)
def test_names_of_splits(name, split):
    assert split_of(name) == split


SPLITS = [('train', 'val'), ('Train', 'Valid'), ('training', 'TEST'), ('train2017', 'val2017')]
FORMS = [
    'images/{s}/{i}.jpg masks/{s}/{i}.png',
    '{s}/images/{i}.jpg {s}/masks/{i}.png',
    'img_dir/{s}/{i}.jpg ann_dir/{s}/{i}.png',
    '{s}/{i}.jpg {s}/{i}_mask.png',
    '{s}/{i}.png {s}/{i}_mask.png',
    '{s}/{i}.jpg {s}/{i}.png',
    '{s}_images/{i}.jpg {s}_masks/{i}.png',
    '{s}/a/images/{s}{i}.jpg {s}/a/masks/{s}{i}.png',
    'images/{s}/{s}{i}.jpg masks/{s}{i}.png',
    'images/{s}{i}.jpg masks/{s}/{s}{i}.png',
    'images/{s}/{i}_rgb.jpg labels/{s}/{i}_label.png',
    'Images/{s}/{i}.jpg Images/{s}/{i}_mask.png',
    '{s}/images/{i}.jpg {s}/images/{i}.png',
    'CXR_png/{s}/{i}.jpg masks/{s}/{i}_mask.png',
    '{s}/scans/{i}.jpg {s}/Ground_Truth/{i}.png',
    '{s}Dataset/images/{i}.jpg {s}Dataset/masks/{i}.png',
]


CASES = [
    *((form, SPLITS[0], 255) for form in FORMS),
    *((form, SPLITS[i % 4], 1) for i, form in enumerate(FORMS)),
]


@pytest.mark.parametrize('form, splits, inside', CASES)
def test_masks_of_one_class_in_parts(tmp_path, capsys, form, splits, inside):
    """No file names the class; the parts become the splits."""
    src, out, wanted = tmp_path / 'src', tmp_path / 'mine', {}
    for s, number in zip(splits, (3, 2)):
        for i in range(number):
            image, mask = form.format(s=s, i=i).split()
            picture(src / image, SHAPE, i)
            save(src / mask, blob(10 * number + i, inside))
            wanted[image] = split_of(s), blob(10 * number + i, 1)
    said = prepare(capsys, 'folder', src, out)
    classes = get_benchmark(str(out)).classes
    one_folder = '/a/' in form  # a folder of a class
    assert classes == (('a',) if one_folder else ('object',)), said
    assert one_folder or "nothing names the class, so it is called 'object': write" in said
    root = (
        os.path.commonpath(wanted)
        if form.startswith(('images', 'Images', 'img_dir', 'CXR'))
        else ''
    )
    root = root.split('/')[0]
    names = {image.removeprefix(f'{root}/') if root else image for image in wanted}
    assert {k: len(v) for k, v in lists(out).items()} == {'all': 5, split_of(splits[0]): 3,
                                                          split_of(splits[1]): 2}  # fmt: skip
    assert set(lists(out)['all']) == names
    for image, (split, mask) in wanted.items():
        name = image.removeprefix(f'{root}/') if root else image
        assert name in lists(out)[split]
        np.testing.assert_array_equal(read(out / 'masks' / f'{name.rpartition(".")[0]}.png'), mask)


@pytest.mark.parametrize(
    'form',
    [
        '{s}/{c}/{i}.jpg {s}/{c}/{i}.png',
        '{c}/{s}/{i}.jpg {c}/{s}/{i}.png',
        'images/{s}/{c}/{i}.jpg masks/{s}/{c}/{i}.png',
        'images/{c}/{s}/{i}.jpg masks/{c}/{s}/{i}.png',
        '{s}/{c}/images/{i}.jpg {s}/{c}/masks/{i}.png',
        '{c}/images/{s}/{i}.jpg {c}/masks/{s}/{i}.png',
        '{s}/{c}/{i}.jpg {s}/{c}/{i}_mask.png',
    ],
)
def test_classes_in_parts(tmp_path, capsys, form):
    src, out = tmp_path / 'src', tmp_path / 'mine'
    for s in ('Train', 'valid', 'test'):
        for c in ('cat', 'dog'):
            for i in range(2):
                image, mask = form.format(s=s, c=c, i=i).split()
                picture(src / image, SHAPE, i)
                save(src / mask, blob(i))
    said = prepare(capsys, 'folder', src, out)
    assert get_benchmark(str(out)).classes == ('cat', 'dog')
    assert 'splits: all 12, train 4, val 4, test 4' in said and 'cat 6, dog 6' in said
    assert all('valid' in name for name in lists(out)['val'])
    said = fails('folder', src, tmp_path / 'other', '--test-fraction', '0.5')
    assert 'the folder has the parts train, val, test, which become the splits; leave out' in said


def test_trainval_is_to_train(tmp_path, capsys):
    src = tmp_path / 'src'
    for s in ('trainval', 'test'):
        by_class(src / s, number=2)
    assert 'splits: all 12, train 6, test 6' in prepare(capsys, 'folder', src, tmp_path / 'a')
    by_class(src / 'train', number=1)
    by_class(src / 'val', number=1)
    said = prepare(capsys, 'folder', src, tmp_path / 'b')
    assert 'splits: all 18, train 3, val 3, trainval 6, test 6' in said


def test_one_part_is_no_split(tmp_path, capsys):
    src = tmp_path / 'src'
    by_class(src / 'train')
    assert 'splits: all 12\n' in prepare(capsys, 'folder', src, tmp_path / 'a')
    said = prepare(capsys, 'folder', src, tmp_path / 'b', '--test-fraction', '0.25')
    assert 'splits: all 12, train 9, test 3' in said


def test_a_class_of_the_name_of_a_split(tmp_path):
    """A train is a vehicle, too; nobody can tell."""
    src = tmp_path / 'src'
    for name in ('bus', 'car', 'train'):
        picture(src / name / '0.jpg', SHAPE)
        save(src / name / '0.png', blob(0))
    said = fails('folder', src, tmp_path / 'out')
    assert 'train are names of splits, which are never classes, and stand beside bus, car' in said
    assert 'rename a folder that is a class (e.g. train to train_object)' in said


@pytest.mark.parametrize('form', ['beside', 'inner', 'outer'])
@pytest.mark.parametrize('names', [('train_1', 'train_2'), ('fold0', 'Fold 1')])
def test_numbered_parts_are_no_classes(tmp_path, form, names):
    src = tmp_path / 'src'
    by_class(src, form)
    for folder in (src / 'images', src / 'masks') if form == 'outer' else (src,):
        for path, name in zip(sorted(folder.iterdir()), names):
            path.rename(folder / name)
    said = fails('folder', src, tmp_path / 'out')
    assert f'{names[0]}' in said and 'would be classes, and are names of numbered parts' in said


def test_a_folder_around_all_classes_is_named(tmp_path, capsys):
    by_class(tmp_path / 'src/mine')
    said = prepare(capsys, 'folder', tmp_path / 'src', tmp_path / 'out')
    assert 'folders in that of a class are no classes: mine/ant, mine/bee, mine/cat' in said
    assert f'if they are, give {tmp_path}/src/mine' in said
    by_class(tmp_path / 'src/mine', 'inner')
    assert 'are no classes' not in prepare(capsys, 'folder', tmp_path / 'src/mine', tmp_path / 'b')


def test_folders_of_images_and_masks_in_another_language(tmp_path, capsys):
    src = tmp_path / 'src'
    for i in range(3):
        picture(src / f'Bilder/{i}.jpg', SHAPE, i)
        save(src / f'Masken/{i}.png', blob(i))
    assert 'images of each class (from 256 pixels on): object 3' in prepare(
        capsys, 'folder', src, tmp_path / 'out'
    )


def test_unmarked_photos_beside_classes(tmp_path, capsys):
    """What is to be labelled, in a folder of its own."""
    src = tmp_path / 'src'
    by_class(src)
    picture(src / 'test/new.jpg', SHAPE)
    said = prepare(capsys, 'folder', src, tmp_path / 'out')
    assert 'ant 4, bee 4, cat 4' in said and '1 other files left out: test/new.jpg' in said


def test_masks_may_be_a_class(tmp_path, capsys):
    """Of what people wear."""
    src = tmp_path / 'src'
    for name in ('gloves', 'helmet', 'masks'):
        for i in range(2):
            picture(src / name / f'{i}.jpg', SHAPE, i)
            save(src / name / f'{i}.png', blob(i))
    prepare(capsys, 'folder', src, tmp_path / 'out')
    assert get_benchmark(str(tmp_path / 'out')).classes == ('gloves', 'helmet', 'masks')


def test_a_part_without_masks_is_left_out(tmp_path, capsys):
    """Photos to predict beside those to train with."""
    src, out = tmp_path / 'src', tmp_path / 'mine'
    for i in range(3):
        picture(src / f'train/images/{i}.jpg', SHAPE, i)
        save(src / f'train/masks/{i}.png', blob(i))
        picture(src / f'test/images/{i}.jpg', SHAPE, i)
    said = prepare(capsys, 'folder', src, out)
    assert 'mine: 3 images' in said and '3  image of a part without any mask, left out' in said
    assert (out / 'left_out.csv').read_text().count('test/images/') == 3


# ------------------------------------------------------------------------------------ links
def test_links_to_folders_are_followed_by_all_tools(tmp_path, capsys):
    by_class(tmp_path / 'disk')
    src = tmp_path / 'src'
    src.mkdir()
    for name in ('ant', 'bee'):
        (src / name).symlink_to(tmp_path / 'disk' / name)
    (src / 'cat').mkdir()
    (src / 'cat/inner').symlink_to(tmp_path / 'disk/cat')
    said = prepare(capsys, 'folder', src, tmp_path / 'out')
    assert 'ant 4, bee 4, cat 4' in said
    supports = find_source(src, prompts=True)
    assert [len(s.masks) for s in supports.samples] == [1] * 12
    assert len([f for f in files_below(src) if f.suffix == '.jpg']) == 12


def test_links_that_lead_back(tmp_path, capsys):
    src = tmp_path / 'src'
    by_class(src)
    (src / 'ant/up').symlink_to(src)
    (src / 'bee/self').symlink_to(src / 'bee')
    (src / 'cat/loop').symlink_to(src / 'cat/loop')  # to itself: to nothing
    (tmp_path / 'b').symlink_to(tmp_path)
    said = prepare(capsys, 'folder', src, tmp_path / 'out')
    assert 'ant 4, bee 4, cat 4' in said and '1 other files left out: cat/loop' in said
    assert len([f for f in files_below(src) if f.suffix == '.jpg']) == 12
    (src / 'up').symlink_to(tmp_path)  # above the folder itself
    assert len([f for f in files_below(src) if f.suffix == '.jpg']) == 12


def test_links_to_nothing_are_named(tmp_path):
    src = tmp_path / 'src'
    by_class(src)
    (src / 'ant/0.jpg').unlink()
    (src / 'ant/0.jpg').symlink_to(tmp_path / 'gone.jpg')
    assert re.search(r'image not found: .*ant/0\.jpg', fails('folder', src, tmp_path / 'out'))
    (src / 'ant/0.jpg').unlink()
    picture(src / 'ant/0.jpg', SHAPE)
    (src / 'bee/1.png').unlink()
    (src / 'bee/1.png').symlink_to(tmp_path / 'gone.png')
    assert re.search(r'mask file not found: .*bee/1\.png', fails('folder', src, tmp_path / 'out'))
