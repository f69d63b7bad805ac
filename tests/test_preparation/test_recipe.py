"""The recipe that preparations follow: lists, description, going on, options that differ."""

from __future__ import annotations

import argparse
import json

import pytest

from mmfss.datasets.folds import Benchmark
from mmfss.datasets.preparation.jobs import Done
from mmfss.datasets.preparation.recipe import Recipe, fold_lines, make

BENCHMARK = Benchmark('mine', ('cup', 'pen', 'fork'), 3, ((1,), (2,), (3,)), 5)
AREAS = {'a.png': {1: 9, 3: 2}, 'b.png': {}, 'c.png': None, 'd.png': {2: 7}}


def job(name):
    """A file that was there; what it shows."""
    return Done(kept=1, result={name: AREAS[name]})


def recipe(**changes):
    stated = dict(
        title='Mine {}',
        benchmark=BENCHMARK,
        kind='class_masks',
        images='.',
        jobs={'train': ['a.png', 'b.png'], 'test': ['c.png', 'd.png']},
        job=job,
        options=dict(side=3),
        source=dict(pictures=4),
    )
    return Recipe(**{**stated, **changes})


@pytest.fixture
def args(tmp_path):
    return argparse.Namespace(out=tmp_path / 'out', workers=0)


def lists(out):
    return {file.stem: file.read_text() for file in sorted((out / 'splits').iterdir())}


def test_lists_and_description(tmp_path, args):
    made = make(recipe(images=tmp_path / 'photos'), tmp_path, args)
    assert lists(args.out) == {'train': 'a.png\t1 3\nb.png\n', 'test': 'd.png\t2\n'}
    content = json.loads((args.out / 'dataset.json').read_text())
    assert (content['kind'], content['images']) == ('class_masks', '../photos')
    assert content['splits'] == {'train': 2, 'test': 1}
    assert Benchmark.from_dict(content['benchmark']) == BENCHMARK
    found = dict(root=str(tmp_path), without_foreground=['c.png'], pictures=4)
    assert content['source'] == found
    assert made['train'].images == {'a.png': {1: 9, 3: 2}, 'b.png': {}}
    assert (made['test'].images, made['test'].empty) == ({'d.png': {2: 7}}, ['c.png'])
    assert str(made['test'].tally) == '0 made, 2 complete already'


def test_label_maps_list_no_classes(tmp_path, args):
    make(recipe(kind='label_maps'), tmp_path, args)
    assert lists(args.out) == {'train': 'a.png\nb.png\n', 'test': 'd.png\n'}


def test_lists_by_class(tmp_path, args):
    """Images are listed by what they show, in several lists if need be."""
    by_class = dict(some={1, 2}, all={1, 2, 3}, none=set())
    made = make(recipe(jobs={'x': [*AREAS]}, lists=by_class), tmp_path, args)
    assert {split: [*one.images] for split, one in made.items()} == dict(
        some=['a.png', 'd.png'], all=['a.png', 'd.png'], none=[]
    )
    assert lists(args.out)['none'] == '' and made['some'].empty == ['c.png']


def test_options_that_differ_are_refused(tmp_path, args):
    make(recipe(), tmp_path, args)
    make(recipe(source={}), tmp_path, args)
    with pytest.raises(ValueError, match='was begun with other options: side was 3, now 4; choose'):
        make(recipe(options=dict(side=4)), tmp_path, args)
    other = Benchmark('other', ('cup',), 1, ((1,),), 5)
    with pytest.raises(ValueError, match="benchmark was 'mine', now 'other'"):
        make(recipe(benchmark=other), tmp_path, args)


def test_options_of_each_split(tmp_path, args):
    """Splits that are made one by one: another one may be of other options."""
    of = {'train': dict(digest='x')}
    make(recipe(jobs={'train': ['a.png']}, options_of=of), tmp_path, args)
    make(recipe(jobs={'test': ['d.png']}, options_of={'test': dict(digest='y')}), tmp_path, args)
    with pytest.raises(ValueError, match="digest was 'x', now 'z'"):
        make(recipe(options_of={'train': dict(digest='z')}), tmp_path, args)


def test_failures_name_the_split(tmp_path, args):
    def bad(name):
        raise ValueError(f'{name} is bad')

    with pytest.raises(ValueError, match=r'Mine train: 2 of 2 failed .*\n  a\.png is bad\n  b\.p'):
        make(recipe(job=bad), tmp_path, args)
    assert not (args.out / 'dataset.json').exists()


def test_what_folds_find():
    train = [{1: 9}, {1: 9, 2: 1}, {2: 9, 3: 5}, {3: 4}, {}]
    assert fold_lines(BENCHMARK, train, train) == [
        '  fold 0: 1 training images, 2 test images',
        '  fold 1: 1 training images, 1 test images',
        '  fold 2: 2 training images, 1 test images',
    ]
    assert fold_lines(BENCHMARK, None, [{1: 9, 3: 4}, {2: 4}]) == [
        '  fold 0: 1 test images',
        '  fold 1: 0 test images, no test image of pen',
        '  fold 2: 0 test images, no test image of fork',
    ]
    assert fold_lines(BENCHMARK, train[:1], None)[0] == '  fold 0: 0 training images'
