from __future__ import annotations

import dataclasses
import json

import pytest

from mmfss.datasets.classes import canonical
from mmfss.datasets.folds import BENCHMARKS, Benchmark, FoldSplit, get_split


@pytest.mark.parametrize('name', sorted(BENCHMARKS))
def test_folds_partition_the_classes(name):
    bench = BENCHMARKS[name]
    splits = [get_split(name, fold) for fold in range(bench.num_folds)]
    assert sorted(c for s in splits for c in s.novel) == list(range(1, len(bench.classes) + 1))
    for split in splits:
        assert set(split.novel).isdisjoint(split.base)
        assert len(split.novel) + len(split.base) == len(bench.classes)
        assert split.novel_names + split.base_names == tuple(
            bench.classes[c - 1] for c in split.novel + split.base
        )


def test_published_folds():
    assert get_split('pascal-5i', 1).novel_names == ('bus', 'car', 'cat', 'chair', 'cow')
    assert get_split('coco-20i', 0).novel == tuple(range(1, 81, 4))
    assert get_split('coco-20i', 2).novel[:3] == (3, 7, 11)
    assert get_split('coco-20i-contiguous', 3).novel == tuple(range(61, 81))
    assert [len(BENCHMARKS[n].classes) for n in ('pascal-5i', 'coco-20i', 'shapes-5i')] == [
        20,
        80,
        20,
    ]
    assert BENCHMARKS['pascal-5i'].min_area == BENCHMARKS['coco-20i'].min_area == 2048


def test_coco_classes_are_in_category_order(shared_dir):
    file = shared_dir / 'data/coco/annotations/instances_val2014.json'
    categories = json.loads(file.read_text())['categories']
    names = tuple(c['name'] for c in sorted(categories, key=lambda c: c['id']))
    assert BENCHMARKS['coco-20i'].classes == names


def test_fold_from_the_environment_is_a_string():
    assert get_split('pascal-5i', '2') == get_split('pascal-5i', 2)


@pytest.mark.parametrize('fold', [4, -1, '4', '-1', 'two', '', '1.0', 1.0, True, None])
def test_fold_out_of_range(fold):
    with pytest.raises(ValueError, match=r"fold of 'pascal-5i' must be an integer in 0\.\.3"):
        get_split('pascal-5i', fold)


def test_unknown_benchmark_lists_the_known():
    with pytest.raises(
        ValueError,
        match=r"one of \['coco-20i', .*'shapes-5i'\] or the folder of a prepared .*, got 'voc'",
    ):
        get_split('voc', 0)


def test_names_and_roles():
    split = get_split('pascal-5i', 0)
    assert split.name(20) == 'tvmonitor'
    assert split.ids('base') == split.base and split.ids('novel') == split.novel
    with pytest.raises(ValueError, match=r"class id must be in 1\.\.20 .* got 0"):
        split.name(0)
    assert split.names('base_val') == ('cat', 'horse', 'sofa')
    assert split.ids('base_train') == tuple(c for c in split.base if c not in (8, 13, 18))
    assert split.held_out('base_train') == (1, 2, 3, 4, 5, 8, 13, 18)
    assert split.held_out('base') == split.novel
    with pytest.raises(ValueError, match=r"must be one of \['base', .*, got 'train'"):
        split.ids('train')


def test_split_as_plain_data():
    split = get_split('coco-20i', 1)
    data = json.loads(json.dumps(split.to_dict()))
    assert FoldSplit.from_dict(data) == split
    del data['novel']
    with pytest.raises(ValueError, match=r"missing: \['novel'\]"):
        FoldSplit.from_dict(data)


@pytest.mark.parametrize('name', sorted(set(BENCHMARKS) - {'coco-to-pascal'}))  # only tested on
def test_validation_classes_are_a_fifth_of_the_base_classes(name):
    for fold in range(4):
        split = get_split(name, fold)
        assert set(split.validation) < set(split.base)
        assert abs(len(split.validation) - len(split.base) / 5) < 1
        assert 'person' not in split.names('base_val')  # half of all images show one


def test_coco_to_pascal_folds_as_published():
    """Table of Boudiaf et al., CVPR 2021; a COCO-20i model of the fold has not seen them."""
    assert [get_split('coco-to-pascal', fold).novel_names for fold in range(4)] == [
        ('aeroplane', 'boat', 'chair', 'diningtable', 'dog', 'person'),
        ('bicycle', 'bus', 'horse', 'sofa'),
        ('bird', 'car', 'pottedplant', 'sheep', 'train', 'tvmonitor'),
        ('bottle', 'cat', 'cow', 'motorbike'),
    ]
    for fold in range(4):
        seen = {canonical(name) for name in get_split('coco-20i', fold).base_names}
        novel = {canonical(name) for name in get_split('coco-to-pascal', fold).novel_names}
        assert seen.isdisjoint(novel)


@pytest.mark.parametrize(
    'names',
    [
        ('tvmonitor', 'tv', 'TV monitor', 'tv_monitor', 'television_set'),
        ('aeroplane', 'Aeroplane', 'airplane'),
        ('Sofa', 'couch'),
        ('car', 'car_(automobile)'),
        ('cell phone', 'cellular_telephone'),
    ],
)
def test_one_class_under_the_names_of_several_datasets(names):
    assert len({canonical(name) for name in names}) == 1


def test_names_of_a_dataset_stay_apart():
    for benchmark in BENCHMARKS.values():
        assert len({canonical(name) for name in benchmark.classes}) == len(benchmark.classes)


def test_benchmark_with_base_and_validation_classes_of_its_own():
    bench = Benchmark('x', tuple('abcdef'), 1, ((1, 2),), 1, ((3, 5, 6),), ((5,),))
    split = bench.split(0)
    assert (split.base, split.ids('base_train'), split.ids('base_val')) == ((3, 5, 6), (3, 6), (5,))
    assert Benchmark.from_dict(json.loads(json.dumps(bench.to_dict()))) == bench
    for wrong in (dict(base=((2, 3),)), dict(validation=((4,),)), dict(base=((7,),))):
        with pytest.raises(ValueError, match='base classes must be among .* not novel'):
            dataclasses.replace(bench, **{'validation': ((),), **wrong})
    with pytest.raises(ValueError, match='a tuple of class ids for each of its 1 folds, got 2'):
        dataclasses.replace(bench, base=((3,), (4,)))
    with pytest.raises(ValueError, match="missing or wrong: 'novel'"):
        Benchmark.from_dict({'name': 'x'})


def test_folds_must_not_overlap():
    bench = BENCHMARKS['pascal-5i']
    with pytest.raises(ValueError, match=r'class ids 1\.\.20, each at most once'):
        dataclasses.replace(bench, novel=bench.novel[:3] + (bench.novel[0],))
    with pytest.raises(ValueError, match='must be unique'):
        Benchmark('x', ('a', 'a'), 1, ((1, 2),), 1)
