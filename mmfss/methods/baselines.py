"""What a figure of a method is to be compared with: all foreground, and the pseudo mask alone."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from mmfss.arguments import integer
from mmfss.encoders.base import build_encoder, build_part
from mmfss.features.images import DeferredBatch

from .base import FewShotModel, Segmentation
from .fssam.prompts import PromptGenerator, Prototypes


@MODELS.register_module()
class AllForeground(FewShotModel):
    """Calls every pixel foreground: what a benchmark gives for nothing.

    Args:
        image_size: side S in pixels of the images.
        common: other arguments of :class:`~mmfss.methods.base.FewShotModel`.
    """

    needs_checkpoint = False

    def __init__(self, image_size: int = 512, **common: Any) -> None:
        super().__init__({}, integer('model.image_size', image_size, 1), **common)

    def encode_image(self, images: Tensor | DeferredBatch, role: str = 'query') -> Tensor:
        """Ones (N, 1, 1, 1): all images are alike. None of them is read."""
        return torch.ones(len(images), 1, 1, 1, device=images.device)

    def encode_support(self, features: Tensor, masks: Tensor) -> Tensor:
        """(B, 1) ones."""
        return features.new_ones(len(masks), 1)

    def segment(self, query: Tensor, state: Tensor, truth: Tensor | None = None) -> Segmentation:
        """Ones everywhere."""
        return Segmentation(query.expand(-1, -1, self.image_size, self.image_size))

    def compared(self, features: Tensor) -> Tensor:
        """Ones (N, 1, S, S): every class is in every image, however small its object."""
        return features.expand(-1, -1, self.image_size, self.image_size)


@MODELS.register_module()
class PseudoMask(FewShotModel):
    """A pseudo mask of FSSAM (``ae``, see :class:`~mmfss.methods.fssam.prompts.PseudoMasks`), cut
    at one half: its prior without SAM 2.

    Args:
        encoder: config of an :class:`~mmfss.encoders.base.Encoder`; its last map is matched.
        prompt_generator: config of a generator that needs no truth.
        image_size: side S in pixels of the images.
        common: other arguments of :class:`~mmfss.methods.base.FewShotModel`.

    Raises:
        ValueError: no encoder or generator, or a generator that needs the truth.
    """

    needs_checkpoint = False
    map_texts = {
        'pseudo fg': "similarity to the supports' objects, mean over shots",
        'pseudo ae': "the same less what the supports' backgrounds explain",
    }

    def __init__(
        self, encoder: dict, prompt_generator: dict, image_size: int = 512, **common: Any
    ) -> None:
        if encoder is None or prompt_generator is None:
            raise ValueError('PseudoMask needs an encoder and a prompt_generator; one is None')
        size = integer('model.image_size', image_size, 1)
        super().__init__(dict(encoder=build_encoder('encoder', encoder)), size, **common)
        self.prompt_generator = build_part('prompt_generator', prompt_generator, PromptGenerator)
        if self.prompt_generator.needs_truth:
            raise ValueError(
                f'PseudoMask is given no true mask, which {type(self.prompt_generator).__name__} '
                'needs; take PseudoPromptGenerator'
            )

    def encode_support(self, features: dict, masks: Tensor) -> Prototypes:
        """Prototypes of B K images under masks (B, K, S, S)."""
        level = self.compared(features).unflatten(0, masks.shape[:2])
        # p_fg = gap(F_s, m), p_bg = gap(F_s, 1 - m); 255 counts as 0 in m
        return self.prompt_generator.encode_support(level, (masks == 1).float())

    def segment(self, query: dict, state: Prototypes, truth: Tensor | None = None) -> Segmentation:
        """``ae - 1/2`` as logits."""
        pseudo = self.prompt_generator(self.compared(query), state, self.image_size)
        # z = prior_ae - 1/2, so that z >= 0 is prior_ae >= 1/2
        return Segmentation(pseudo.ae - 0.5, {'pseudo fg': pseudo.fg, 'pseudo ae': pseudo.ae})

    def not_static(self) -> dict[str, str]:
        """Nothing: both are static graphs."""
        return {}

    def compared(self, features: dict) -> Tensor:
        """The encoder's last map (N, C, h, w)."""
        return features['encoder'][-1]
