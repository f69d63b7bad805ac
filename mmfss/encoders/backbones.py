"""Encoders whose features the prompt generator matches: the interface, and two without DINOv2."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmfss.checkpoints.weights import load_strict
from mmfss.encoders.sam2.model import SAM2Features
from mmfss.functional import up

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageNetNormalise(nn.Module):
    """RGB 0..255 (N, 3, H, W) to ImageNet mean 0 and deviation 1. No state in checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        mean = torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1)
        std = torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1)
        self.register_buffer('mean', mean, persistent=False)
        self.register_buffer('std', std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images / 255.0 - self.mean) / self.std


class PriorEncoder(BaseModule):
    """Interface: ``forward(images, sam2_features) -> (N, C, h, w)``.

    ``images`` are (N, 3, S, S) RGB 0..255. ``init_weights`` loads the pretrained weights.

    Attributes:
        reads_sam2: whether it works on ``sam2_features``, SAM 2's of the same images. ``images``
            are then None, and may not even have been read; otherwise ``sam2_features`` are None.
    """

    reads_sam2 = False

    def __init__(self) -> None:
        super().__init__()
        self.normalise = ImageNetNormalise()

    def forward(self, images: Tensor | None, sam2_features: SAM2Features | None) -> Tensor:
        raise NotImplementedError


@MODELS.register_module()
class SAM2PriorEncoder(PriorEncoder):
    """SAM 2's own stride-16 features as prior features: no second encoder."""

    reads_sam2 = True

    def init_weights(self) -> None:
        """Nothing of its own to load."""

    def forward(self, images: Tensor | None, sam2_features: SAM2Features) -> Tensor:
        """Returns ``sam2_features.top`` (N, D, h, w)."""
        return sam2_features.top


@MODELS.register_module()
class BackbonePriorEncoder(PriorEncoder):
    """Any registered backbone (mmseg's ResNet, MixVisionTransformer, ...) as prior encoder.

    Args:
        backbone: config of a backbone registered in mmseg's MODELS that returns a tensor, or a
            tuple of feature maps, for (N, 3, H, W) images normalised with ImageNet statistics.
        image_size: side in pixels to which images are resized before it.
        out_index: which of the maps to take.
        checkpoint: state dict of the backbone, a path or URL, loaded strictly; None leaves the
            weights to the backbone's own ``init_cfg``.
    """

    def __init__(
        self,
        backbone: dict,
        image_size: int = 512,
        out_index: int = -1,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(image_size, int) or image_size < 1:
            raise ValueError(f'image_size must be a positive integer (pixels), got {image_size!r}')
        self.backbone = MODELS.build(backbone)
        self.image_size = image_size
        self.out_index = out_index
        self.checkpoint = checkpoint

    def init_weights(self) -> None:
        """Load ``checkpoint`` strictly, or let the backbone initialise itself."""
        if self.checkpoint is not None:
            name = type(self.backbone).__name__
            load_strict(self.backbone, self.checkpoint, what=name, key='state_dict')
        elif hasattr(self.backbone, 'init_weights'):
            self.backbone.init_weights()

    def forward(self, images: Tensor, sam2_features: SAM2Features | None = None) -> Tensor:
        """(N, 3, S, S) RGB 0..255 -> (N, C, h, w) of the backbone's map ``out_index``."""
        out = self.backbone(self.normalise(up(images, (self.image_size, self.image_size))))
        if isinstance(out, Tensor):
            return out
        if not -len(out) <= self.out_index < len(out):
            raise ValueError(
                f'out_index {self.out_index} is out of range: {type(self.backbone).__name__} '
                f'returns {len(out)} feature maps'
            )
        return out[self.out_index]
