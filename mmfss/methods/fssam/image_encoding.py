"""From images to features: SAM 2's image encoder and the prior encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmfss.encoders.backbones import ImageNetNormalise, PriorEncoder
from mmfss.encoders.frozen import FrozenEncoding, all_pixels
from mmfss.encoders.sam2.model import SAM2, SAM2Features
from mmfss.features.cache import FeatureCache
from mmfss.features.images import DeferredBatch
from mmfss.methods.fssam.structures import ImageFeatures


def frozen_stage(trainable: Sequence[str]) -> str:
    """The last stage of SAM 2's image encoder before which nothing is trained: 'none', 'trunk',
    or 'neck' where all of it is frozen."""
    if 'image_encoder' in trainable:
        return 'none'
    return 'trunk' if 'image_encoder.neck' in trainable else 'neck'


class ImageEncoding(FrozenEncoding):
    """Features of images: what is frozen through :class:`FrozenEncoding` and its cache, what is
    trained each time.

    Args:
        sam2, normalise: of the model.
        prior_encoder: None where no prior features are needed.
        trainable: modules of SAM 2 that are trained.
        cache, chunk: of :class:`FrozenEncoding`.
        compile: the model's ``compile``.
    """

    def __init__(
        self,
        sam2: SAM2,
        normalise: ImageNetNormalise,
        prior_encoder: PriorEncoder | None,
        trainable: Sequence[str],
        cache: FeatureCache | None = None,
        chunk: int = 1,
        compile: Mapping[str, Any] | None = None,
    ) -> None:
        self.sam2, self.normalise, self.prior_encoder = sam2, normalise, prior_encoder
        self.stage = frozen_stage(trainable)
        settings = dict(
            stage=self.stage,
            image_size=sam2.image_size,
            compile={key: str(value) for key, value in (compile or {}).items()},
        )
        super().__init__(self._frozen(), settings, cache, chunk, fixed=compile is not None)

    def image_features(
        self, images: Tensor | DeferredBatch, training: bool = False
    ) -> ImageFeatures:
        """Features of N images; see :meth:`mmfss.methods.fssam.model.FSSAM.encode_image`.

        Args:
            images: (N, 3, S, S) RGB 0..255, or images that are read where they must be.
            training: of the model.
        """
        if self.stage == 'none' and isinstance(images, DeferredBatch):
            images = all_pixels(images)
        levels = self(self._encode, images, training)
        prior = levels.pop() if self._keeps_prior else None
        if self.stage == 'neck':
            low, mid, top = levels
            position = self.sam2.image_encoder.neck.position_encoding(top).to(top.dtype)
            sam2 = SAM2Features((low, mid), top, position)
        elif self.stage == 'trunk':
            sam2 = self.sam2.encode_neck(levels)
        else:
            sam2 = self.sam2.encode_image(self.normalise(images))
        if self.prior_encoder is not None and prior is None:
            with torch.no_grad():
                prior = self.prior_encoder(None, sam2)
        return ImageFeatures(sam2, prior)

    def _encode(self, images: Tensor) -> list[Tensor]:
        """What the frozen encoders give for pixels (n, 3, S, S), with the prior features last."""
        levels: list[Tensor] = []
        if self.stage == 'neck':
            sam2 = self.sam2.encode_image(self.normalise(images))
            levels = [*sam2.high_res, sam2.top]
        elif self.stage == 'trunk':
            levels = self.sam2.encode_trunk(self.normalise(images))
        return [*levels, self.prior_encoder(images, None)] if self._keeps_prior else levels

    @property
    def _keeps_prior(self) -> bool:
        """Whether prior features come from the image alone, and not from SAM 2's features."""
        return self.prior_encoder is not None and not self.prior_encoder.reads_sam2

    def _frozen(self) -> dict[str, nn.Module]:
        """What :meth:`_encode` runs."""
        encoder, decoder = self.sam2.image_encoder, self.sam2.sam_mask_decoder
        modules: dict[str, nn.Module] = {}
        if self.stage == 'neck':
            own = dict(image_encoder=encoder, conv_s0=decoder.conv_s0, conv_s1=decoder.conv_s1)
            modules.update(own, normalise=self.normalise)
        elif self.stage == 'trunk':
            modules.update(trunk=encoder.trunk, normalise=self.normalise)
        if self._keeps_prior:
            modules['prior_encoder'] = self.prior_encoder
        return modules
