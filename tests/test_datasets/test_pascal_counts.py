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
from mmfss.datasets.published_episodes import read_episodes
from mmfss.datasets.sampling import SAMPLERS, build_pool


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


# ---------------------------------------------------------------------------- FS-SAM2's protocol
@pytest.fixture(scope='module')
def published(shared_dir):
    """FS-SAM2's fixed test episodes."""
    file = shared_dir / 'parity/fs_sam2/episodes.npz'
    if not file.is_file():
        pytest.skip(f'no episodes at {file}')
    return file


@pytest.mark.parametrize('fold', range(4))
def test_lists_of_fs_sam2_name_by_name(areas, lists, published, fold):
    """Its test walks its list, so that the episodes tell it; its training list is that of the rule
    by a loop, in the order of VOC's lists."""
    split = get_split('pascal-5i', fold)
    pool = build_pool(index_of(areas, lists['val']), split.novel, PHOTO_MIN_AREA)
    queries = np.load(published)[f'pascal.fold{fold}.1shot.query'].tolist()
    count = len(set(queries))
    assert queries == [queries[i % count] for i in range(1000)]
    assert [lists['val'][i] for i in queries[:count]] == list(pool.images)
    train = build_pool(
        index_of(areas, lists['train_aug_fss']), split.base, PHOTO_MIN_AREA, split.novel
    )
    by_loop = [
        image
        for image in lists['train_aug_fss']
        if not any(c in areas[image] for c in split.novel)
        and any(areas[image].get(c, 0) >= 2048 for c in split.base)
    ]
    assert list(train.images) == by_loop


@pytest.mark.parametrize('shots', [1, 5])
@pytest.mark.parametrize(('fold', 'small'), list(enumerate((7, 13, 7, 23))))
def test_episodes_of_fs_sam2(areas, lists, published, fold, small, shots):
    """All 1000, from the rule and from the file; some queries show little of their class."""
    split = get_split('pascal-5i', fold)
    index = index_of(areas, lists['val'])
    draw = SAMPLERS['fs_sam2'](build_pool(index, split.novel, PHOTO_MIN_AREA), shots, 42, False)
    drawn = [draw(i) for i in range(1000)]
    assert drawn == read_episodes(published, split, shots, index)
    assert sum(areas[one.query][one.class_id] < PHOTO_MIN_AREA for one in drawn) == small


@pytest.mark.parametrize('fold', range(4))
def test_classes_of_fs_sam2s_episodes_on_coco(published, fold):
    split = get_split('coco-20i', fold)
    found = np.load(published)[f'coco.fold{fold}.5shot.class'].tolist()
    one_each = ClassIndex({f'{c}_{i}': {c: 4096} for c in split.novel for i in range(2)})
    draw = SAMPLERS['fs_sam2_by_class'](build_pool(one_each, split.novel, 2048), 1, 42, False)
    assert [draw(i).class_id for i in range(1000)] == found


def test_images_of_fs_sam2s_episodes_on_coco(published):
    """Class 13 of fold 0 (parking meter), whose list has 172 images in an order that we do not
    have: under that length each place in it is always the same image."""
    content = {k: v for k, v in np.load(published).items() if k.startswith('coco.fold0.5shot')}
    split = get_split('coco-20i', 0)
    images = {c: [f'{c}_{i}' for i in range(172 if c == 13 else 6)] for c in split.novel}
    index = ClassIndex({image: {c: 4096} for c, some in images.items() for image in some})
    draw = SAMPLERS['fs_sam2_by_class'](build_pool(index, split.novel, 2048), 5, 42, False)
    image_at: dict[str, int] = {}
    rows = np.flatnonzero(content['coco.fold0.5shot.class'] == 13)
    for i in rows.tolist():
        mine, support = draw(i), content['coco.fold0.5shot.support'][i]
        theirs = [content['coco.fold0.5shot.query'][i], *support]
        for place, image in zip((mine.query, *mine.supports), theirs):
            assert image_at.setdefault(place, int(image)) == image
    assert len(rows) == 49 and len(image_at) == len(set(image_at.values())) == 140


@pytest.mark.parametrize(('fold', 'kept'), list(enumerate((4760, 4588, 4097, 5108))))
def test_training_images_where_novel_ones_are_kept(areas, lists, fold, kept):
    """HSNet's and Matcher's convention, on PASCAL-5i, by a loop too."""
    split = get_split('pascal-5i', fold)
    pool = build_pool(index_of(areas, lists['train_aug_fss']), split.base, PHOTO_MIN_AREA)
    by_loop = [
        image
        for image in lists['train_aug_fss']
        if max(areas[image].get(c, 0) for c in split.base) >= 2048
    ]
    assert list(pool.images) == by_loop and len(by_loop) == kept
