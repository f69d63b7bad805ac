"""The model for FiftyOne with its own samples, labels and base class.

Datasets need MongoDB: what stands in for one here gives the samples.
"""

from __future__ import annotations

import numpy as np
import pytest
from serve_cases import png
from webui_steps import box_mask, pixels

from mmfss.serve.fiftyone import few_shot_model

fo = pytest.importorskip('fiftyone')


class Samples(list):
    """As a dataset or view, as far as the model asks it."""

    mask_targets: dict = {}
    default_mask_targets = {0: 'background', 3: 'cup', 7: 'lamp'}

    def exists(self, field):
        return Samples(one for one in self if one.has_field(field) and one[field] is not None)


@pytest.fixture
def photos(tmp_path):
    for seed in range(3):
        (tmp_path / f'{seed}.png').write_bytes(png(seed))
    return [str(tmp_path / f'{seed}.png') for seed in range(3)]


def test_masks_detections_and_polylines_give_the_same(photos, worker):
    values = np.where(box_mask(), 3, 0).astype(np.uint8)
    box = [30 / 96, 20 / 80, 30 / 96, 30 / 80]
    object_mask = np.ones((30, 30), bool)
    corners = [(30 / 96, 20 / 80), (60 / 96, 20 / 80), (60 / 96, 50 / 80), (30 / 96, 50 / 80)]
    labels = dict(
        segmentation=fo.Segmentation(mask=values),
        detections=fo.Detections(
            detections=[fo.Detection(label='cup', bounding_box=box, mask=object_mask)]
        ),
        polylines=fo.Polylines(
            polylines=[fo.Polyline(label='cup', points=[corners], closed=True, filled=True)]
        ),
    )
    wanted = worker.new_inferencer()
    wanted.set_support(dict(cup=[(photos[0], box_mask())]))
    truth = wanted(photos[2])
    for kind, label in labels.items():
        samples = Samples([fo.Sample(photos[0], truth=label), fo.Sample(photos[1])])
        model = few_shot_model(samples, 'truth', inferencer=worker.new_inferencer())
        assert isinstance(model, fo.core.models.Model) and model.mask_targets == {1: 'cup'}
        found = model.predict(pixels(2))  # as FiftyOne reads it, in RGB
        assert isinstance(found, fo.Segmentation)
        differ = (found.mask != truth.labels).mean()
        assert differ == 0 if kind != 'polylines' else differ < 0.05  # drawn with its border


def test_what_cannot_be_used(photos, worker):
    inferencer = worker.new_inferencer()
    empty = Samples(
        [fo.Sample(photos[0], truth=fo.Segmentation(mask=np.zeros((80, 96), np.uint8)))]
    )
    for samples in (empty, Samples([fo.Sample(photos[0])])):
        with pytest.raises(ValueError, match='no sample has something marked'):
            few_shot_model(samples, 'truth', inferencer=inferencer)
    tags = Samples([fo.Sample(photos[0], truth=fo.Classification(label='cup'))])
    with pytest.raises(ValueError, match='got Classification'):
        few_shot_model(tags, 'truth', inferencer=inferencer)
