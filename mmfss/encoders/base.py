"""The interface of an encoder: a network that sees one image at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmfss.features.modules import code_of

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
        # y = (x / 255 - mean) / std
        return (images / 255.0 - self.mean) / self.std


@dataclass(frozen=True)
class Step:
    """A part of an encoder's way from pixels to features.

    Attributes:
        modules: all that decides what it gives, by name.
        run: of the images for the first step, of what the step before gave for others; returns
            tensors whose first axis is the image.
    """

    modules: Mapping[str, nn.Module]
    run: Callable[..., tuple[Tensor, ...]]


class Encoder(BaseModule):
    """A network that sees one image at a time, and owns its resizing, normalisation and weights.

    What it gives for an image is kept by :mod:`mmfss.encoders.encoding`, under a key of this
    encoder alone: methods around the same one share its features. A subclass implements
    ``forward``, sets ``arch``, and has ``load_pretrained`` where it has weights to load. One of
    which a part may be trained says in :meth:`steps` where it can be cut: in training what comes
    before the first step with a gradient is kept, in evaluation the whole.

    Attributes:
        arch: what decides which weights fit, of JSON types; goes into checkpoints and keys.
        normalise: RGB 0..255 to ImageNet statistics.
    """

    arch: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        code_of({}, [cls])  # keys tell the code as it is imported, not as it is at the first image

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.normalise = ImageNetNormalise()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(n, 3, S, S) RGB 0..255 -> maps (n, C, h, w), the finest first."""
        raise NotImplementedError

    def steps(self) -> tuple[Step, ...]:
        """The way from pixels to features; by default one step, which is ``forward``."""
        return (Step({'encoder': self}, self),)

    def load_pretrained(self) -> None:
        """Load the official or given weights, strictly; nothing to do by default."""

    def init_weights(self) -> None:
        """mmengine's name of :meth:`load_pretrained`."""
        self.load_pretrained()
        self._is_init = True

    def record(self) -> Any:
        """What a checkpoint says of this encoder, and is compared with: type and arch."""
        return dict(type=type(self).__name__, arch=self.arch)


def build_encoder(name: str, cfg: dict | None) -> Encoder | None:
    """Build the encoder of a config.

    Args:
        name: of the entry in the config, for messages.
        cfg: None, or a dict whose type is a registered :class:`Encoder`.

    Raises:
        ValueError: another type.
    """
    return build_part(
        name,
        cfg,
        Encoder,
        "; put a backbone of mmseg into dict(type='BackboneEncoder', backbone=dict(...))",
    )


def build_part(name: str, cfg: dict | None, base: type[nn.Module], hint: str = '') -> Any:
    """Build a part of a model.

    Args:
        name: of the entry in the config, for messages.
        cfg: None, or a dict whose type is a subclass of ``base``.
        base: the interface.
        hint: end of the message.

    Raises:
        ValueError: another type.
    """
    if cfg is None:
        return None
    kind = cfg.get('type') if isinstance(cfg, Mapping) else cfg
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(cls, type) and issubclass(cls, base) and isinstance(cfg, Mapping)):
        known = {k: v for k, v in MODELS.module_dict.items() if isinstance(v, type)}
        raise ValueError(
            f'model.{name} must be None or a dict whose type is one of '
            f'{sorted(k for k, v in known.items() if issubclass(v, base))} or a registered '
            f'subclass of {base.__name__}, got {kind!r}{hint}'
        )
    return MODELS.build(cfg)
