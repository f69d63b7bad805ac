from __future__ import annotations

import numpy as np
import pytest

from mmfss.evaluation.counts import EpisodeCounts, few_shot_iou, sum_per_class
from mmfss.evaluation.statistics import bootstrap_interval, mean_std, resampled_miou


def episodes(rng, number, classes=2, images=None):
    """Random counts; query images are all different, or drawn from that many of each class."""
    rows = []
    for i in range(number):
        class_id = 1 + i % classes
        union = int(rng.integers(50, 100))
        query = f'{class_id}/{i if images is None else rng.integers(images)}'
        inter = int(rng.integers(0, union + 1))
        rows.append(EpisodeCounts(i, class_id, (0, inter), (0, union), query))
    return rows


def miou(rows):
    return few_shot_iou(sum_per_class(rows))[1]


def test_mean_and_sample_deviation():
    by_hand = (((4 / 3) ** 2 + 1 / 9 + 25 / 9) / 2) ** 0.5
    assert mean_std([1.0, 2.0, 4.0]) == (pytest.approx(7 / 3), pytest.approx(by_hand))
    assert mean_std([3.5]) == (3.5, None)
    assert mean_std([2.0, 2.0]) == (2.0, 0.0)
    with pytest.raises(ValueError, match='at least one number'):
        mean_std([])


def test_resamples_equal_a_plain_loop():
    """The same draws, episode by episode and through the metric's own sums."""
    rng = np.random.default_rng(1)
    seeds = [episodes(rng, 24, images=5) for _ in range(2)]
    found = resampled_miou(seeds, 20, np.random.default_rng(3))
    draws = np.random.default_rng(3)
    units = {c: [] for c in (1, 2)}
    for rows in seeds:
        for row in rows:
            if row.query not in units[row.class_id]:
                units[row.class_id].append(row.query)
    chosen = {c: draws.integers(len(units[c]), size=(20, len(units[c]))) for c in (1, 2)}
    for i, figure in enumerate(found):
        of_seeds = []
        for rows in seeds:
            drawn = []
            for c in (1, 2):
                for unit in chosen[c][i]:
                    drawn += [r for r in rows if r.query == units[c][unit]]
            drawn = [EpisodeCounts(n, r.class_id, r.intersection, r.union)
                     for n, r in enumerate(drawn)]  # fmt: skip
            of_seeds.append(miou(drawn))
        assert figure == pytest.approx(np.mean(of_seeds), abs=1e-9)


def test_interval_of_several_folds_is_that_of_their_mean():
    rng = np.random.default_rng(2)
    folds = [[episodes(rng, 30)] for _ in range(3)]
    figures = [resampled_miou(f, 500, np.random.default_rng([7, i])) for i, f in enumerate(folds)]
    low, high = np.percentile(np.mean(figures, axis=0), [5, 95])
    found = bootstrap_interval(folds, resamples=500, level=0.9, seed=7)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    widths = [np.subtract(*np.percentile(f, [95, 5])) for f in figures]
    assert high - low < 0.75 * min(widths)  # independent folds: about 1 / sqrt(3)


def test_identical_episodes_have_no_width():
    rows = [EpisodeCounts(i, 1 + i % 3, (5, 30), (9, 40), str(i)) for i in range(12)]
    found = bootstrap_interval([[rows], [rows, rows]])
    assert (found.low, found.high) == (75.0, 75.0)


def test_interval_repeats_and_holds_the_figure():
    rows = episodes(np.random.default_rng(4), 60)
    found = bootstrap_interval([[rows]])
    assert found == bootstrap_interval([[rows]]) != bootstrap_interval([[rows]], seed=1)
    assert found.low < miou(rows) < found.high


def test_draws_in_parts_are_the_same(monkeypatch):
    rows = episodes(np.random.default_rng(4), 60)
    whole = bootstrap_interval([[rows]])
    monkeypatch.setattr('mmfss.evaluation.statistics._AT_A_TIME', 700)
    assert bootstrap_interval([[rows]]) == whole


def test_repeated_queries_do_not_narrow_the_interval():
    """An image that is asked for ten times, or under other seeds, is one image."""
    rng = np.random.default_rng(5)
    once = episodes(rng, 40)
    again = [
        EpisodeCounts(40 * k + r.episode, r.class_id, r.intersection, r.union, r.query)
        for k in range(10)
        for r in once
    ]
    assert bootstrap_interval([[again]]) == bootstrap_interval([[once]])
    assert bootstrap_interval([[once] * 5]) == bootstrap_interval([[once]])
    unknown = [EpisodeCounts(r.episode, r.class_id, r.intersection, r.union) for r in again]
    narrow, wide = bootstrap_interval([[unknown]]), bootstrap_interval([[once]])
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_coverage():
    """Of 200 test sets of known mIoU, about 95 % of the intervals hold it."""
    rng = np.random.default_rng(6)
    truth, held = 60.0, 0
    for _ in range(200):
        rows = []
        for i in range(120):
            share = rng.beta(6, 4)  # of mean 0.6, independent of the size
            union = int(rng.integers(1000, 2000))
            rows.append(EpisodeCounts(i, 1 + i % 3, (0, round(share * union)), (0, union), str(i)))
        found = bootstrap_interval([[rows]], resamples=400)
        held += found.low <= truth <= found.high
    assert 0.90 <= held / 200 <= 0.99


def test_class_without_episodes_under_a_seed_is_left_out_of_its_mean():
    one = [EpisodeCounts(0, 1, (0, 1), (0, 2), 'a'), EpisodeCounts(1, 2, (0, 1), (0, 4), 'b')]
    two = [EpisodeCounts(0, 1, (0, 2), (0, 2), 'a')]
    found = bootstrap_interval([[one, two]], resamples=10)
    assert (found.low, found.high) == (68.75, 68.75)  # mean of (50 + 25) / 2 and 100


def test_class_without_episodes_counts_as_zero_where_the_number_of_classes_is_said():
    one = [EpisodeCounts(0, 1, (0, 1), (0, 2), 'a'), EpisodeCounts(1, 2, (0, 1), (0, 4), 'b')]
    two = [EpisodeCounts(0, 1, (0, 2), (0, 2), 'a')]
    found = bootstrap_interval([[one, two]], resamples=10, classes=[4])
    assert (found.low, found.high) == (21.875, 21.875)  # mean of (50 + 25) / 4 and 100 / 4
    found = bootstrap_interval([[one, two], [two, two]], resamples=10, classes=[4, 1])
    assert (found.low, found.high) == (60.9375, 60.9375)  # with 100 of the other fold
    with pytest.raises(ValueError, match='episodes of 2 classes, but classes=1'):
        bootstrap_interval([[one, two]], resamples=10, classes=[1])


def test_number_of_classes_changes_nothing_where_all_are_there():
    rows = episodes(np.random.default_rng(4), 60)
    assert bootstrap_interval([[rows]], classes=[2]) == bootstrap_interval([[rows]])


def test_bad_calls():
    rows = episodes(np.random.default_rng(0), 4)
    for options in (dict(resamples=0), dict(level=1.0), dict(level=0.0)):
        with pytest.raises(ValueError, match='resamples must be >= 1 and level between 0 and 1'):
            bootstrap_interval([[rows]], **options)
    for folds in ([], [[]], [[rows], [rows, []]]):
        with pytest.raises(ValueError, match='at least one episode of every fold and seed'):
            bootstrap_interval(folds)
    with pytest.raises(ValueError, match='no episode has a foreground pixel'):
        bootstrap_interval([[[EpisodeCounts(0, 1, (3, 0), (3, 0))]]])
