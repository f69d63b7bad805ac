"""The sizes of PASCAL-5i as published: images that each fold trains and tests on.

``tests/data/voc_splits.json`` holds the two image lists of the field as bits over the sorted ids
of all 12,031 ``SegmentationClassAug`` masks: ``train_aug_fss`` is VOC 2012 ``train`` joined with
the ``train_noval`` list of SBD, ``val`` is VOC 2012 ``val``. The class areas are reference data.
"""

from __future__ import annotations

import base64
import hashlib
import json

import numpy as np
import pytest

from mmfss.datasets.class_index import ClassIndex
from mmfss.datasets.folds import PHOTO_MIN_AREA, get_split
from mmfss.datasets.preparation import voc
from mmfss.datasets.sampling import build_pool


@pytest.fixture(scope='module')
def areas(shared_dir) -> dict[str, dict[int, int]]:
    """Pixels of the classes 1..20 in every mask, images in ascending order."""
    file = shared_dir / 'parity/voc_class_area.json'
    if not file.is_file():
        pytest.skip(f'no class areas at {file}')
    content = json.loads(file.read_text(encoding='utf-8'))
    return {i: {int(c): n for c, n in content[i].items()} for i in sorted(content)}


@pytest.fixture(scope='module')
def stored(repo_root) -> dict[str, dict]:
    """``{list: {count, sha256, member}}``."""
    file = repo_root / 'tests/data/voc_splits.json'
    return json.loads(file.read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def lists(areas, stored) -> dict[str, list[str]]:
    """Image ids of the two lists, ascending."""
    ids = np.array(list(areas))
    bits = {
        name: np.frombuffer(base64.b64decode(entry['member']), np.uint8)
        for name, entry in stored.items()
    }
    return {
        name: ids[np.unpackbits(packed, count=len(ids)).astype(bool)].tolist()
        for name, packed in bits.items()
    }


def index_of(areas: dict[str, dict[int, int]], images: list[str]) -> ClassIndex:
    return ClassIndex({image: areas[image] for image in images})


@pytest.mark.parametrize(('name', 'count'), [('train_aug_fss', 5953), ('val', 1449)])
def test_lists_are_those_that_were_stored(lists, stored, name, count):
    text = '\n'.join(lists[name]) + '\n'
    assert len(lists[name]) == stored[name]['count'] == count
    assert hashlib.sha256(text.encode('ascii')).hexdigest() == stored[name]['sha256']


def test_no_image_is_in_both_lists(areas, lists):
    assert len(areas) == 12031
    assert set(lists['train_aug_fss']).isdisjoint(lists['val'])


def test_train_noval_of_sbd_is_the_published_file(lists):
    """Without the 330 images of VOC ``train`` that it lacks (all 311 of 2007 and these 19), the
    list is SBD's ``train_noval.txt``, whose sha256 torchvision publishes."""
    numbers = {
        2008: (1056, 1203, 2425, 2834, 5367, 5953, 6490, 6920, 7355),
        2009: (420, 774, 1964, 2543, 2599, 5194),
        2011: (216, 1855, 2717, 3151),
    }
    only_voc = {f'{year}_{number:06d}' for year, row in numbers.items() for number in row}
    train = lists['train_aug_fss']
    sbd = [i for i in train if not i.startswith('2007_') and i not in only_voc]
    text = '\n'.join(sbd) + '\n'
    assert len(sbd) == 5623 == len(train) - 330
    digest = hashlib.sha256(text.encode('ascii')).hexdigest()
    assert digest == '0b2068f7a359d2907431803e1cd63bf6162da37d7d503b589d3b08c6fd0c2432'


@pytest.mark.parametrize(('fold', 'count'), list(enumerate((4208, 3726, 2752, 4510))))
def test_training_images_of_a_fold(areas, lists, fold, count):
    """A base class of at least 2048 pixels, and not a pixel of a novel one."""
    split = get_split('pascal-5i', fold)
    index = index_of(areas, lists['train_aug_fss'])
    pool = build_pool(index, split.base, PHOTO_MIN_AREA, split.novel)
    assert len(pool.images) == count


@pytest.mark.parametrize(('fold', 'count'), list(enumerate((364, 445, 592, 336))))
def test_test_images_of_a_fold(areas, lists, fold, count):
    """A novel class of at least 2048 pixels; other classes may be there too."""
    split = get_split('pascal-5i', fold)
    pool = build_pool(index_of(areas, lists['val']), split.novel, PHOTO_MIN_AREA)
    assert PHOTO_MIN_AREA == 2048
    assert len(pool.images) == count


@pytest.mark.parametrize(('fold', 'count'), list(enumerate((3167, 2951, 1793, 3396))))
def test_training_images_without_validation_classes(areas, lists, fold, count):
    """By a loop: no pixel of a novel or validation class, and one of the other base classes."""
    split = get_split('pascal-5i', fold)
    held_out = {*split.novel, *split.validation}
    expected = [
        image
        for image in lists['train_aug_fss']
        if held_out.isdisjoint(areas[image]) and max(areas[image].values()) >= PHOTO_MIN_AREA
    ]
    index = index_of(areas, lists['train_aug_fss'])
    classes, excluded = split.ids('base_train'), split.held_out('base_train')
    pool = build_pool(index, classes, PHOTO_MIN_AREA, excluded)
    assert list(pool.images) == expected and len(expected) == count


def test_prepared_lists_are_compared_with_the_published_ones(lists):
    """tools/prepare.py voc says so, in any order of the ids."""
    for name, ids in (('train', lists['train_aug_fss']), ('val', lists['val'])):
        assert voc.against_published(name, ids[::-1]) == 'the published list'
        warning = voc.against_published(name, ids[1:])
        assert f'WARNING: not the {len(ids)} images' in warning
