"""Paired comparisons: exhaustive oracles, properties, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from mmfss.evaluation.comparison import Compared, Method, holm
from mmfss.evaluation.counts import EpisodeCounts, few_shot_iou, sum_per_class
from mmfss.evaluation.report import Run

CLASSES = {1: 'cat', 2: 'dog'}


def run(intersections, fold=0, seed=0, images=None, label='a', **protocol) -> Run:
    """Episodes of 1000 pixels with unions of 100, by turns of cat and dog."""
    counts = tuple(
        EpisodeCounts(i, 1 + i % 2, (900, int(inter)), (1000 - int(inter), 100),
                      f'{(i if images is None else i % images):03}.jpg')
        for i, inter in enumerate(intersections)
    )  # fmt: skip
    ious, miou, fb = few_shot_iou(sum_per_class(counts))
    metrics = {'mIoU': miou, 'FB-IoU': fb, 'classes': len(ious)}
    metrics |= {f'IoU/{CLASSES[c]}': value for c, value in ious.items()}
    return Run(label, 1, fold, seed, metrics, (), dict(sampler='balanced', **protocol), {}, '',
               counts)  # fmt: skip


def method(name, *runs) -> Method:
    """One training."""
    return Method(name, ({(one.shots, one.fold, one.seed): one for one in runs},))


def draws(number, shift=0.0, seed=0, spread=15.0):
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(50, spread, number) + shift, 0, 100).astype(int)


def of(compared, scope='mean'):
    (found,) = [one for one in compared.differences if one.scope == scope]
    return found


def test_what_varies_in_both_alike_does_not_hide_a_difference():
    """Both meet easy and hard images, one is better by a little on each: intervals of each alone
    are ten times as wide as that of their difference."""
    easy = draws(60, spread=25.0)
    a, b = run(np.clip(easy + 3, 0, 100)), run(np.clip(easy + draws(60, -50, 1, 2.0), 0, 100))
    found = of(Compared([method('a', a), method('b', b)], resamples=500, permutations=999))
    assert found.value == pytest.approx(a.metrics['mIoU'] - b.metrics['mIoU'], abs=1e-9)
    assert 0 < found.interval.low < found.value < found.interval.high < 6
    assert found.p == 1 / 1000 and found.sure


def test_the_same_result_twice_is_not_told_apart():
    a = run(draws(20))
    compared = Compared([method('a', a), method('b', a)], resamples=50, permutations=99)
    assert {(one.value, one.interval.low, one.interval.high, one.p) for one in
            compared.differences} == {(0.0, 0.0, 0.0, 1.0)}  # fmt: skip
    assert compared.best(1) is None


def test_permutations_are_those_of_a_plain_loop():
    """Ten units: all 1024 exchanges, counted."""
    a, b = draws(10, 4, 2), draws(10, 0, 3)
    compared = Compared([method('a', run(a)), method('b', run(b))], permutations=20000)
    reached = 0
    observed = run(a).metrics['mIoU'] - run(b).metrics['mIoU']
    for exchanged in product([False, True], repeat=10):
        one, other = np.where(exchanged, b, a), np.where(exchanged, a, b)
        reached += (
            abs(run(one).metrics['mIoU'] - run(other).metrics['mIoU']) >= abs(observed) - 1e-9
        )
    assert of(compared).p == pytest.approx(reached / 1024, abs=0.015)


def test_bootstrap_is_that_of_a_plain_loop():
    """Deviation of the difference over resamples of the images of each class."""
    a, b = draws(16, 0, 4), draws(16, 0, 5)
    compared = Compared([method('a', run(a)), method('b', run(b))], resamples=1500, permutations=9)
    rng, found = np.random.default_rng(7), []
    for _ in range(1500):
        picks = np.concatenate([rng.choice(np.arange(c, 16, 2), 8) for c in (0, 1)])
        picks = picks[np.argsort(picks % 2, kind='stable')].reshape(2, 8).T.ravel()
        found.append(run(a[picks]).metrics['mIoU'] - run(b[picks]).metrics['mIoU'])
    interval = of(compared).interval
    np.testing.assert_allclose(
        (interval.low, interval.high), np.percentile(found, [2.5, 97.5]), atol=1.3
    )


def test_p_values_of_equal_methods_are_even():
    """Under the null the p-value lies below 0.1 in a tenth of the cases."""
    pairs = [
        [method(n, run(draws(24, 0, 2 * i + j))) for j, n in enumerate('ab')] for i in range(200)
    ]
    p = [of(Compared(pair, resamples=1, permutations=199)).p for pair in pairs]
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.05)
    assert np.mean(p) == pytest.approx(0.5, abs=0.07)


def test_episodes_of_one_image_are_one_unit():
    """Ten times the same images: no more is known of other images."""
    a, b = draws(10, 5, 2), draws(10, 0, 3)
    once = Compared([method('a', run(a)), method('b', run(b))], resamples=2000, permutations=2000)
    often = Compared(
        [method('a', run(np.tile(a, 10), images=10)), method('b', run(np.tile(b, 10), images=10))],
        resamples=2000, permutations=2000,
    )  # fmt: skip
    one, ten = of(once), of(often)
    assert (one.value, one.p) == (pytest.approx(ten.value), pytest.approx(ten.p))
    assert one.interval.low == pytest.approx(ten.interval.low)


def test_folds_seeds_trainings_and_scopes():
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    values = {t: [draws(12, 3 * t, 10 * t + i) for i in range(4)] for t in range(3)}

    def training(t):
        return {(1, f, s): run(values[t][i], f, s) for i, (f, s) in enumerate(places)}

    both = Method('both', (training(0), training(1)))
    compared = Compared([both, Method('one', (training(2),))], resamples=50, permutations=99)
    figures = compared.figures('both', 1)
    table = np.array([[training(t)[1, f, s].metrics['mIoU'] for f, s in places] for t in (0, 1)])
    assert figures.mean == pytest.approx(table.mean())
    assert figures.folds[1] == pytest.approx(table[:, 2:].mean())
    assert figures.of_trainings == pytest.approx(table.mean(1).std(ddof=1))
    by_seed = np.stack([table[:, ::2].mean(), table[:, 1::2].mean()])
    assert figures.of_episodes == pytest.approx(by_seed.std(ddof=1))
    assert compared.figures('one', 1).of_trainings is None
    found = of(compared)
    assert found.value == pytest.approx(figures.mean - compared.figures('one', 1).mean)
    scopes = [one.scope for one in compared.differences]
    assert scopes == ['mean', 'fold 0', 'fold 1', 'cat', 'dog', 'cat', 'dog']
    cat = [one.value for one in compared.differences if one.scope == 'cat']
    assert cat[0] == pytest.approx(
        figures.classes[0]['cat'] - compared.figures('one', 1).classes[0]['cat']
    )


def test_best_is_surely_above_all_others():
    low, mid, high = (method(n, run(draws(40, s, 1))) for n, s in zip('abc', (-20, 0, 20)))
    assert Compared([low, mid, high], permutations=999, resamples=9).best(1) == 'c'
    like = method('d', run(draws(40, 20, 2)))
    assert Compared([low, high, like], permutations=999, resamples=9).best(1) is None


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.03]) == [0.03]


A = run(draws(12))


def changed(**values):
    """The run with another first episode."""
    counts = (replace(A.counts[0], **values), *A.counts[1:])
    return replace(A, counts=counts)


@pytest.mark.parametrize(
    'other, said',
    [
        (changed(class_id=2), '1 of 12 episodes have other classes, the first is 0'),
        (changed(query='x.jpg'), '1 of 12 episodes have other query images, the first is 0'),
        (changed(intersection=(700, 5)), 'have labels of other sizes or ignored pixels'),
        (replace(A, counts=A.counts[:-1]), 'they have 12 and 11 episodes'),
        (
            replace(A, protocol=dict(sampler='image_list')),
            "their protocols differ in sampler 'balanced' and 'image_list'",
        ),
        (replace(A, seed=3), 'b was not tested on all that the others were: it lacks 1-shot fold'),
    ],
)
def test_what_cannot_be_compared(other, said):
    with pytest.raises(ValueError) as error:
        Compared([method('a', A), method('b', other)])
    assert said in str(error.value) or said.replace('b was', 'a was') in str(error.value)


def test_other_supports_and_names():
    one, other = (
        replace(A, counts=tuple(replace(c, supports=(name,)) for c in A.counts)) for name in 'xy'
    )
    with pytest.raises(ValueError, match='12 of 12 episodes have other supports'):
        Compared([method('a', one), method('b', other)])
    Compared([method('a', one), method('b', A)], resamples=1, permutations=1)  # not known of one
    with pytest.raises(ValueError, match='two methods or more of different names, got a, a'):
        Compared([method('a', A), method('a', A)])
    odd = Method('b', ({(1, 0, 0): A, (1, 1, 1): replace(A, fold=1, seed=1)},))
    with pytest.raises(ValueError, match='no full table of shots .1., folds .0, 1., seeds .0, 1.'):
        Compared([replace(odd, name='a'), odd])
