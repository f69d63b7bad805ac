"""Any registered backbone of mmseg as an encoder."""

from __future__ import annotations

from mmseg.registry import MODELS
from torch import Tensor

from mmfss.checkpoints.weights import load_strict
from mmfss.functional import up

from .base import Encoder


@MODELS.register_module()
class BackboneEncoder(Encoder):
    """Any registered backbone (mmseg's ResNet, MixVisionTransformer, ...) as an encoder.

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
        # type and size decide which weights fit, and are all that a checkpoint can compare
        size = {name: getattr(self.backbone, name, None) for name in ('depth', 'embed_dims')}
        kept = {name: value for name, value in size.items() if isinstance(value, int)}
        self.arch = dict(type=type(self.backbone).__name__, **kept)

    def load_pretrained(self) -> None:
        """Load ``checkpoint`` strictly, or let the backbone initialise itself."""
        if self.checkpoint is not None:
            name = type(self.backbone).__name__
            load_strict(self.backbone, self.checkpoint, what=name, key='state_dict')
        elif hasattr(self.backbone, 'init_weights'):
            self.backbone.init_weights()

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """(N, 3, S, S) RGB 0..255 -> (N, C, h, w) of the backbone's map ``out_index``."""
        # resized at 0..255, then normalised, as for the other encoders
        out = self.backbone(self.normalise(up(images, (self.image_size, self.image_size))))
        if isinstance(out, Tensor):
            return (out,)
        if not -len(out) <= self.out_index < len(out):
            raise ValueError(
                f'out_index {self.out_index} is out of range: {type(self.backbone).__name__} '
                f'returns {len(out)} feature maps'
            )
        return (out[self.out_index],)
