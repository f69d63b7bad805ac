"""The door for FiftyOne: a model for ``apply_model`` that writes ``Segmentation`` fields. ::

from mmfss.serve.fiftyone import few_shot_model

marked = dataset.match_tags('marked')           # samples whose 'ground_truth' has masks
model = few_shot_model(marked, 'ground_truth')  # method='gf_sam', or a config and weights
dataset.mask_targets['mmfss'] = model.mask_targets
dataset.apply_model(model, label_field='mmfss')
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfss.apis import FewShotInferencer
from mmfss.apis.images import as_bgr


def few_shot_model(
    samples: Any, field: str, max_shots: int = 10, inferencer: FewShotInferencer | None = None,
    **how: Any,
) -> Any:  # fmt: skip
    """A model that marks what is marked in some samples.

    Args:
        samples: of a FiftyOne dataset or view; those without ``field`` are left out.
        field: ``Segmentation``, whose mask targets the dataset knows, or ``Detections`` with masks
            or ``Polylines``.
        max_shots: supports of a class, the last ones.
        inferencer: whose support set is replaced; None makes one with the arguments ``how``, see
            :class:`mmfss.apis.FewShotInferencer`.

    Raises:
        ValueError: Nothing is marked, or the labels are of another type.
    """
    import fiftyone as fo
    from fiftyone.core.models import Model

    targets = samples.mask_targets.get(field) or samples.default_mask_targets
    supports: dict[str, list[tuple[str, np.ndarray]]] = {}
    for sample in samples.exists(field):
        for name, mask in _masks(sample, field, targets, fo).items():
            supports.setdefault(name, []).append((sample.filepath, mask))
    if not supports:
        raise ValueError(
            f'no sample has something marked in {field!r}: give samples with masks, and of a '
            'Segmentation field set dataset.mask_targets'
        )
    shown = FewShotInferencer(**how) if inferencer is None else inferencer
    most = min(max_shots, shown.model.max_shots or max_shots)
    shown.set_support({name: some[-most:] for name, some in supports.items()})

    class FewShot(Model):
        """Marks images, uint8 (H, W, 3) in RGB, one after the other."""

        media_type = 'image'
        transforms = preprocess = None
        ragged_batches = False
        mask_targets = dict(enumerate(shown.classes, 1))

        def predict(self, image: np.ndarray) -> fo.Segmentation:
            rgb = np.asarray(image)
            pixels = as_bgr(rgb if rgb.ndim == 2 else rgb[..., 2::-1], 'the sample')
            (found,) = shown.predict([pixels], ['the sample'])
            return fo.Segmentation(mask=found.labels)

    return FewShot()


def _masks(sample: Any, field: str, targets: Mapping, fo: Any) -> dict[str, np.ndarray]:
    """Class -> bool (H, W) of a sample."""
    label = sample[field]
    if isinstance(label, fo.Segmentation):
        values = label.get_mask()
        found = {name: values == value for value, name in targets.items() if value}
        return {name: mask for name, mask in found.items() if mask.any()}
    parts = getattr(label, 'detections', None) or getattr(label, 'polylines', None)
    if not isinstance(label, (fo.Detections, fo.Polylines)):
        raise ValueError(
            f'{field!r} must be Segmentation, Detections or Polylines, got {type(label).__name__}'
        )
    sample.compute_metadata()
    size = sample.metadata.width, sample.metadata.height
    made: dict[str, np.ndarray] = {}
    for one in parts or ():
        mask = one.to_segmentation(frame_size=size, target=255).mask > 0
        made[one.label] = made[one.label] | mask if one.label in made else mask
    return {name: mask for name, mask in made.items() if mask.any()}
