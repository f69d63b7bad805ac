from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mmfss.datasets.class_index import ClassIndex
from mmfss.datasets.folds import get_split
from mmfss.datasets.sampling import (
    SAMPLERS,
    ImageListSampler,
    build_pool,
    check_pool,
    drop_scarce,
)


@pytest.fixture(scope='module')
def index():
    rng = np.random.default_rng(0)
    return ClassIndex(
        {
            f'im{i}': {int(c): int(rng.integers(1, 100)) for c in rng.integers(1, 9, 4)}
            for i in range(60)
        }
    )


@pytest.mark.parametrize('support_area', [10, 30, 60])
def test_minimum_areas_of_query_and_support(index, support_area):
    pool = build_pool(index, (2, 5, 8), 30, (1,), support_area)
    for c in (2, 5, 8):
        areas = {i: a.get(c, 0) for i, a in index.areas.items() if 1 not in a}
        assert pool.images_of[c] == tuple(i for i, n in areas.items() if n >= 30)
        assert pool.supports_of[c] == tuple(i for i, n in areas.items() if n >= support_area)
    for name, sampler in SAMPLERS.items():
        for i in range(60):
            episode = sampler(pool, 2, 0, False)(i)
            c, images = episode.class_id, episode.supports
            if name == 'fs_sam2':  # asked for any class that the image shows
                assert max(index.areas[episode.query].get(k, 0) for k in (2, 5, 8)) >= 30
            else:
                assert index.areas[episode.query][c] >= 30, name
            assert len({episode.query, *images}) == 3
            assert all(index.areas[image][c] >= support_area for image in images)


def test_pool_by_loop(index):
    pool = build_pool(index, (2, 5, 8), min_area=30, excluded=(1,))
    expected = []
    for image, areas in index.areas.items():
        found = [c for c in (2, 5, 8) if c in areas and areas[c] >= 30]
        if found and 1 not in areas:
            expected.append(image)
            assert pool.classes_of[image] == tuple(found)
    assert pool.images == tuple(expected) and len(expected) > 5
    assert {c: set(images) for c, images in pool.images_of.items()} == {
        c: {i for i in expected if c in pool.classes_of[i]} for c in (2, 5, 8)
    }


@pytest.mark.parametrize('shots', [1, 3])
@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize('sampler', sorted(SAMPLERS))
def test_episode_properties(index, sampler, shots, shuffle):
    pool = build_pool(index, (2, 5, 8), 30)
    draw = SAMPLERS[sampler](pool, shots, seed=3, shuffle=shuffle)
    for i in range(4 * len(pool.images)):
        episode = draw(i)
        assert episode.index == i and episode.class_id in pool.shown_in[episode.query]
        images = (episode.query, *episode.supports)
        assert len(set(images)) == shots + 1
        large = images if sampler != 'fs_sam2' else episode.supports  # its query may show a pixel
        assert all(index.areas[image][episode.class_id] >= 30 for image in large)


def test_every_pass_walks_all_images(index):
    pool = build_pool(index, range(1, 9), 1)
    n = len(pool.images)
    plain, mixed = (ImageListSampler(pool, 1, 0, shuffle) for shuffle in (False, True))
    for sweep in range(3):
        places = range(sweep * n, (sweep + 1) * n)
        assert [plain(i).query for i in places] == list(pool.images)
        assert sorted(mixed(i).query for i in places) == sorted(pool.images)
    orders = {tuple(mixed(i).query for i in range(s * n, s * n + n)) for s in range(3)}
    assert len(orders) == 3


@pytest.mark.parametrize('sampler', sorted(SAMPLERS))
def test_an_episode_does_not_depend_on_the_order_of_calls(index, sampler):
    pool, make = build_pool(index, range(1, 9), 1), SAMPLERS[sampler]
    forward = make(pool, 2, 7, True)
    expected = [forward(i) for i in range(200)]
    other = make(pool, 2, 7, True)
    order = np.random.default_rng(0).permutation(200)
    assert {int(i): other(int(i)) for i in order} == dict(enumerate(expected))
    assert [make(pool, 2, 8, True)(i) for i in range(200)] != expected


