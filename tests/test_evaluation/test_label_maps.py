"""IoU of label maps."""

import numpy as np
import pytest

from mmfss.evaluation.label_maps import label_ious


def test_ious_by_a_plain_loop():
    rng = np.random.default_rng(0)
    pairs = []
    for size in ((5, 7), (6, 4)):
        truth = rng.integers(0, 3, size).astype(np.uint8)
        truth[0] = 255
        pairs.append((rng.integers(0, 3, size).astype(np.uint8), truth))
    wanted = []
    for label in range(3):
        both = either = 0
        for found, truth in pairs:
            for a, b in zip(found.ravel().tolist(), truth.ravel().tolist()):
                both += b != 255 and a == b == label
                either += b != 255 and label in (a, b)
        wanted.append(100 * both / either)
    got = label_ious(iter(pairs), 3)
    np.testing.assert_allclose(got[:3], wanted)
    assert got.shape == (4,) and np.isnan(got[3])  # in neither


def test_maps_of_two_images():
    with pytest.raises(ValueError, match=r'labels are \(2, 3\), their truth \(3, 2\); give maps'):
        label_ious([(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))], 1)
