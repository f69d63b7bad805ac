"""What is said of an image."""

import numpy as np
import pytest

from mmfss.apis.prediction import Prediction, check_threshold


def _prediction(scores=(0.8, 0.6), thresholds=(0.5, 0.5), size=(20, 30)):
    logits = np.full((2, 8, 8), -3.0, np.float32)
    logits[0, :, :4] = 2.0
    logits[1, 4:, 2:] = 1.0
    return Prediction.make(
        ('cat', 'cup'),
        np.array(scores, np.float32),
        np.array(thresholds, np.float32),
        logits,
        size,
        'a.jpg',
    )


def test_labels_masks_and_present():
    found = _prediction(size=(8, 8))
    wanted = np.zeros((8, 8), np.uint8)
    wanted[4:, 2:] = 2
    wanted[:, :4] = 1  # 0.8 x 2 beats 0.6 x 1
    assert np.array_equal(found.labels, wanted)
    assert found.present == ('cat', 'cup')
    assert np.array_equal(found.mask('cup'), wanted == 2)
    with pytest.raises(ValueError, match="no class 'dog'; there are cat, cup"):
        found.mask('dog')
    assert found.palette == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]


def test_threshold_decides_anew():
    found = _prediction(size=(8, 8))
    less = found.with_threshold(0.7)
    assert less.present == ('cat',) and (less.labels[:, :4] == 1).all()
    assert not (less.labels == 2).any()
    assert found.with_threshold(np.float32(0.7)).present == less.present
    only_cup = found.with_threshold({'cat': 0.9, 'cup': 0.1})
    assert only_cup.present == ('cup',) and (only_cup.labels[4:, 2:] == 2).all()
    assert found.with_threshold(0.0).labels.tolist() == found.labels.tolist()
    assert found.with_threshold(1.0).present == ()


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_confidence_by_hand():
    assert _prediction().confidence('cat') == pytest.approx(_sigmoid(2.0))


@pytest.mark.parametrize('scores', [(0.8, 0.6), (0.8, 0.2), (0.3, 0.1)])
def test_certainty_by_a_plain_loop(scores):
    found = _prediction(scores=scores, size=(8, 8))
    total = 0.0
    for y in range(8):
        for x in range(8):
            own = [
                _sigmoid((score - 0.5) / 0.1) * _sigmoid(logits[y, x])
                for score, logits in zip(scores, found.logits)
            ]
            label = found.labels[y, x]
            total += own[label - 1] if label else 1 - max(own)
    assert found.certainty == pytest.approx(total / 64, abs=1e-5)


def test_certainty_falls_towards_the_threshold():
    values = [_prediction(scores=(score, 0.0)).certainty for score in (1.0, 0.7, 0.55, 0.5)]
    assert values == sorted(values, reverse=True) and values[-1] < 0.8
    values = [_prediction(scores=(score, 0.0)).certainty for score in (0.0, 0.3, 0.45, 0.49)]
    assert values == sorted(values, reverse=True) and values[0] > 0.98
    for threshold in (0.0, 1.0):
        assert 0 <= _prediction(thresholds=(threshold,) * 2).certainty <= 1


def test_drawing_tints_classes_and_leaves_the_rest():
    found = _prediction(scores=(0.8, 0.2), size=(80, 80))
    image = np.full((80, 80, 3), 100, np.uint8)
    picture = found.draw(image, opacity=0.5)
    assert picture.shape == image.shape and (image == 100).all()
    assert (picture[:, 60:] == 100).all()
    assert picture[40, 20].tolist() == [135, 50, 178]  # half of (170, 0, 255) in BGR
    outside = np.flatnonzero(found.labels[40] == 0)[0]
    assert picture[40, outside - 1].tolist() == [170, 0, 255]  # the outline
    assert picture[40, outside].tolist() == [40, 40, 40]  # and its halo
    named = found.draw(image, legend=True)
    assert (named[:80] == picture).all() and 80 < len(named) < 110
    assert (named[80:] == (170, 0, 255)).all(2).any()  # of the class that is there
    assert not (named[80:] == (255, 229, 0)).all(2).any()
    nothing = _prediction(scores=(0.1, 0.2), size=(80, 80)).draw(image, legend=True)
    assert (nothing[:80] == 100).all() and (nothing[80:] < 60).any()
    with pytest.raises(ValueError, match='the labels are of'):
        found.draw(image[:40])


@pytest.mark.parametrize(
    'threshold, message',
    [
        (1.2, 'number in 0..1, got 1.2'),
        (float('nan'), 'number in 0..1, got nan'),
        ('0.5', "number in 0..1, got '0.5'"),
        (True, 'number in 0..1, got True'),
        ({'cat': 0.5}, 'must name every class, cat, cup'),
        ({'cat': 0.5, 'cup': 0.5, 'dog': 1}, 'must name every class'),
        ({'cat': 0.5, 'cup': -1}, 'number in 0..1, got -1'),
    ],
)
def test_thresholds_that_cannot_be(threshold, message):
    with pytest.raises(ValueError, match=message):
        check_threshold(threshold, ('cat', 'cup'))
