"""Forms of regions against the readers and writers of the tools themselves, where they are
installed: ``pip install label-studio-sdk labelme cvat-sdk supervision``."""

from __future__ import annotations

import numpy as np
import pytest
from region_cases import some

from mmfss import regions


def test_brush_labels_of_label_studio():
    brush = pytest.importorskip('label_studio_sdk.converter.brush')
    for mask in some():
        code = regions.brush_code(mask)
        theirs = brush.encode_rle(np.repeat(mask.ravel().astype(np.uint8) * 255, 4))
        assert [*code, 0][: len(theirs)] == theirs  # which ends with an empty byte at times
        found = brush.decode_rle(code).reshape(*mask.shape, 4)
        assert set(np.unique(found)) <= {0, 255}
        for channel in range(4):
            np.testing.assert_array_equal(found[..., channel] == 255, mask)


def test_masks_of_cvat():
    masks = pytest.importorskip('cvat_sdk.masks')
    for mask in some():
        height, width = mask.shape
        if mask.any():
            assert regions.cvat_points(mask) == masks.encode_mask(mask)
            found = masks.decode_mask(
                regions.cvat_points(mask), image_width=width, image_height=height
            )
            np.testing.assert_array_equal(found, mask)


def test_outlines_of_supervision():
    """It reads corners as pixels, so that its mask reaches one pixel farther right and down."""
    detection = pytest.importorskip('supervision.detection.utils.converters')
    for mask in some():
        height, width = mask.shape
        found = np.zeros(mask.shape, bool)
        for outline in regions.outlines_of(mask):
            ring = regions.joined(outline).astype(int)
            found |= detection.polygon_to_mask(ring, (width, height)).astype(bool)
        wider = np.pad(mask, ((1, 0), (1, 0)))
        wider = wider[1:, 1:] | wider[:-1, 1:] | wider[1:, :-1] | wider[:-1, :-1]
        assert not (mask & ~found).any() and not (found & ~wider).any()