def test_uniform_class_draws_class_then_image():
    """Class 1 is in 30 images, class 2 in 3: each class is drawn half of the time."""
    areas = {f'im{i}': {1: 9, 2: 9} if i < 3 else {1: 9} for i in range(30)}
    draw = SAMPLERS['uniform_class'](build_pool(ClassIndex(areas), (1, 2, 3), 1), 1, 0, False)
    episodes = [draw(i) for i in range(6000)]
    for class_id, images in ((1, 30), (2, 3)):
        queries = Counter(e.query for e in episodes if e.class_id == class_id)
        n = sum(queries.values())
        assert abs(n - 3000) < 4 * np.sqrt(6000 / 4)
        assert len(queries) == images
        expected = n / images
        assert all(abs(count - expected) < 5 * np.sqrt(expected) for count in queries.values())


def test_balanced_gives_every_class_its_share(index):
    pool = build_pool(index, (2, 5, 8), 30)
    draw = SAMPLERS['balanced'](pool, 1, 4, False)
    episodes = [draw(i) for i in range(300)]
    for start in range(0, 300, 3):
        assert {e.class_id for e in episodes[start : start + 3]} == {2, 5, 8}
    for c in (2, 5, 8):
        queries = [e.query for e in episodes if e.class_id == c]
        n = len(pool.images_of[c])
        for start in range(0, len(queries) - n + 1, n):  # each pass has every image once
            assert sorted(queries[start : start + n]) == sorted(pool.images_of[c])
    orders = {tuple(e.class_id for e in episodes[i : i + 3]) for i in range(0, 300, 3)}
    assert len(orders) == 6


def test_global_random_state_is_neither_used_nor_changed(index):
    draw = ImageListSampler(build_pool(index, range(1, 9), 1), 1, 0, True)
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = draw(5)
    assert (np.random.get_state()[1] == before).all()
    np.random.seed(1)
    assert draw(5) == first


def test_classes_and_supports_are_uniform():
    index = ClassIndex({f'im{i}': {1: 9, 2: 9, 3: 9} for i in range(7)})
    draw = ImageListSampler(build_pool(index, (1, 2, 3), 1), 2, 0, False)
    episodes = [draw(i) for i in range(0, 21000, 7)]  # the query is im0
    classes = Counter(e.class_id for e in episodes)
    supports = Counter(s for e in episodes for s in e.supports)
    assert set(supports) == {f'im{i}' for i in range(1, 7)}
    for counter, share in ((classes, 1 / 3), (supports, 1 / 3)):
        for count in counter.values():
            assert abs(count / 3000 - share) < 4 * np.sqrt(share * (1 - share) / 3000)


def test_scarce_classes():
    split = get_split('pascal-5i', 0)
    index = ClassIndex({'a': {1: 50, 2: 50}, 'b': {1: 50}, 'c': {1: 50, 3: 10}})
    pool = build_pool(index, split.novel, 20)
    with pytest.raises(
        ValueError,
        match=r"1-shot episodes need 2 images .* 20 pixels in val\.txt; "
        r"too few of bicycle: 1\. .*scarce_classes='drop'",
    ):
        check_pool(pool, split, 'novel', 1, 20, 'val.txt')
    with pytest.raises(ValueError, match='5-shot .* need 6 .*aeroplane: 3, bicycle: 1'):
        check_pool(pool, split, 'novel', 5, 20, 'val.txt')
    kept = build_pool(index, drop_scarce(pool, 2), 20)
    assert kept.images_of == {1: ('a', 'b', 'c')} and set(kept.classes_of.values()) == {(1,)}
    check_pool(kept, split, 'novel', 2, 20, 'val.txt')
    with pytest.raises(
        ValueError,
        match=r'no image has .* of a novel class of pascal-5i fold 0 '
        r'\(aeroplane, .*lower min_area',
    ):
        check_pool(build_pool(index, split.novel, 99), split, 'novel', 1, 99, 'val.txt')
