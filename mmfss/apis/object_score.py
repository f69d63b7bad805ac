"""Object scores: whether a class is in an image at all.

Shapes: Q images, N classes, K shots, S side of the model's images, C channels of the features that
are compared, (h, w) their grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmfss.functional import cosine_map, resize_mask


def object_scores(features: Tensor, logits: Tensor, prototypes: Tensor) -> Tensor:
    """Are the classes there? How much what lies under their masks resembles the supported objects.

    FSSAM takes for granted that the class is there: its pseudo masks are rescaled in each image,
    and its mask decoder never sees an image without the object, so neither its logits nor SAM 2's
    own object score and predicted IoU tell (docs/labelling.md has the figures). What does is the
    mean feature under the predicted mask, in the frozen encoder that the prompts come from.

    Args:
        features: (Q, C, h, w) float32 of the images.
        logits: (Q, N, S, S) of the classes in them; a mask is where they are >= 0.
        prototypes: (N, K, C).

    Returns:
        (Q, N) in [0, 1]: cosine with each shot's mean feature, averaged over shots, negative values
        as 0; 0 for an empty mask.
    """
    inside = resize_mask((logits >= 0).float(), features.shape[-2:])
    return resemblance(features, inside, prototypes)


def resemblance(features: Tensor, inside: Tensor, prototypes: Tensor) -> Tensor:
    """:func:`object_scores`, given where the classes are: ``inside`` (Q, N, h, w) in [0, 1]."""
    # masked_average of all classes as one product, without (Q, N, C, h, w)
    with torch.autocast(features.device.type, enabled=False):
        total = inside.flatten(2) @ features.flatten(2).transpose(1, 2)
    mean = total / (inside.sum((-2, -1)) + 0.0005)[..., None]
    cosines = cosine_map(mean[:, :, None, :, None, None], prototypes)
    return cosines[..., 0, 0].mean(-1).clamp(0, 1)
